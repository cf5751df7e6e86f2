// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Gateway is a network's way out: a port of it, with a MAC and addresses of
// its own. NAT.AddGateway makes it. It is no port of the engine: nothing is
// ever pulled from it; what it has to send it pushes to its network.
type Gateway struct {
	link
	nat      *NAT
	counters *dataplane.Counters
	config   GatewayConfig

	masquerade masquerade
}

// masquerade is how a network's containers reach an uplink.
type masquerade struct {
	uplink *Uplink // nil: not at all.
	rule   uint16
	shared bool // Mappings are address-and-port-dependent.
	open   bool // Filtering is endpoint-independent.
	plain6 bool // IPv6 is routed as it is.
}

// Pull implements dataplane.Port: there is never anything.
func (g *Gateway) Pull(*dataplane.Batch) {}

// FD implements dataplane.Port. A gateway isn't attached to an engine.
func (g *Gateway) FD(int) int { return -1 }

// Counters implements dataplane.Port: tx is what containers sent to the
// gateway, rx what it sent to them, drops what it passed on to nobody.
func (g *Gateway) Counters() *dataplane.Counters { return g.counters }

// Close implements dataplane.Port. NAT.RemoveGateway ends a gateway.
func (g *Gateway) Close() error { return nil }

// Push takes frames from the network. Those to the gateway's MAC are the
// gateway's alone, as a switch delivers to one port what it knows, and are
// rewritten where they lie; all others stay as they are. Workers call it, each
// with its own batch.
//
// A frame takes the short cut of its flow, or the long way: parse, find, track,
// rewrite, next hop. A batch takes one lock, and one Push to each path.
func (g *Gateway) Push(b *dataplane.Batch) {
	t := g.nat.open(b, &g.link)
	if t == nil {
		return
	}
	t.prime(&g.link, nil)
	frames, size, lost := 0, 0, 0
	for s := b.Sel; s != 0; s &= s - 1 {
		i := dataplane.First(s)
		t.f = &b.Frames[i]
		frames, size = frames+1, size+t.f.Len
		if path := t.quick(&g.link); path != 0 {
			t.send(i, path)
			continue
		}
		path, d := t.fromInside(g)
		switch {
		case d != dataplane.None:
			t.drop(d, 1)
			lost++
			size -= t.f.Len
		case path != 0:
			t.send(i, path)
		}
	}
	g.counters.Tx(b.Worker, frames-lost, size)
	t.close(g.counters)
}

// fromInside handles the frame at hand, which came to the gateway. It returns
// the path it goes on, or 0 and why not; 0 and None if that is as it should be.
func (t *turn) fromInside(g *Gateway) (uint16, dataplane.Drop) {
	data := t.f.Bytes()
	if len(data) < wire.EthHdrLen {
		return 0, dataplane.Runt
	}
	if dst := wire.DstMAC(data); dst != g.mac {
		if !dst.IsMulticast() {
			return 0, dataplane.None // Flooded, for somebody else.
		}
		return 0, t.group(&g.link)
	}
	etherType := binary.BigEndian.Uint16(data[wire.EthTypeOff:])
	switch etherType {
	case wire.EtherTypeIPv4, wire.EtherTypeIPv6:
	case wire.EtherTypeARP:
		return 0, t.arp(&g.link)
	default:
		return 0, dataplane.NotRoutable
	}
	if d := t.p.parse(t.f, etherType); d != dataplane.None {
		return 0, d
	}
	if t.p.isFragment {
		return t.fragment(&g.link, g, nil)
	}
	return t.outboundPacket(g)
}

// outboundPacket handles the packet at hand from a container.
func (t *turn) outboundPacket(g *Gateway) (uint16, dataplane.Drop) {
	p, tb := &t.p, &t.nat.table
	if p.class < classes && (p.class != icmp || p.isRequest()) {
		dport := p.dport
		if p.class == icmp {
			dport = 0
		}
		h := tb.hashInside(g.path, p.class, p.src, p.sport, p.dst, dport)
		id := tb.findInside(h, g.path, p.class, p.src, p.sport, p.dst, dport)
		if id = tb.alive(id, t.now); id != 0 {
			return t.outboundConn(g, id)
		}
	}
	return t.outboundOther(g)
}

