// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Stack is the host's own IP stack, as docker0 has it beside its containers:
// they reach what the host listens on, and the host reaches them, each under
// its own address, without a connection. It is the sink of the port that leads
// there. NAT.AddStack makes it.
//
// Its link is direct: there are no neighbours, and both ends have the MAC of
// the interface (a TAP without ARP).
type Stack struct {
	link
	nat      *NAT
	counters *dataplane.Counters
}

// Push takes the frames that the host sends to containers. Workers call it,
// each with its own batch.
func (s *Stack) Push(b *dataplane.Batch) {
	t := s.nat.open(b, &s.link)
	if t == nil {
		return
	}
	for sel := b.Sel; sel != 0; sel &= sel - 1 {
		i := dataplane.First(sel)
		t.f = &b.Frames[i]
		path, d := t.fromStack(s)
		switch {
		case d != dataplane.None:
			t.drop(d, 1)
		case path != 0:
			t.send(i, path)
		}
	}
	t.close(s.counters)
}

// fromStack is fromInside for a frame that the host sent. What isn't for a
// container is the kernel's own talk on a new interface (MLD, router
// solicitations). What another station sent and the host forwards is dropped:
// networks are reached from outside by publications only.
func (t *turn) fromStack(s *Stack) (uint16, dataplane.Drop) {
	data := t.f.Bytes()
	if len(data) < wire.EthHdrLen {
		return 0, dataplane.Runt
	}
	etherType := binary.BigEndian.Uint16(data[wire.EthTypeOff:])
	if wire.DstMAC(data) != s.mac || etherType != wire.EtherTypeIPv4 && etherType != wire.EtherTypeIPv6 {
		return 0, dataplane.None
	}
	p := &t.p
	if d := p.parse(t.f, etherType); d != dataplane.None {
		return 0, d
	}
	g := t.nat.masqueraded(p.dst)
	switch {
	case !s.isOwn(p.src):
		return 0, dataplane.SpoofedSource
	case g == nil && t.nat.gatewayOf(p.dst) != nil:
		return 0, dataplane.Isolated
	case g == nil || g.isBroadcast(p.dst):
		return 0, dataplane.NotRoutable
	case g.isOwn(p.dst):
		return 0, t.local(&s.link)
	}
	if d := t.hop(&s.link, g.source(p.dst), g.mtu); d != dataplane.None {
		return 0, d
	}
	return t.deliver(&g.link, p.dst)
}

// masqueraded returns the gateway of the masqueraded network that has an
// address, or nil; of several the first, by which the host goes too.
func (n *NAT) masqueraded(a addr) *Gateway {
	for _, g := range n.gatewayList {
		if g.masquerade.uplink != nil && containedIn(g.subnets, a) {
			return g
		}
	}
	return nil
}

// gatewayOf returns the gateway of a network that has an address, or nil.
func (n *NAT) gatewayOf(a addr) *Gateway {
	for _, g := range n.gatewayList {
		if containedIn(g.subnets, a) {
			return g
		}
	}
	return nil
}

// isBroadcast tells the directed broadcast address of one of the subnets.
func (l *link) isBroadcast(a addr) bool {
	for i := range l.subnets {
		if l.subnets[i].isBroadcast(a) {
			return true
		}
	}
	return false
}

// isForStack tells whether the packet at hand, from a container of g, is for
// the host's stack: for an address of the host's, and not for a port of an
// uplink's there. An ICMP error is only if it is about no connection.
func (t *turn) isForStack(g *Gateway) bool {
	p, s := &t.p, t.nat.stack
	if s == nil || !s.isOwn(p.dst) || t.nat.masqueraded(p.src) != g {
		return false
	}
	if p.class == unported || p.class == icmp {
		return true
	}
	u := t.nat.uplinkOwning(p.dst)
	return u == nil || !u.owns(u.extOf(p.dst), p.class, p.dport)
}

// owns tells whether a port of an external address is the uplink's rather than
// the host's.
func (u *Uplink) owns(ext uint16, cl class, port uint16) bool {
	return port >= u.config.Ports.First && port <= u.config.Ports.Last || u.nat.table.exts[ext].isPublished(cl, port)
}

// toStack sends the packet at hand, from a container of g, to the host.
func (t *turn) toStack(g *Gateway) (uint16, dataplane.Drop) {
	return t.forward(&g.link, &t.nat.stack.link, t.p.dst)
}

// handOver addresses the frame at hand on a direct link.
func (t *turn) handOver(l *link, a addr) (uint16, dataplane.Drop) {
	t.last.path, t.last.addr, t.last.fresh = l.path, a, t.now+reachable
	setMACs(t.f.Bytes(), l.mac, l.mac)
	if p := &t.p; p.end-p.l3 > l.mtu && p.splits(t.f) {
		return t.split(l.path, l.mtu)
	}
	return l.path, dataplane.None
}
