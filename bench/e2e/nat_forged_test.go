package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/lab"
)

// What is forged is dropped and counted, and does no harm to a connection of
// which the forger knows all but the sequence numbers.
//
//	container tap1: a TCP stream ── swd ── uplink ── router: forger ── server
//	container tap2: forger
func TestNATForged(t *testing.T) {
	modes(t, func(w *natWorld) {
		c, inside := w.container(), w.container()
		w.reach(c, server4)
		w.reach(inside, server4)
		w.udpEcho(w.server, 53)
		stream := w.startBulk(c.ns, w.server, server4)
		asker := w.dialUDP(c.ns, server4, 53)
		seen, err := asker.ask(patience)
		w.NoError(err)
		conn := w.conns("--proto", "tcp", "--src", c.ip4)[0]
		theirs, ours := netip.MustParseAddrPort(conn.Reply.Src), netip.MustParseAddrPort(conn.Reply.Dst)
		own := netip.MustParseAddrPort(conn.Original.Src)

		out := w.openRawIn(w.router, "isp0")
		toUplink := &layers.Ethernet{SrcMAC: w.macOf(w.router, "isp0"), DstMAC: w.uplinkMAC(), EthernetType: layers.EthernetTypeIPv4}
		fromServer := func(l4 ...gopacket.SerializableLayer) []byte {
			proto := layers.IPProtocolICMPv4
			switch l4[0].(type) {
			case *layers.TCP:
				proto = layers.IPProtocolTCP
			case *layers.UDP:
				proto = layers.IPProtocolUDP
			}
			return w.build(append([]gopacket.SerializableLayer{toUplink, w.ip(proto, server4, w.ext4)}, l4...)...)
		}
		// What is farthest from the window, so that it isn't in it by chance.
		const far = 1 << 31
		_, seg, err := out.await(patience, func(f []byte) bool {
			return len(f) > etherLen+40 && f[etherLen+9] == 6 && binary.BigEndian.Uint16(f[etherLen+20:]) == ours.Port()
		})
		w.NoError(err)
		segment := layers.TCP{
			SrcPort: layers.TCPPort(theirs.Port()), DstPort: layers.TCPPort(ours.Port()), Window: 1000,
			Seq: binary.BigEndian.Uint32(seg[etherLen+28:]) + far,
		}
		innerRST := &layers.TCP{
			SrcPort: layers.TCPPort(own.Port()), DstPort: layers.TCPPort(theirs.Port()), RST: true,
			Seq: binary.BigEndian.Uint32(seg[etherLen+24:]) + far,
		}
		rst, syn, synAck, data := segment, segment, segment, segment
		rst.RST = true
		syn.SYN = true
		synAck.SYN, synAck.ACK = true, true
		data.ACK, data.PSH = true, true
		tooBig := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1000} // The next hop's MTU.
		carried := func(src string, sport uint16, dst string) gopacket.Payload {
			return gopacket.Payload(w.build(w.ip(layers.IPProtocolUDP, src, dst),
				&layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: 53}, gopacket.Payload("?")))
		}
		genuine := fromServer(tooBig, carried(w.ext4, seen.Port(), server4))
		wrongSum := append([]byte(nil), genuine...)
		wrongSum[etherLen+20+2] ^= 1

		in := w.openRaw(inside)
		gate := w.neighbour(inside.ns, inside.ifname, gate4)
		toGate := &layers.Ethernet{SrcMAC: w.hardware(inside), DstMAC: gate, EthernetType: layers.EthernetTypeIPv4}
		udp := &layers.UDP{SrcPort: 4444, DstPort: 53}
		for _, f := range []struct {
			what, reason string
			by           *raw
			frame        []byte
		}{
			{"RST", "tcp-window", out, fromServer(&rst)},
			{"SYN", "tcp-window", out, fromServer(&syn)},
			{"SYN and ACK", "tcp-window", out, fromServer(&synAck)},
			{"data", "tcp-window", out, fromServer(&data, gopacket.Payload("forged"))},
			{"too big, with a wrong checksum", "bad-checksum", out, wrongSum},
			{"too big, of another port", "icmp-no-connection", out,
				fromServer(tooBig, carried(w.ext4, seen.Port()^1, server4))},
			{"too big, of another server", "icmp-no-connection", out,
				fromServer(tooBig, carried(w.ext4, seen.Port(), second4))},
			{"too big, of another sender", "icmp-no-connection", out,
				fromServer(tooBig, carried(c.ip4, port(asker.LocalAddr()), server4))},
			{"an address that is outside", "spoofed-source", in,
				w.build(toGate, w.ip(layers.IPProtocolUDP, server4, "203.0.113.1"), udp)},
			{"the uplink's address", "spoofed-source", in,
				w.build(toGate, w.ip(layers.IPProtocolUDP, w.ext4, "203.0.113.1"), udp)},
			{"the gateway's address", "spoofed-source", in,
				w.build(toGate, w.ip(layers.IPProtocolUDP, gate4, "203.0.113.1"), udp)},
			{"another's connection", "tcp-window", in, w.build(toGate, w.ip(layers.IPProtocolTCP, c.ip4, server4), innerRST)},
		} {
			send := [][]byte{f.frame}
			if w.ext4 == host4 && f.frame[etherLen+9] == 1 {
				// On a shared uplink it may be for the host, and isn't counted:
				// what comes after it tells that it has been seen.
				f.reason, send = "tcp-window", [][]byte{f.frame, fromServer(&rst)}
			}
			before := w.dropped(f.reason)
			w.Eventually(patience, f.what+" dropped as "+f.reason, func() error {
				for _, frame := range send {
					if err := f.by.send(frame); err != nil {
						return err
					}
				}
				if w.dropped(f.reason) == before {
					return errNotYet
				}
				return nil
			})
		}
		if got := w.conns("--proto", "tcp", "--src", c.ip4); len(got) != 1 || got[0].State != "established" {
			w.Errorf("the connection has become %+v", got)
		}
		w.Eventually(patience, "the stream goes on", func() error {
			if r := stream.rate(200 * time.Millisecond); r < bulkRate/100 {
				return fmt.Errorf("it has %.3f Gb/s", gbits(r))
			}
			return nil
		})
		route := func() string { return w.Run(c.ns, "ip", "route", "get", server4) }
		if r := route(); strings.Contains(r, "mtu") {
			w.Errorf("a forged error was believed: %s", r)
		}
		// What they are forged from is believed.
		w.Eventually(patience, "a true error is believed", func() error {
			if err := out.send(genuine); err != nil || !strings.Contains(route(), "mtu 1000") {
				return errors.Join(err, errNotYet)
			}
			return nil
		})
		w.NoError(stream.finish())
	})
}

