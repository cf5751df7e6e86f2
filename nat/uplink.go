// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Uplink is the way out of the host: the sink of an interface's port.
// NAT.AddUplink makes it.
type Uplink struct {
	link
	nat      *NAT
	counters *dataplane.Counters
	config   UplinkConfig

	// exts are the addresses that containers can be given, by family, into
	// table.exts; index finds any of them by its address.
	exts  [2][]uint16
	index []extCell // A power of two, half full at most.
	seed  uint64

	ignored atomic.Uint64 // Frames that were somebody else's.
}

type extCell struct {
	addr addr
	ext  uint16 // 0 is free.
}

// extOf returns the external address that an address is, or 0.
func (u *Uplink) extOf(a addr) uint16 {
	if len(u.index) == 2 { // One address, the usual case.
		if u.index[0].addr == a {
			return u.index[0].ext
		}
		return 0
	}
	mask := uint64(len(u.index) - 1)
	for i := hash(u.seed, a, addr{}, 0) & mask; ; i = (i + 1) & mask {
		c := &u.index[i]
		if c.ext == 0 || c.addr == a {
			return c.ext
		}
	}
}

// pick returns the external address of a host: always the same one of those
// the uplink has (paired pooling, RFC 4787 REQ-2).
func (u *Uplink) pick(tb *table, h *host, in addr) uint16 {
	own, family := &h.ext4, 0
	if !in.is4() {
		own, family = &h.ext6, 1
	}
	if *own != 0 && tb.exts[*own].uplink == u.path && !tb.exts[*own].gone {
		return *own
	}
	pool := u.exts[family]
	if len(pool) == 0 {
		return 0
	}
	ext := pool[hash(u.seed, in, addr{}, uint64(h.net))%uint64(len(pool))]
	if *own == 0 || tb.exts[*own].gone {
		*own = ext
	}
	return ext
}

// publication returns the rule that publishes what the packet is for, or 0.
func (u *Uplink) publication(p *packet) uint16 {
	e := &u.nat.table.exts[u.extOf(p.dst)]
	if p.class >= classes || e.rules[p.class] == nil {
		return 0
	}
	return e.rules[p.class][p.dport]
}

// foreign returns d, or None where the frame is the host's affair.
func (u *Uplink) foreign(d dataplane.Drop) dataplane.Drop {
	if u.quiet {
		return dataplane.None
	}
	return d
}

// unasked is foreign for a packet to a port: what is the uplink's is counted.
func (u *Uplink) unasked(cl class, port uint16) dataplane.Drop {
	if u.quiet && (cl == icmp || port < u.config.Ports.First || port > u.config.Ports.Last) {
		return dataplane.None
	}
	return dataplane.Unsolicited
}

// Push takes frames from the interface's port, as its sink; they are rewritten
// where they lie. Workers call it, each with its own batch. It costs what
// Gateway.Push does.
func (u *Uplink) Push(b *dataplane.Batch) {
	t := u.nat.open(b, &u.link)
	if t == nil {
		return
	}
	t.prime(&u.link, u)
	ignored := 0
	for s := b.Sel; s != 0; s &= s - 1 {
		i := dataplane.First(s)
		t.f = &b.Frames[i]
		if path := t.quick(&u.link); path != 0 {
			t.send(i, path)
			continue
		}
		path, d := t.fromOutside(u)
		switch {
		case d != dataplane.None:
			t.drop(d, 1)
		case path != 0:
			t.send(i, path)
		default:
			ignored++
		}
	}
	if ignored > 0 {
		u.ignored.Add(uint64(ignored))
	}
	t.close(u.counters)
}

// fromOutside is fromInside for a frame that came to the uplink.
func (t *turn) fromOutside(u *Uplink) (uint16, dataplane.Drop) {
	data := t.f.Bytes()
	if len(data) < wire.EthHdrLen {
		return 0, u.foreign(dataplane.Runt)
	}
	if untag(t.f) {
		if path := t.quick(&u.link); path != 0 {
			return path, dataplane.None
		}
		data = t.f.Bytes()
	}
	if dst := wire.DstMAC(data); dst != u.mac {
		if !dst.IsMulticast() {
			return 0, dataplane.None
		}
		return 0, u.foreign(t.group(&u.link))
	}
	etherType := binary.BigEndian.Uint16(data[wire.EthTypeOff:])
	switch etherType {
	case wire.EtherTypeIPv4, wire.EtherTypeIPv6:
	case wire.EtherTypeARP:
		return 0, u.foreign(t.arp(&u.link))
	default:
		return 0, dataplane.None
	}
	p := &t.p
	if d := p.parse(t.f, etherType); d != dataplane.None {
		return 0, u.foreign(d)
	}
	ext := u.extOf(p.dst)
	if ext == 0 {
		return t.inboundOther(u)
	}
	if p.isFragment {
		return t.fragment(&u.link, nil, u)
	}
	return t.inboundPacket(u, ext, false)
}

