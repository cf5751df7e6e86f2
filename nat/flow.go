// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// flow is a worker's short cut for one direction of a connection of TCP or UDP
// over IPv4: what the long way has found for a packet, to be done again to the
// next. It holds for as long as
//
//   - nothing about links and neighbours has changed (NAT.generation);
//   - it is before until, a second at most: a next hop that is to be asked
//     after meets the long way;
//   - the connection is the same, and alive.
//
// Packets that could change more than a timestamp and a TCP window, SYN, FIN,
// RST, fragments, options of IP, those about to expire or longer than the MTU, a
// super-frame by its segments, take the long way.
type flow struct {
	addrs uint64 // Source and destination of the packet as it comes.
	ports uint32
	conn  uint32 // 0: unused.
	link  uint16 // The path that it comes in by.
	path  uint16 // The one that it goes out by.
	rule  uint16 // The connection's, with ext and class: see isOf.
	ext   uint16
	class class
	proto uint8
	dir   uint8

	generation uint32
	until      uint32 // Tick.
	mtu        int32

	// What becomes of it.
	macs    [12]byte
	addr    uint32
	port    uint16
	ip      wire.Delta // The IP header's sum: the address and the TTL.
	l4      wire.Delta // The L4 sum: the address and the port.
	partial wire.Delta // A partial checksum: the address.
}

// maxFlows is how many short cuts a worker has: 72 KB of the second-level
// cache. Two that fall on one place take turns.
const maxFlows = 1024

// flowHash is a product with an odd number, which keeps apart what counts up,
// as ports do. Strangers can aim at it: all they get is the long way.
func flowHash(addrs uint64, ports uint32, link uint16) uint64 {
	return (addrs ^ uint64(ports)<<21 ^ uint64(link)<<7) * secret0 >> 54
}

const (
	quickL3  = wire.EthHdrLen
	quickL4  = quickL3 + wire.IPv4MinHdrLen
	quickLen = quickL4 + wire.UDPHdrLen // The shortest frame.
)

// quick translates the frame at hand by its short cut and returns its path; 0
// if the long way has to be gone, and then nothing has changed.
func (t *turn) quick(l *link) uint16 {
	b := t.f.Bytes()
	if len(b) < quickLen {
		return 0
	}
	h := (*[quickLen]byte)(b)
	// EtherType, version and header length; flags and fragment offset; TTL.
	if binary.BigEndian.Uint32(h[12:])>>8 != wire.EtherTypeIPv4<<8|0x45 ||
		binary.BigEndian.Uint16(h[20:])&noFragment != 0 || h[22] <= 1 {
		return 0
	}
	addrs, ports := binary.BigEndian.Uint64(h[26:]), binary.BigEndian.Uint32(h[34:])
	f := &t.flows[flowHash(addrs, ports, l.path)%maxFlows]
	if f.addrs != addrs || f.ports != ports || f.link != l.path || f.conn == 0 || f.proto != h[23] ||
		f.generation != t.nat.generation || t.now > f.until {
		return 0
	}
	total := int(binary.BigEndian.Uint16(h[16:]))
	if quickL3+total > len(b) || wire.Fold(sum20((*[20]byte)(h[quickL3:]))) != 0xffff ||
		total > int(f.mtu) && offload.SegmentLen(b, &t.f.Owes)-quickL3 > int(f.mtu) {
		return 0
	}
	if binary.BigEndian.Uint64(b)>>16 != uint64(l.mac) {
		return 0
	}
	c := &t.nat.table.conns[f.conn]
	if !f.isOf(c) || t.nat.table.dead(c, t.now) {
		f.conn = 0
		return 0
	}
	field := quickL4 + wire.UDPCsumOff
	changed := false
	if f.proto == wire.ProtoTCP {
		const special = wire.TCPSyn | wire.TCPFin | wire.TCPRst
		if total < wire.IPv4MinHdrLen+wire.TCPMinHdrLen || b[quickL4+13]&special != 0 ||
			int(b[quickL4+12]>>4)*4+wire.IPv4MinHdrLen > total || b[quickL4+12]>>4 < 5 {
			return 0
		}
		p := &t.p
		p.data, p.l4, p.end = b, quickL4, quickL3+total
		var d dataplane.Drop
		if changed, d = c.track(p, int(f.dir), t.now); d != dataplane.None {
			return 0 // The long way says so again, and counts it.
		}
		field = quickL4 + wire.TCPCsumOff
	} else if n := int(binary.BigEndian.Uint16(h[38:])); n < wire.UDPHdrLen || n > total-wire.IPv4MinHdrLen {
		return 0
	}
	if changed {
		t.nat.table.hosts.moved(c)
	}
	if f.dir == outward == (c.flags&fromOutside != 0) {
		c.flags |= isReplied
	}
	if changed || f.dir == outward && c.flags&isReset == 0 {
		c.last = t.now
	}
	if changed && c.ended() {
		t.nat.table.ends(f.conn, t.now)
	}
	c.count(len(b))
	f.write(h, b[field:field+2], t.f.Owes.Partial())
	return f.path
}

