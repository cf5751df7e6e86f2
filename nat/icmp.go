// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// inner is the start of a packet that an ICMP error carries.
type inner struct {
	l3, l4       int // Offsets in the frame.
	src, dst     addr
	sport, dport uint16
	class        class
}

// innerOf finds it in the packet at hand, an error.
func (p *packet) innerOf(in *inner) bool {
	in.l3 = p.l4 + wire.ICMPHdrLen
	b := p.data[:p.end]
	var proto uint8
	if p.v6 {
		h, ok := wire.IPv6At(b, in.l3)
		if !ok {
			return false
		}
		u, ok := wire.IPv6Walk(b, in.l3)
		if !ok || u.FragOff != 0 {
			return false
		}
		in.src, in.dst, in.l4, proto = v6(h.Src()), v6(h.Dst()), u.Off, u.Proto
	} else {
		h, ok := wire.IPv4At(b, in.l3)
		if !ok || h.FragOff() != 0 {
			return false
		}
		in.src, in.dst, in.l4, proto = v4(h.Src()), v4(h.Dst()), in.l3+h.HdrLen(), h.Proto()
	}
	if len(b)-in.l4 < 8 { // RFC 792: the header and 64 bits.
		return false
	}
	l4 := b[in.l4:]
	in.sport, in.dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	switch {
	case proto == wire.ProtoTCP:
		in.class = tcp
	case proto == wire.ProtoUDP:
		in.class = udp
	case proto == wire.ProtoSCTP:
		in.class = sctp
	case proto == wire.ProtoICMP && !p.v6, proto == wire.ProtoICMPv6 && p.v6:
		in.class = icmp
		if !wire.IsEcho(l4[0], p.v6) {
			return false
		}
		in.sport = binary.BigEndian.Uint16(l4[4:])
		in.dport = in.sport
	default:
		return false
	}
	return true
}

// errorOut translates an ICMP error that a container sends about a packet that
// it was given (RFC 5508 REQ-4, REQ-5).
func (t *turn) errorOut(g *Gateway) (uint16, dataplane.Drop) {
	p, n := &t.p, t.nat
	var in inner
	if p.isFragment || !p.innerOf(&in) {
		return 0, dataplane.BadPacket
	}
	if !t.icmpVerify() {
		return 0, dataplane.BadChecksum
	}
	if in.class == icmp {
		in.sport = 0
	}
	tb := &n.table
	h := tb.hashInside(g.path, in.class, in.dst, in.dport, in.src, in.sport)
	id := tb.findInside(h, g.path, in.class, in.dst, in.dport, in.src, in.sport)
	if id == 0 || tb.dead(&tb.conns[id], t.now) {
		return 0, dataplane.ICMPNoConn
	}
	c := &tb.conns[id]
	ext := &tb.exts[c.ext]
	u := n.uplinks[ext.uplink]
	if p.ttl <= 1 {
		return 0, dataplane.TTLExpired
	}
	// Whoever in the network says so, outside it is the external address.
	outer := rewrite{addr: ext.addr, delta: deltaOf(p.src, ext.addr), src: true, ttl: true}
	d := t.translateError(&in, &outer, ext.addr, c.extPort, false)
	if d != dataplane.None {
		return 0, d
	}
	p.src = ext.addr
	if own := u.extOf(p.dst); own != 0 {
		return t.inboundPacket(u, own, true)
	}
	return t.toOutside(u, p.dst)
}

// errorIn translates an ICMP error from outside about a packet of a
// connection. It neither refreshes nor ends it (RFC 5508 REQ-6).
func (t *turn) errorIn(u *Uplink, ext uint16, again bool) (uint16, dataplane.Drop) {
	p, n := &t.p, t.nat
	var in inner
	if p.isFragment || !p.innerOf(&in) {
		return 0, u.foreign(dataplane.BadPacket)
	}
	if !t.icmpVerify() {
		return 0, u.foreign(dataplane.BadChecksum)
	}
	if in.class == icmp {
		in.dport = 0
	}
	tb := &n.table
	id := uint32(0)
	if in.src == p.dst {
		h := tb.hashExternal(in.class, ext, in.sport, in.dst, in.dport)
		id = tb.findExternal(h, in.class, ext, in.sport, in.dst, in.dport)
	}
	if id == 0 || tb.dead(&tb.conns[id], t.now) {
		return 0, u.foreign(dataplane.ICMPNoConn)
	}
	c := &tb.conns[id]
	g := n.gateways[tb.hosts.list[c.host].net]
	if p.ttl <= 1 && !again {
		return 0, dataplane.TTLExpired
	}
	outer := rewrite{addr: c.in, delta: deltaOf(p.dst, c.in), ttl: !again}
	if d := t.translateError(&in, &outer, c.in, c.inPort, true); d != dataplane.None {
		return 0, d
	}
	return t.deliver(&g.link, c.in)
}

// translateError rewrites the packet at hand, an ICMP error: one outer address
// and, in the packet that it carries, the endpoint that is to become (a,
// port), the source if src. The inner checksums are kept as right as they were
// where they are in sight, and the message's is computed anew: it was right.
func (t *turn) translateError(in *inner, outer *rewrite, a addr, port uint16, src bool) dataplane.Drop {
	p := &t.p
	if p.owes.Partial() && !offload.Complete(p.data, p.owes) {
		return dataplane.BadPacket
	}
	was := in.dst
	if src {
		was = in.src
	}
	delta := deltaOf(was, a)
	q := packet{
		data: p.data, owes: &settled, v6: p.v6,
		l3: in.l3, l4: in.l4, end: p.end, class: in.class,
	}
	switch in.class {
	case sctp: // All of the packet would be needed; the ports are enough.
		at := in.l4
		if !src {
			at += 2
		}
		binary.BigEndian.PutUint16(p.data[at:], port)
		q.class = unported
	case icmp:
		q.icmpType = p.data[in.l4]
	}
	q.apply(&rewrite{addr: a, port: port, delta: delta, src: src})
	p.apply(outer)
	m := p.data[p.l4:p.end]
	if p.v6 {
		h, _ := wire.IPv6At(p.data, p.l3)
		binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:], 0)
		binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:],
			^wire.Fold(wire.Sum(m, wire.PseudoSum6(h.Src(), h.Dst(), wire.ProtoICMPv6, len(m)))))
	} else {
		binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:], 0)
		binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:], ^wire.Fold(wire.Sum(m, 0)))
	}
	return dataplane.None
}

// settled owes nothing: what stands for the offload header of an inner packet.
var settled wire.VNetHdr

// deltaOf is what changing an address adds to a sum.
func deltaOf(from, to addr) wire.Delta {
	var a, b [16]byte
	from.put6(&a)
	to.put6(&b)
	return wire.Delta128(&a, &b)
}
