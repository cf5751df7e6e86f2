package nat

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"heddle/dataplane/wire"
)

func TestUplinkFollowsItsNextHop(t *testing.T) {
	l := newLab(t, options{})
	l.must(l.up.SetNeighbour(router, 0))
	w, _ := l.out(udpPkt(hostA, 5000, far4, 53))
	expect(t, "asked", must1(t, w).etherType, wire.EtherTypeARP)
	w, _ = l.push(l.up, arpFrame4(macUp, macRouter, wire.ARPReply, router, macUp, ext4))
	expect(t, "waited for", must1(t, w).dstMAC, macRouter)
	expect(t, "MAC", l.outOne(udpPkt(hostA, 5000, far4, 53)).dstMAC, macRouter)
	// It announces another MAC.
	l.none(l.push(l.up, arpFrame4(wire.Broadcast, macRouter+1, wire.ARPRequest, router, 0, router)))
	expect(t, "new MAC", l.outOne(udpPkt(hostA, 5000, far4, 53)).dstMAC, macRouter+1)
	expect(t, "state", l.up.NextHops(int64(l.now))[0].State, Reachable)
	// Without frames, Tick keeps it fresh.
	l.now += 40 * time.Second
	expect(t, "state later", l.up.NextHops(int64(l.now))[0], NextHop{router, macRouter + 1, Stale})
	l.n.Tick(0, int64(l.now))
	expect(t, "asked by Tick", len(l.wire.take()) > 0, true)
	// Behind an interface that was away there may be another.
	l.up.ForgetNeighbours()
	l.now += 2 * time.Second
	w, _ = l.out(udpPkt(hostA, 5000, far4, 53))
	expect(t, "asked anew", must1(t, w).etherType, wire.EtherTypeARP)
	w, _ = l.push(l.up, arpFrame4(macUp, macRouter+2, wire.ARPReply, router, macUp, ext4))
	expect(t, "new MAC", must1(t, w).dstMAC, macRouter+2)
}

// TestNextHopOutsideOfTheSubnets: an address that is a subnet by itself, with a
// router on the link all the same.
func TestNextHopOutsideOfTheSubnets(t *testing.T) {
	onlink := ap("172.31.1.1")
	l := newLab(t, options{uplink: func(c *UplinkConfig) {
		c.Addresses = []netip.Prefix{pp("192.0.2.2/32")}
		c.NextHop4, c.NextHop6 = onlink, netip.Addr{}
	}})
	w, _ := l.out(udpPkt(hostA, 5000, far4, 53))
	asked := (*wire.ARPPacket)(must1(t, w).payload)
	expect(t, "asked for", v4(asked.TargetIP()).netip(), onlink)
	expect(t, "asked from", v4(asked.SenderIP()).netip(), ext4)
	// Nobody else outside of the subnet is heard.
	l.none(l.push(l.up, arpFrame4(macUp, macRouter, wire.ARPReply, ap("172.31.1.2"), macUp, ext4)))
	w, _ = l.push(l.up, arpFrame4(macUp, macRouter, wire.ARPReply, onlink, macUp, ext4))
	expect(t, "waited for", must1(t, w).dstMAC, macRouter)
	l.backOne(udpPkt(far4, 53, ext4, 5000))
	expect(t, "to the router itself", l.outOne(udpPkt(hostA, 5000, onlink, 53)).dstMAC, macRouter)
	l.drops()
}

// TestPriorityTagsOnAnUplink: VID 0 is no VLAN.
func TestPriorityTagsOnAnUplink(t *testing.T) {
	l := newLab(t, options{})
	tagged := func(s sent, tci uint16) sent {
		s.data = slices.Insert(slices.Clone(s.data), 12, 0x81, 0, byte(tci>>8), byte(tci))
		if s.owes.Partial() {
			s.owes.CsumStart += 4
		}
		return s
	}
	back := func(p pkt) sent {
		p.dstMAC, p.srcMAC = macUp, macRouter
		return p.frame()
	}
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	for _, partial := range []bool{false, true} {
		p := udpPkt(far4, 53, ext4, 5000)
		p.payload, p.partial = []byte("answer"), partial
		for range 2 { // The long way, and the short cut.
			_, in := l.push(l.up, tagged(back(p), 5<<13))
			got := must1(t, in)
			expect(t, "destination", got.dst, hostA)
			expect(t, "payload", string(got.payload), "answer")
			expect(t, "partial", got.partial, partial)
		}
	}
	w, _ := l.push(l.up, tagged(arpFrame4(wire.Broadcast, macRouter, wire.ARPRequest, router, 0, ext4), 0))
	expect(t, "answer to ARP", must1(t, w).etherType, wire.EtherTypeARP)
	// A VLAN is another network.
	l.none(l.push(l.up, tagged(back(udpPkt(far4, 53, ext4, 5000)), 7)))
	l.none(l.push(l.up, sent{data: tagged(back(udpPkt(far4, 53, ext4, 5000)), 0).data[:17]}))
	l.drops()
}

func TestAnnouncements(t *testing.T) {
	l := newLab(t, options{})
	l.n.Tick(0, int64(l.now))
	in, w := decodeAll(t, l.in.take()), decodeAll(t, l.wire.take())
	expect(t, "inside", len(in), 3) // IPv4, IPv6, link-local.
	expect(t, "outside", len(w), 3)
	l.n.Tick(0, int64(l.now))
	l.n.Tick(0, int64(l.now))
	expect(t, "again", len(l.in.take()), 3)
}