// outboundConn handles the packet at hand of a connection.
func (t *turn) outboundConn(g *Gateway, id uint32) (uint16, dataplane.Drop) {
	p, n := &t.p, t.nat
	t.missed++
	c := &n.table.conns[id]
	ext := &n.table.exts[c.ext]
	u := n.uplinks[ext.uplink]
	if p.ttl <= 1 {
		t.report(&g.link, g.source(p.src), &timeExceeded, 0)
		return 0, dataplane.TTLExpired
	}
	if p.end-p.l3 > u.mtu && !t.mayGo(&g.link, g.source(p.src), u.mtu) {
		return 0, dataplane.ExceedsMTU
	}
	if d := t.note(id, outward); d != dataplane.None {
		return 0, d
	}
	if p.class == tcp && p.data[p.l4+13]&wire.TCPSyn != 0 {
		p.clampMSS(min(u.mtu, g.mtu))
	}
	r := rewrite{addr: ext.addr, port: c.extPort, delta: c.delta, src: true, ttl: true}
	if !p.apply(&r) {
		return 0, dataplane.BadChecksum
	}
	t.done[0], t.dones = r, 1
	if own := u.extOf(p.dst); own != 0 {
		// Hairpin (RFC 4787 REQ-9): from here on the packet is one from outside.
		p.src, p.sport = ext.addr, c.extPort
		return t.inboundPacket(u, own, true)
	}
	path, d := t.toOutside(u, p.dst)
	if path != 0 {
		t.remember(&g.link, path, id, &r, u.mtu)
	}
	return path, d
}

// note enters the packet at hand into its connection's books.
func (t *turn) note(id uint32, dir int) dataplane.Drop {
	p, c := &t.p, &t.nat.table.conns[id]
	changed := false
	switch c.class {
	case tcp, sctp:
		var d dataplane.Drop
		if c.class == tcp {
			changed, d = c.track(p, dir, t.now)
		} else {
			changed, d = c.trackSCTP(p, dir)
		}
		if d != dataplane.None {
			return d
		}
	}
	if changed {
		t.nat.table.hosts.moved(c)
	}
	if dir == outward == (c.flags&fromOutside != 0) {
		c.flags |= isReplied
	}
	if changed || dir == outward && c.flags&isReset == 0 {
		c.last = t.now
	}
	if changed && c.ended() {
		t.nat.table.ends(id, t.now)
	}
	c.count(t.f.Len)
	return dataplane.None
}

// toOutside addresses the frame at hand to the next hop for dst.
func (t *turn) toOutside(u *Uplink, dst addr) (uint16, dataplane.Drop) {
	family := 1
	if dst.is4() {
		family = 0
	}
	if u.isNear(dst) {
		return t.deliver(&u.link, dst)
	}
	if id := u.neighbours.hop[family]; id != 0 {
		return t.deliverTo(&u.link, id)
	}
	if u.nextHop[family] == (addr{}) {
		return 0, dataplane.NoRoute
	}
	id := t.lookup(&u.link, u.nextHop[family])
	u.neighbours.hop[family] = id
	return t.deliverTo(&u.link, id)
}

