package e2e

import (
	"net"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Datagrams from a host that is no peer, malformed ones that pass for a peer's,
// and those that containers make: each is counted, none gets in, and the hosts'
// stations go on.
//
//	station tap11 ──────── swd, host1 ─┐
//	station tap12, outward ┤ by u0     │
//	host port heddle13 ────┘           │
//	station tap21 ──────── swd, host2 ─┤ wire
//	                    intruder, host4 ┘
func TestTunnelIntruders(t *testing.T) {
	c := newCluster(t)
	one, two := c.node(1), c.node(2)
	intruder := c.plug(4)
	one.peer("host2", v4(2))
	two.peer("host1", v4(1))
	a, b := one.add(onTAP), two.add(onTAP)
	one.reach(a, b.ip4)
	atA, atB := one.openRaw(a), two.openRaw(b)
	inner := func(text string) []byte { return etherFrame(broadcast, roamer, text) }

	t.Run("no peer", func(t *testing.T) {
		one := c.in(t).nodes[0]
		before := one.dropped("unknown-peer")
		for range 20 {
			one.sendUDP(intruder, v4(1)+":4789", vxlan(validVNI, vni, inner("intruder")))
		}
		one.awaitDropped("unknown-peer", 20, before)
	})
	t.Run("malformed", func(t *testing.T) {
		one := c.in(t).nodes[0]
		out := one.openRaw(&station{ns: intruder, ifname: "u0"})
		for _, m := range []struct {
			reason  string
			payload []byte
		}{
			{"vxlan-short", nil},
			{"vxlan-short", vxlan(validVNI, vni, nil)[:7]},
			{"vxlan-flags", vxlan(0, vni, inner("intruder"))},
			{"vxlan-flags", vxlan(0xff&^validVNI, vni, inner("intruder"))},
			{"unknown-vni", vxlan(validVNI, vni+1, inner("intruder"))},
			{"unknown-vni", vxlan(validVNI, 0, inner("intruder"))},
			{"runt", vxlan(validVNI, vni, inner("intruder")[:13])},
			{"runt", vxlan(validVNI, vni, nil)},
		} {
			before := one.dropped(m.reason)
			c.NoError(out.send(c.forged(m.payload)))
			one.awaitDropped(m.reason, 1, before)
		}
		// What is sent as 0 is ignored when it comes, and so is a checksum that
		// is left out; a wrong one isn't.
		odd := vxlan(0xff, vni, inner("reserved bits"))
		odd[1], odd[2], odd[3], odd[7] = 0xff, 0xff, 0xff, 0xff
		c.NoError(out.send(c.forged(odd)))
		c.got(atA, "reserved bits")
		unsummed := c.forged(vxlan(validVNI, vni, inner("no checksum")))
		unsummed[etherLen+26], unsummed[etherLen+27] = 0, 0
		c.NoError(out.send(unsummed))
		c.got(atA, "no checksum")
		// Of a veth, the kernel believes that it has looked at checksums.
		c.Run(one.host, "ethtool", "-K", "u0", "rx", "off")
		wrong := c.forged(vxlan(validVNI, vni, inner("intruder")))
		wrong[etherLen+26] ^= 0x55
		c.NoError(out.send(wrong))
	})
	t.Run("containers", func(t *testing.T) {
		one := c.in(t).nodes[0]
		one.addNetwork("outward", "--subnet", "198.18.1.0/24", "--gateway", "198.18.1.254")
		one.ctl("uplink", "add", "wan", "--interface", "u0")
		one.ctl("nat", "add", "masquerade", "--network", "outward", "--uplink", "wan")
		hostile := one.NewNetNS("hostile")
		one.ctl("port", "add", "hostile", "--network", "outward", "--netns", hostile.Path(), "--ip", "198.18.1.1/24", "--default-route")
		one.reach(&station{name: "hostile", ns: hostile}, v4(2))
		for _, to := range []string{v4(1), v4(2)} {
			before := one.dropped("underlay-guard")
			for range 5 {
				one.sendUDP(hostile, to+":4789", vxlan(validVNI, vni, inner("intruder")))
			}
			one.awaitDropped("underlay-guard", 5, before)
		}
		// As a peer, to the host's address on a network.
		port := one.add(onHost)
		spoofed := one.build(
			&layers.Ethernet{SrcMAC: one.hardware(a), DstMAC: one.hardware(port), EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(v4(2)), DstIP: net.ParseIP(port.ip4)},
			&layers.UDP{SrcPort: 50000, DstPort: 4789},
			gopacket.Payload(vxlan(validVNI, vni, inner("intruder"))))
		before := one.dropped("underlay-guard")
		c.NoError(atA.send(spoofed))
		one.awaitDropped("underlay-guard", 1, before)
	})
	c.NoError(two.openRaw(b).send(etherFrame(broadcast, one.mac(b), "the end")))
	c.got(atA, "the end")
	c.NoError(one.openRaw(a).send(etherFrame(broadcast, one.mac(a), "the end")))
	c.got(atB, "the end")
	for _, n := range c.nodes {
		if e, known := n.fdb(network)[roamer]; known && e.Port == "hostile" {
			t.Errorf("%s has learnt %+v", n.name(), e)
		}
	}
	one.tcp(a, b, b.ip4, some)
}

// got waits for a frame, before which none of the intruder's may come.
func (c *cluster) got(at *raw, text string) {
	c.Helper()
	_, _, err := at.await(patience, func(frame []byte) bool {
		if carries("intruder")(frame) {
			c.Errorf("an intruder's frame came: %x", frame)
		}
		return carries(text)(frame)
	})
	if err != nil {
		c.Errorf("%q: %v", text, err)
	}
}

// forged is a datagram to the tunnels' port of host1 that has the address of
// host2, its peer, as source.
func (c *cluster) forged(payload []byte) []byte {
	c.Helper()
	one := c.nodes[0]
	return one.build(
		&layers.Ethernet{SrcMAC: slices.Concat([]byte{2, 0, 0, 0, 0}, []byte{0x66}), DstMAC: one.macOf(one.host, "u0"), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(v4(2)).To4(), DstIP: net.ParseIP(v4(1)).To4()},
		&layers.UDP{SrcPort: 50000, DstPort: 4789},
		gopacket.Payload(payload))
}
