package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/lab"
)

// A hop that takes 1,400 bytes is found, shown, and told to senders, while a
// stream goes on. A forged message that it takes 576 lowers it to 1,280 and to no
// less: over IPv4, as over IPv6 the kernel itself doesn't believe it.
//
//	station tap11 ── swd, host1 ── router ── host2, swd ── station tap21
//	           192.0.2.1, 2001:db8:2::1    198.51.100.2, 2001:db8:3::2
func TestTunnelPathMTU(t *testing.T) {
	for _, f := range []struct {
		name     string
		one, two string
		headers  int
		forge    func(w *world, from, to net.HardwareAddr, port uint16) []byte
		told     string // The kernel's counter of such messages.
		believed bool   // By the kernel.
	}{
		{"IPv4", v4(1), "198.51.100.2", 50, forgedTooBig4, "IcmpInDestUnreachs", true},
		{"IPv6", v6(1), "2001:db8:3::2", 70, forgedTooBig6, "Icmp6InPktTooBigs", false},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := newCluster(t)
			router := c.router(254)
			one, two := c.node(1), c.nodeBehind(router, 2)
			c.Run(one.host, "ip", "-4", "route", "add", "default", "via", v4(254))
			c.Run(one.host, "ip", "-6", "route", "add", "default", "via", v6(254))
			one.peer("far", f.two)
			two.peer("far", f.one)
			a, b := one.add(onTAP), two.add(onTAP)
			one.reach(a, b.ip4)
			one.awaitMTU("far", mtu)
			stream := one.startBulk(a.ns, b.ns, b.ip4)
			stream.flows(t)
			c.NoError(router.SetMTU("r1", 1400))
			c.NoError(two.host.SetMTU("u0", 1400))
			one.awaitMTU("far", 1400)
			two.awaitMTU("far", 1400)
			stream.flows(t)
			c.NoError(stream.finish())
			one.across(1400-f.headers, a, b)
			stream = one.startBulk(a.ns, b.ns, b.ip4)

			told := one.counter(f.told)
			c.NoError(one.openRaw(&station{ns: router, ifname: "r0"}).send(
				f.forge(one.world, one.macOf(router, "r0"), one.macOf(one.host, "u0"), one.tunnelPort())))
			c.Eventually(patience, "the kernel takes the forged message", func() error {
				if one.counter(f.told) == told {
					return errors.New("none came")
				}
				return nil
			})
			if !f.believed {
				// That this is found shows that the path was looked at again.
				c.NoError(router.SetMTU("r1", 1390))
				c.NoError(two.host.SetMTU("u0", 1390))
				one.awaitMTU("far", 1390)
			} else {
				one.awaitMTU("far", 1280)
			}
			stream.flows(t)
			c.NoError(stream.finish())
			one.tcp(a, b, b.ip4, some)
			one.tcp(a, b, b.ip6, some)
		})
	}
}

// flows fails the test if nothing comes by the connection for a long time.
func (b *bulk) flows(t *testing.T) {
	t.Helper()
	for range 5 * patience / time.Second {
		if b.rate(time.Second/5) > 0 {
			return
		}
	}
	t.Error("the stream stands still")
}

// router makes a router on the wire, with number i there, and r1 towards hosts
// behind it.
func (c *cluster) router(i int) *lab.NetNS {
	c.Helper()
	n := c.NewNetNS("router")
	c.Veth(n, "r0", c.wire, "router")
	c.Run(c.wire, "ip", "link", "set", "router", "master", "br0")
	c.NoError(n.AddAddress("r0", v4(i)+"/24", v6(i)+"/64"))
	c.NoError(n.Sysctl("net/ipv4/ip_forward", "1"))
	c.NoError(n.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	return n
}

// nodeBehind starts swd on host number i, which is not on the wire but behind a
// router.
func (c *cluster) nodeBehind(router *lab.NetNS, i int) *node {
	c.Helper()
	n := c.NewNetNS("host" + itoa(i))
	c.Veth(router, "r1", n, "u0")
	c.NoError(router.AddAddress("r1", "198.51.100.1/24", "2001:db8:3::1/64"))
	c.NoError(n.AddAddress("u0", fmt.Sprintf("198.51.100.%d/24", i), fmt.Sprintf("2001:db8:3::%x/64", i)))
	c.Run(n, "ip", "-4", "route", "add", "default", "via", "198.51.100.1")
	c.Run(n, "ip", "-6", "route", "add", "default", "via", "2001:db8:3::1")
	return c.nodeIn(n, i)
}

// awaitMTU waits until a node shows a path's MTU.
func (n *node) awaitMTU(peer string, mtu int) {
	n.Helper()
	n.Eventually(patience, fmt.Sprintf("a path MTU of %d on %s", mtu, n.name()), func() error {
		p, err := n.peerState(peer)
		if err == nil && p.MTU != mtu {
			err = fmt.Errorf("it is %d", p.MTU)
		}
		return err
	})
}

// counter reads one of the host's SNMP counters.
func (n *node) counter(name string) uint64 {
	n.Helper()
	var reply struct{ Kernel map[string]uint64 }
	n.NoError(json.Unmarshal([]byte(n.Run(n.host, "nstat", "-asz", "-j", name)), &reply))
	return reply.Kernel[name]
}

// tunnelPort finds a port that the node's tunnels send from.
func (n *node) tunnelPort() uint16 {
	n.Helper()
	var found uint16
	n.NoError(n.host.Do(func() error {
		for _, table := range []string{"udp", "udp6"} {
			f, err := os.Open("/proc/thread-self/net/" + table)
			if err != nil {
				return err
			}
			for s := bufio.NewScanner(f); s.Scan(); {
				if words := strings.Fields(s.Text()); len(words) > 1 {
					_, port, _ := strings.Cut(words[1], ":")
					if p, err := strconv.ParseUint(port, 16, 16); err == nil && p >= 49152 {
						found = uint16(p)
					}
				}
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
		return nil
	}))
	if found == 0 {
		n.Fatal("the tunnels have no port to send from")
	}
	return found
}

// forgedTooBig4 is an ICMP message as if a router had found that a datagram to
// host2 was longer than 576 bytes (RFC 1191).
func forgedTooBig4(w *world, from, to net.HardwareAddr, port uint16) []byte {
	one, two := net.ParseIP(v4(1)).To4(), net.ParseIP("198.51.100.2").To4()
	cause := w.build(
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: one, DstIP: two, Flags: layers.IPv4DontFragment},
		&layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 4789}, gopacket.Payload(make([]byte, 1400)))
	return w.build(
		&layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.ParseIP(v4(254)).To4(), DstIP: one},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded), Seq: 576},
		gopacket.Payload(cause[:28]))
}

// forgedTooBig6 is the same for IPv6 (RFC 8201).
func forgedTooBig6(w *world, from, to net.HardwareAddr, port uint16) []byte {
	one, two := net.ParseIP(v6(1)), net.ParseIP("2001:db8:3::2")
	cause := w.build(
		&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: one, DstIP: two},
		&layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 4789}, gopacket.Payload(make([]byte, 1400)))
	return w.build(
		&layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv6},
		&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(v6(254)), DstIP: one},
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)},
		gopacket.Payload(append([]byte{0, 0, 576 >> 8, 576 & 0xff}, cause[:48]...)))
}