// outboundOther handles the packet at hand from a container that belongs to no
// connection.
func (t *turn) outboundOther(g *Gateway) (uint16, dataplane.Drop) {
	p, n := &t.p, t.nat
	switch {
	case p.isND():
		return 0, t.nd(&g.link)
	case g.isOwn(p.dst):
		return 0, t.local(&g.link)
	case p.dst.isMulticast() || p.dst.isLocal() || p.src.isLocal() || p.src.isMulticast():
		return 0, dataplane.NotRoutable
	case g.isOwn(p.src) || !containedIn(g.subnets, p.src):
		return 0, dataplane.SpoofedSource
	case containedIn(g.subnets, p.dst):
		return t.sameNetwork(g)
	case n.gatewayOf(p.dst) != nil:
		return 0, dataplane.Isolated
	case p.isError:
		path, d := t.errorOut(g)
		switch {
		case d == dataplane.ICMPNoConn && t.isForStack(g):
			return t.toStack(g)
		case (d == dataplane.ICMPNoConn || d == dataplane.BadPacket) && p.v6 && g.masquerade.plain6 && n.uplinkOwning(p.dst) == nil:
			return t.routeOut(g, g.masquerade.uplink)
		}
		return path, d
	case t.isForStack(g):
		return t.toStack(g)
	}
	m := &g.masquerade
	u := n.uplinkOwning(p.dst)
	switch {
	case u == nil && m.uplink == nil:
		return 0, dataplane.Isolated
	case u == nil && m.plain6 && p.v6:
		return t.routeOut(g, m.uplink)
	case p.class == unported:
		return 0, dataplane.ProtoUnsupported
	case p.class == icmp && !p.isRequest():
		return 0, dataplane.NoConnection
	case u != nil && p.class == icmp && !u.quiet:
		return 0, t.local(&g.link)
	case u != nil && u.quiet && m.uplink != nil && (p.class == icmp || !u.owns(u.extOf(p.dst), p.class, p.dport)):
		return 0, dataplane.Unsolicited // The host's, whom this network doesn't reach.
	case u == nil:
		u = m.uplink
	}
	if p.ttl <= 1 {
		t.report(&g.link, g.source(p.src), &timeExceeded, 0)
		return 0, dataplane.TTLExpired
	}
	id, d := t.create(g, u)
	if d != dataplane.None {
		switch d {
		case dataplane.ConnTableFull, dataplane.HostLimit, dataplane.NoFreePort:
			n.table.refused++
			t.report(&g.link, g.source(p.src), &noResources, 0)
		}
		return 0, d
	}
	return t.outboundConn(g, id)
}

// sameNetwork sends the packet at hand back to where its destination is.
func (t *turn) sameNetwork(g *Gateway) (uint16, dataplane.Drop) {
	p := &t.p
	if g.isBroadcast(p.dst) {
		return 0, dataplane.NotRoutable
	}
	return t.forward(&g.link, &g.link, p.dst)
}

// routeOut sends the packet at hand out as it is.
func (t *turn) routeOut(g *Gateway, u *Uplink) (uint16, dataplane.Drop) {
	if d := t.hop(&g.link, g.source(t.p.src), u.mtu); d != dataplane.None {
		return 0, d
	}
	return t.toOutside(u, t.p.dst)
}

// forward sends the packet at hand from one link to a station on another.
func (t *turn) forward(from, to *link, a addr) (uint16, dataplane.Drop) {
	if d := t.hop(from, from.source(t.p.src), to.mtu); d != dataplane.None {
		return 0, d
	}
	return t.deliver(to, a)
}

// hop takes one from the packet's TTL and checks its length. The address as is
// what tells its sender on the link from.
func (t *turn) hop(from *link, as addr, mtu int) dataplane.Drop {
	p := &t.p
	if p.ttl <= 1 {
		t.report(from, as, &timeExceeded, 0)
		return dataplane.TTLExpired
	}
	if !t.mayGo(from, as, mtu) {
		return dataplane.ExceedsMTU
	}
	t.dones = 0
	if p.class == tcp && !p.later() && p.data[p.l4+13]&wire.TCPSyn != 0 {
		p.clampMSS(min(from.mtu, mtu))
	}
	if p.v6 {
		h, _ := wire.IPv6At(p.data, p.l3)
		h.SetHopLimit(p.ttl - 1)
		return dataplane.None
	}
	h, _ := wire.IPv4At(p.data, p.l3)
	h.SetTTL(p.ttl - 1)
	h.SetChecksum(ttlDelta.Update(h.Checksum()))
	return dataplane.None
}

// uplinkOwning returns the uplink whose address it is, or nil. Only a packet
// without a connection asks.
func (n *NAT) uplinkOwning(a addr) *Uplink {
	for _, u := range n.uplinkList {
		if u.extOf(a) != 0 {
			return u
		}
	}
	return nil
}
