package nat

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func TestGatewayAnswersARP(t *testing.T) {
	l := newLab(t, options{})
	_, in := l.push(l.gw, arpFrame4(wire.Broadcast, macB, wire.ARPRequest, hostB, 0, gw4))
	p := must1(t, in)
	a := (*wire.ARPPacket)(p.payload)
	expect(t, "to", p.dstMAC, macB)
	expect(t, "from", p.srcMAC, macGW)
	expect(t, "op", a.Op(), wire.ARPReply)
	expect(t, "sender", a.SenderMAC(), macGW)
	expect(t, "sender's IP", v4(a.SenderIP()).netip(), gw4)
	expect(t, "target", a.TargetMAC(), macB)
	l.none(l.push(l.gw, arpFrame4(wire.Broadcast, macB, wire.ARPRequest, hostB, 0, hostA)))
	// The uplink answers for its own, too.
	w, _ := l.push(l.up, arpFrame4(wire.Broadcast, macRouter, wire.ARPRequest, router, 0, ext4))
	expect(t, "uplink's answer from", must1(t, w).srcMAC, macUp)
	l.drops()
}

// nsFrame is a neighbour solicitation or advertisement.
func nsFrame(dst, src wire.MAC, from, to, target netip.Addr, typ uint8, opt byte) sent {
	tg := target.As16()
	body := append(tg[:], opt, 1)
	m := src.Bytes()
	p := pkt{dstMAC: dst, srcMAC: src, src: from, dst: to, proto: wire.ProtoICMPv6, icmpType: typ, ttl: 255, payload: append(body, m[:]...)}
	return p.frame()
}

func TestGatewayAnswersNeighbourSolicitations(t *testing.T) {
	l := newLab(t, options{})
	mac, group := solicited(addrOf(gw6))
	_, in := l.push(l.gw, nsFrame(mac, macA, hostA6, group.netip(), gw6, wire.ICMPv6NeighSolicit, ndSourceMAC))
	p := must1(t, in)
	expect(t, "type", p.icmpType, wire.ICMPv6NeighAdvert)
	expect(t, "flags", p.word>>24, naRouter|naSolicited|naOverride)
	expect(t, "to", p.dst, hostA6)
	expect(t, "hop limit", p.ttl, 255)
	expect(t, "target", v6((*[16]byte)(p.payload)).netip(), gw6)
	expect(t, "MAC", wire.MACAt(p.payload[18:]), macGW)
	// A forwarded one has a lower hop limit, and is none.
	f := nsFrame(mac, macA, hostA6, group.netip(), gw6, wire.ICMPv6NeighSolicit, ndSourceMAC)
	f.data[14+7] = 254
	l.none(l.push(l.gw, f))
	l.drops(dataplane.BadPacket)
	// A probe for a duplicate is answered to all (RFC 4862 5.4.3).
	_, in = l.push(l.gw, nsFrame(mac, macA, ap("::"), group.netip(), gw6, wire.ICMPv6NeighSolicit, 14))
	expect(t, "probe's answer", must1(t, in).dst, ap("ff02::1"))
}

func TestGatewayAnswersPing(t *testing.T) {
	l := newLab(t, options{})
	for _, x := range []struct {
		src, dst  netip.Addr
		req, repl uint8
	}{
		{hostA, gw4, wire.ICMPEcho, wire.ICMPEchoReply},
		{hostA6, gw6, wire.ICMPv6Echo, wire.ICMPv6EchoReply},
		{hostA, ext4, wire.ICMPEcho, wire.ICMPEchoReply},
	} {
		w, in := l.out(ping(x.src, x.dst, 9, x.req))
		expect(t, "frames on the wire", len(w), 0)
		p := must1(t, in)
		expect(t, "type", p.icmpType, x.repl)
		expect(t, "source", p.src, x.dst)
		expect(t, "destination", p.dst, x.src)
		expect(t, "MAC", p.dstMAC, macA)
		expect(t, "payload", string(p.payload), "abcdefgh")
	}
	w, _ := l.back(ping(far4, ext4, 9, wire.ICMPEcho))
	expect(t, "uplink's answer", must1(t, w).icmpType, wire.ICMPEchoReply)
	l.none(l.out(udpPkt(hostA, 1, gw4, 53)))
	l.drops(dataplane.Unsolicited)
}

func TestRFC1812TTLExpiry(t *testing.T) {
	l := newLab(t, options{})
	for _, x := range []struct {
		src, dst, gw netip.Addr
		typ          uint8
	}{{hostA, far4, gw4, wire.ICMPTimeExceeded}, {hostA6, far6, gw6, wire.ICMPv6TimeExceeded}} {
		p := udpPkt(x.src, 33434, x.dst, 33434)
		p.ttl = 1
		w, in := l.out(p)
		expect(t, "frames on the wire", len(w), 0)
		e := must1(t, in)
		expect(t, "type", e.icmpType, x.typ)
		expect(t, "source", e.src, x.gw)
		expect(t, "destination", e.dst, x.src)
		in2 := e.embedded(t)
		expect(t, "what it is about", in2.sport, 33434)
		expect(t, "connections", l.n.Stats().Conns, 0)
	}
	l.drops(dataplane.TTLExpired, dataplane.TTLExpired)
}