// isOf tells whether the connection is the one that the short cut was made of,
// or one that does the same: another may have got its record since. The rule
// tells the network, too.
func (f *flow) isOf(c *conn) bool {
	if c.rule != f.rule || c.ext != f.ext || c.class != f.class {
		return false
	}
	out := c.out.addr4()
	if f.dir == outward {
		return f.addrs == uint64(c.in.addr4())<<32|uint64(out) && f.ports == uint32(c.inPort)<<16|uint32(c.outPort) &&
			f.port == c.extPort && c.flags&isLive != 0
	}
	return uint32(f.addrs>>32) == out && f.ports == uint32(c.outPort)<<16|uint32(c.extPort) &&
		f.addr == c.in.addr4() && f.port == c.inPort && c.flags&isLive != 0
}

// write does to the headers what the long way did: packet.apply and setMACs.
func (f *flow) write(h *[quickLen]byte, sum []byte, partial bool) {
	*(*[12]byte)(h[:]) = f.macs
	h[22]--
	ip := h[24:26]
	binary.BigEndian.PutUint16(ip, f.ip.Update(binary.BigEndian.Uint16(ip)))
	if f.dir == outward {
		binary.BigEndian.PutUint32(h[26:], f.addr)
		binary.BigEndian.PutUint16(h[34:], f.port)
	} else {
		binary.BigEndian.PutUint32(h[30:], f.addr)
		binary.BigEndian.PutUint16(h[36:], f.port)
	}
	v := binary.BigEndian.Uint16(sum)
	switch {
	case partial:
		v = f.partial.UpdatePartial(v)
	case f.proto == wire.ProtoUDP:
		if v == 0 {
			return
		}
		v = wire.UDPChecksum(f.l4.Update(v))
	default:
		v = f.l4.Update(v)
	}
	binary.BigEndian.PutUint16(sum, v)
}

// remember makes a short cut of what the long way did to the frame at hand,
// which came in by l and goes out by path: r, for the connection id.
func (t *turn) remember(l *link, path uint16, id uint32, r *rewrite, mtu int) {
	p := &t.p
	if p.v6 || p.isFragment || p.proto != wire.ProtoTCP && p.proto != wire.ProtoUDP || p.l4 != quickL4 {
		return
	}
	addrs := uint64(p.src.addr4())<<32 | uint64(p.dst.addr4())
	ports := uint32(p.sport)<<16 | uint32(p.dport)
	f := &t.flows[flowHash(addrs, ports, l.path)%maxFlows]
	old, dir := p.dport, inward
	if r.src {
		old, dir = p.sport, outward
	}
	c := &t.nat.table.conns[id]
	*f = flow{
		addrs: addrs, ports: ports, conn: id, link: l.path, path: path,
		rule: c.rule, ext: c.ext, class: p.class, proto: p.proto, dir: uint8(dir),
		generation: t.nat.generation, until: min(t.now+askEvery, t.last.fresh), mtu: int32(mtu),
		macs: *(*[12]byte)(p.data), addr: r.addr.addr4(), port: r.port,
		ip: r.delta.Add(ttlDelta), l4: r.delta.Add(wire.Delta16(old, r.port)), partial: r.delta,
	}
}