// untag takes a priority tag off a frame: it is of this network, like one
// without (VID 0, IEEE 802.1Q 6.9), as the host's stack and the program on a
// shared interface have it.
func untag(f *dataplane.Frame) bool {
	const tag = 4
	b := f.Bytes()
	if len(b) < wire.EthHdrLen+tag || binary.BigEndian.Uint16(b[wire.EthTypeOff:]) != wire.EtherTypeVLAN ||
		binary.BigEndian.Uint16(b[wire.EthHdrLen:])&0xfff != 0 {
		return false
	}
	copy(b[tag:], b[:wire.EthTypeOff])
	f.Off, f.Len = f.Off+tag, f.Len-tag
	if f.Owes.Partial() {
		f.Owes.CsumStart -= tag
	}
	return true
}

// inboundOther handles the packet at hand, which is for none of the external
// addresses.
func (t *turn) inboundOther(u *Uplink) (uint16, dataplane.Drop) {
	p := &t.p
	if p.isND() {
		return 0, u.foreign(t.nd(&u.link))
	}
	if u.isOwn(p.dst) {
		return 0, u.foreign(t.local(&u.link))
	}
	if p.v6 && !p.dst.isMulticast() && !p.src.isLocal() && !p.dst.isLocal() {
		for _, g := range t.nat.gatewayList {
			if g.masquerade.plain6 && g.masquerade.uplink == u && containedIn(g.subnets, p.dst) && !g.isOwn(p.dst) {
				return t.forward(&u.link, &g.link, p.dst)
			}
		}
	}
	return 0, dataplane.None
}

// inboundPacket handles the packet at hand, which is for the external address
// ext. again tells that a container sent it (hairpin).
func (t *turn) inboundPacket(u *Uplink, ext uint16, again bool) (uint16, dataplane.Drop) {
	p, tb := &t.p, &t.nat.table
	sport := p.sport
	switch p.class {
	case unported:
		return 0, u.foreign(dataplane.ProtoUnsupported)
	case icmp:
		switch {
		case p.isError:
			return t.errorIn(u, ext, again)
		case p.isND():
			return 0, u.foreign(t.nd(&u.link))
		case p.isRequest():
			return 0, u.foreign(t.local(&u.link))
		case !wire.IsEcho(p.icmpType, p.v6):
			return 0, u.foreign(dataplane.Unsolicited)
		}
		sport = 0
	}
	h := tb.hashExternal(p.class, ext, p.dport, p.src, sport)
	id := tb.alive(tb.findExternal(h, p.class, ext, p.dport, p.src, sport), t.now)
	if id == 0 {
		if p.class == icmp {
			return 0, u.unasked(icmp, 0)
		}
		if !again && (p.src.isMulticast() || p.src.isLocal() || u.extOf(p.src) != 0 || t.nat.gatewayOf(p.src) != nil) {
			return 0, u.foreign(dataplane.SpoofedSource)
		}
		if !again && p.ttl <= 1 && (tb.exts[ext].isPublished(p.class, p.dport) || !u.quiet) {
			t.report(&u.link, p.dst, &timeExceeded, 0)
			return 0, dataplane.TTLExpired
		}
		var d dataplane.Drop
		if id, d = t.admit(u, ext); id == 0 {
			return 0, d
		}
	}
	return t.inboundConn(u, id, again)
}

// inboundConn handles the packet at hand of a connection.
func (t *turn) inboundConn(u *Uplink, id uint32, again bool) (uint16, dataplane.Drop) {
	p, n := &t.p, t.nat
	t.missed++
	c := &n.table.conns[id]
	g := n.gateways[n.table.hosts.list[c.host].net]
	if !again && p.ttl <= 1 {
		t.report(&u.link, p.dst, &timeExceeded, 0)
		return 0, dataplane.TTLExpired
	}
	if p.end-p.l3 > g.mtu {
		if again && p.l3Len(t.f) > g.mtu && !p.splits(t.f) {
			return 0, dataplane.ExceedsMTU // It isn't as its sender sent it any more.
		}
		if !t.mayGo(&u.link, p.dst, g.mtu) {
			return 0, dataplane.ExceedsMTU
		}
	}
	if d := t.note(id, inward); d != dataplane.None {
		return 0, d
	}
	if p.class == tcp && p.data[p.l4+13]&wire.TCPSyn != 0 {
		p.clampMSS(min(u.mtu, g.mtu))
	}
	r := rewrite{addr: c.in, port: c.inPort, delta: ^c.delta, ttl: !again}
	if !p.apply(&r) {
		return 0, dataplane.BadChecksum
	}
	if !again {
		t.dones = 0
	}
	t.done[t.dones&1] = r
	t.dones++
	path, d := t.deliver(&g.link, c.in)
	if path != 0 && !again {
		t.remember(&u.link, path, id, &r, g.mtu)
	}
	return path, d
}