func TestRFC1812ErrorsAreRateLimited(t *testing.T) {
	l := newLab(t, options{})
	errors := 0
	p := udpPkt(hostA, 33434, far4, 33434)
	p.ttl = 1
	for range 500 {
		_, in := l.out(p)
		errors += len(in)
	}
	expect(t, "errors in an instant", errors, errorBurst)
	l.now += time.Second
	for range 500 {
		_, in := l.out(p)
		errors += len(in)
	}
	expect(t, "errors after a second", errors, 2*errorBurst)
}

func TestRFC1191TooBig(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.MTU = 1300 }})
	p := udpPkt(hostA, 5000, far4, 53)
	p.df, p.payload = true, make([]byte, 1400)
	w, in := l.out(p)
	expect(t, "frames on the wire", len(w), 0)
	e := must1(t, in)
	expect(t, "type", e.icmpType, wire.ICMPUnreachable)
	expect(t, "code", e.code, 4)
	expect(t, "MTU", e.word, 1300)
	expect(t, "length", 14+20+8+len(e.payload), 14+576)

	p = udpPkt(hostA6, 5000, far6, 53)
	p.payload = make([]byte, 1400)
	_, in = l.out(p)
	e = must1(t, in)
	expect(t, "type", e.icmpType, wire.ICMPv6PacketTooBig)
	expect(t, "MTU", e.word, 1300)
	expect(t, "length", 40+8+len(e.payload), 1280)
	l.drops(dataplane.ExceedsMTU, dataplane.ExceedsMTU)

	// A super-frame counts by its segments.
	syn := tcpPkt(hostA, 6000, far4, 80, wire.TCPSyn, 1, 0)
	syn.options = []byte{2, 4, 0x05, 0xb4}
	o := l.outOne(syn)
	expect(t, "MSS is clamped", binary.BigEndian.Uint16(o.options[2:]), 1260)
	a := tcpPkt(far4, 80, ext4, 6000, wire.TCPSyn|wire.TCPAck, 100, 2)
	a.options = []byte{1, 2, 4, 0x05, 0xb4, 0, 0, 0} // At an odd place.
	expect(t, "MSS back is clamped", binary.BigEndian.Uint16(l.backOne(a).options[3:]), 1260)
	g := tcpPkt(hostA, 6000, far4, 80, wire.TCPAck, 2, 101)
	g.payload, g.partial, g.gso = make([]byte, 20000), true, 1260
	expect(t, "super-frame", len(l.outOne(g).payload), 20000)
	g.gso, g.df, g.seq = 1448, true, 20002
	w, in = l.out(g)
	expect(t, "frames on the wire", len(w), 0)
	expect(t, "MTU", must1(t, in).word, 1300)
}

func TestGatewayResolvesContainers(t *testing.T) {
	l := newLab(t, options{})
	c := ap("198.18.0.77")
	l.mustPublish("x", wire.ProtoUDP, netip.Addr{}, one(53), c, 53)
	for i := range uint16(5) { // Three wait, two are too many.
		w, in := l.back(udpPkt(far4, 100+i, ext4, 53))
		expect(t, "frames on the wire", len(w), 0)
		if i == 0 {
			a := (*wire.ARPPacket)(must1(t, in).payload)
			expect(t, "asked for", v4(a.TargetIP()).netip(), c)
		} else {
			expect(t, "frames inside", len(in), 0)
		}
	}
	l.drops(dataplane.NoNeighbour, dataplane.NoNeighbour)
	_, in := l.push(l.gw, arpFrame4(macGW, 0x020000000077, wire.ARPReply, c, macGW, gw4))
	expect(t, "frames that waited", len(in), 3)
	for i, p := range in {
		expect(t, "order", p.sport, uint16(100+i))
		expect(t, "MAC", p.dstMAC, 0x020000000077)
	}
	expect(t, "waiting", l.n.Stats().Waiting, 0)
	// A MAC that nobody confirms is asked after and then forgotten.
	l.now += 31 * time.Second
	asked := 0
	for range 8 {
		_, in := l.back(udpPkt(far4, 100, ext4, 53))
		for _, p := range in {
			if p.etherType == wire.EtherTypeARP {
				asked++
			}
		}
		l.now += 1200 * time.Millisecond
	}
	if asked < 6 {
		t.Errorf("asked %d times after an old entry", asked)
	}
	l.drops()
	if _, in := l.push(l.gw, arpFrame4(macGW, 0x020000000078, wire.ARPReply, c, macGW, gw4)); len(in) == 0 {
		t.Error("what waited was not sent to the new MAC")
	}
	expect(t, "new MAC", l.backOne(udpPkt(far4, 100, ext4, 53)).dstMAC, 0x020000000078)
}