func port(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

// Fragments that overlap are dropped with their whole packet, both ways; the
// same without the overlap come whole, in any order.
//
//	container tap1: UDP echo on 53, fragments ── swd ── uplink, 5353 ── router: fragments ── server: UDP echo on 53
func TestNATFragments(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.reach(c, server4)
		w.udpEcho(c.ns, 53)
		w.udpEcho(w.server, 53)
		w.publish("5353/udp", c.name+":53")
		inside, outside := w.openRaw(c), w.openRawIn(w.router, "isp0")
		gate := w.neighbour(c.ns, c.ifname, gate4)
		for _, a := range []struct {
			by       *raw
			eth      *layers.Ethernet
			src, dst string
			port     layers.UDPPort
			answer   string // Where it comes from.
		}{
			{inside, &layers.Ethernet{SrcMAC: w.hardware(c), DstMAC: gate}, c.ip4, server4, 53, server4},
			{outside, &layers.Ethernet{SrcMAC: w.macOf(w.router, "isp0"), DstMAC: w.uplinkMAC()}, "203.0.113.7", w.ext4, 5353, w.ext4},
		} {
			a.eth.EthernetType = layers.EthernetTypeIPv4
			if a.by == outside {
				w.Run(w.router, "ip", "route", "replace", "blackhole", nowhere)
			}
			ip := w.ip(layers.IPProtocolUDP, a.src, a.dst)
			datagram := func(from layers.UDPPort) []byte {
				return w.build(ip, &layers.UDP{SrcPort: from, DstPort: a.port}, gopacket.Payload(make([]byte, 48)))[20:]
			}
			const asks, overlaps = 4444, 4445 // By its port an answer tells to what it is one.
			whole := datagram(asks)
			id := uint16(1)
			fragment := func(from, to int) []byte {
				f := *ip
				f.Id, f.FragOffset = id, uint16(from/8)
				if to < len(whole) {
					f.Flags = layers.IPv4MoreFragments
				}
				return w.build(a.eth, &f, gopacket.Payload(whole[from:to]))
			}
			answered := func(bound time.Duration, port uint16) bool {
				_, _, err := a.by.await(bound, func(f []byte) bool {
					return len(f) > etherLen+28 && f[etherLen+9] == 17 && net.IP(f[etherLen+12:][:4]).String() == a.answer &&
						binary.BigEndian.Uint16(f[etherLen+22:]) == port
				})
				return err == nil
			}
			for _, order := range [][][2]int{
				{{0, 24}, {24, 56}}, {{24, 56}, {0, 24}}, {{40, 56}, {0, 24}, {24, 40}},
			} {
				w.Eventually(patience, fmt.Sprintf("fragments %v from %s come whole", order, a.src), func() error {
					id++
					for _, part := range order {
						if err := a.by.send(fragment(part[0], part[1])); err != nil {
							return err
						}
					}
					if !answered(time.Second, asks) {
						return errNotYet
					}
					return nil
				})
			}
			before := w.dropped("fragment-overlap")
			id++
			whole = datagram(overlaps)
			for _, part := range [][2]int{{0, 24}, {16, 40}, {40, 56}, {24, 56}} {
				w.NoError(a.by.send(fragment(part[0], part[1])))
			}
			w.Eventually(patience, "the overlap is counted", func() error {
				if w.dropped("fragment-overlap") == before {
					return errNotYet
				}
				return nil
			})
			if answered(100*time.Millisecond, overlaps) {
				w.Errorf("fragments from %s that overlap came whole", a.src)
			}
		}
	})
}

// ip is an IPv4 header.
func (w *world) ip(proto layers.IPProtocol, src, dst string) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4()}
}

// openRawIn opens a packet socket at an interface of a namespace until the test
// ends.
func (w *world) openRawIn(n *lab.NetNS, ifname string) *raw {
	w.Helper()
	return w.openRaw(&station{ns: n, ifname: ifname})
}