// TestPingInFragmentsIsAnswered: each fragment by itself, in whatever order.
func TestPingInFragmentsIsAnswered(t *testing.T) {
	for _, x := range []struct {
		src, dst  netip.Addr
		req, repl uint8
	}{
		{hostA, gw4, wire.ICMPEcho, wire.ICMPEchoReply},
		{hostA6, gw6, wire.ICMPv6Echo, wire.ICMPv6EchoReply},
	} {
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
			l := newLab(t, options{})
			p := ping(x.src, x.dst, 9, x.req)
			p.payload = make([]byte, 2500)
			for i := range p.payload {
				p.payload[i] = byte(i * 3)
			}
			fs := cut(p, 77, 1000)
			whole := make([]byte, 2508)
			n := 0
			var got pkt
			for _, i := range order {
				w, in := l.out(fs[i])
				expect(t, "frames on the wire", len(w), 0)
				for _, got = range in {
					n += copy(whole[got.fragOff:], got.raw)
					expect(t, "from", got.src, x.dst)
					expect(t, "to", got.dst, x.src)
					expect(t, "MAC", got.dstMAC, macA)
					if x.src.Is4() {
						expect(t, "id", got.id, fs[i].id)
					}
				}
			}
			expect(t, "bytes", n, 2508)
			expect(t, "type", whole[0], x.repl)
			want, _ := p.l4()
			expect(t, "payload", string(whole[8:]), string(want[8:]))
			acc := uint32(0)
			if x.src.Is6() {
				acc = got.pseudo(len(whole))
			}
			expect(t, "checksum", wire.Fold(wire.Sum(whole, acc)), 0xffff)
			l.drops()
		}
	}
	// What isn't a ping isn't answered, nor what follows it.
	l := newLab(t, options{})
	p := udpPkt(hostA, 5000, gw4, 53)
	p.payload = make([]byte, 1500)
	for _, f := range cut(p, 78, 1000) {
		l.none(l.out(f))
	}
	l.drops(dataplane.Unsolicited, dataplane.FragmentLost)
}

func TestSpoofedAndStrangePackets(t *testing.T) {
	l := newLab(t, options{})
	l.none(l.out(udpPkt(far4, 5000, far4b, 53)))
	l.none(l.out(udpPkt(gw4, 5000, far4b, 53)))
	l.drops(dataplane.SpoofedSource, dataplane.SpoofedSource)
	l.none(l.back(udpPkt(ext4, 5000, ext4, 53)))
	l.drops(dataplane.SpoofedSource)
	l.none(l.back(udpPkt(hostB, 5000, ext4, 53)))
	l.drops(dataplane.SpoofedSource)
	l.none(l.out(udpPkt(hostA, 5000, ap("224.0.0.5"), 53)))
	l.none(l.out(udpPkt(hostA, 5000, ap("198.18.0.255"), 53)))
	l.drops(dataplane.NotRoutable, dataplane.NotRoutable)
	l.none(l.out(pkt{src: hostA, dst: far4, proto: 47, payload: make([]byte, 20)}))
	l.drops(dataplane.ProtoUnsupported)
	f := udpPkt(hostA, 5000, far4, 53)
	f.dstMAC, f.srcMAC = macGW, macA
	s := f.frame()
	s.data[14+10]++
	l.none(l.push(l.gw, s))
	l.drops(dataplane.BadChecksum)
	s = f.frame()
	s.data = s.data[:30]
	l.none(l.push(l.gw, s))
	l.none(l.push(l.gw, sent{data: s.data[:10]}))
	l.drops(dataplane.BadPacket, dataplane.Runt)
	f.dstMAC = macB // Flooded: not the gateway's.
	l.none(l.push(l.gw, f.frame()))
	l.drops()
	l.none(l.out(udpPkt(hostA, 0, far4, 53)))
	l.drops(dataplane.BadPacket)
}

func TestSameNetworkThroughTheGateway(t *testing.T) {
	l := newLab(t, options{})
	_, in := l.out(udpPkt(hostA, 5000, hostB, 53))
	p := must1(t, in)
	expect(t, "MAC", p.dstMAC, macB)
	expect(t, "source", p.src, hostA)
	expect(t, "TTL", p.ttl, 63)
	expect(t, "connections", l.n.Stats().Conns, 0)
}

func TestPlainIPv6Routing(t *testing.T) {
	l := newLab(t, options{masq: func(c *MasqueradeConfig) { c.RouteIPv6 = true }})
	p := l.outOne(udpPkt(hostA6, 5000, far6, 53))
	expect(t, "source", p.src, hostA6)
	expect(t, "hop limit", p.ttl, 63)
	in := l.backOne(udpPkt(far6, 53, hostA6, 5000))
	expect(t, "destination", in.dst, hostA6)
	expect(t, "MAC", in.dstMAC, macA)
	// So do errors, about packets of no connection and of protocols without ports.
	for _, about := range []pkt{in, {src: far6, dst: hostA6, proto: 47, payload: make([]byte, 20)}} {
		e := l.outOne(errorAbout(hostA6, far6, wire.ICMPv6Unreachable, 4, about, 100))
		expect(t, "source of an error", e.src, hostA6)
	}
	l.drops()
	expect(t, "IPv4 is translated", l.outOne(udpPkt(hostA, 5000, far4, 53)).src, ext4)
}
