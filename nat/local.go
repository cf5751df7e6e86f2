// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

const (
	localTTL = 64  // Of what Heddle sends itself.
	ndTTL    = 255 // RFC 4861 4: what was forwarded has less.
	ndLen    = wire.ICMPHdrLen + 16 + 8
	arpFrame = wire.EthHdrLen + wire.ARPLen
	ndFrame  = wire.EthHdrLen + wire.IPv6HdrLen + ndLen
	// Options of ND: the sender's and the target's MAC (RFC 4861 4.6.1).
	ndSourceMAC, ndTargetMAC = 1, 2
)

// compose begins a frame of n bytes from the link's MAC; nil if there is no
// room.
func (t *turn) compose(l *link, dst wire.MAC, etherType uint16, n int) []byte {
	f := t.spare()
	if f == nil {
		return nil
	}
	f.Len = n
	b := f.Bytes()
	setMACs(b, dst, l.mac)
	binary.BigEndian.PutUint16(b[wire.EthTypeOff:], etherType)
	return b
}

// arp handles the ARP packet at hand (RFC 826).
func (t *turn) arp(l *link) dataplane.Drop {
	p, ok := wire.ARPAt(t.f.Bytes(), wire.EthHdrLen)
	if !ok || p.SenderMAC() != wire.SrcMAC(t.f.Bytes()) && p.Op() == wire.ARPReply {
		return dataplane.BadPacket
	}
	target, sender := v4(p.TargetIP()), v4(p.SenderIP())
	ours := l.isOwn(target)
	t.heard(l, sender, p.SenderMAC(), ours && !l.quiet)
	if p.Op() == wire.ARPRequest && ours && !l.quiet {
		t.sendARP(l, wire.ARPReply, p.SenderMAC(), p.TargetIP(), p.SenderMAC(), p.SenderIP())
	}
	return dataplane.None
}

func (t *turn) sendARP(l *link, op uint16, dst wire.MAC, sender uint32, targetMAC wire.MAC, target uint32) {
	b := t.compose(l, dst, wire.EtherTypeARP, arpFrame)
	if b == nil {
		return
	}
	a := (*wire.ARPPacket)(b[wire.EthHdrLen:])
	a.Init(op)
	a.SetSender(l.mac, sender)
	a.SetTarget(targetMAC, target)
	t.route(l.path)
}

// ask sends a request for the MAC of an address: to the MAC it had, or to all.
func (t *turn) ask(l *link, a addr, to wire.MAC) {
	from := l.source(a)
	if from == (addr{}) {
		return
	}
	if a.is4() {
		dst := to
		if dst == 0 {
			dst = wire.Broadcast
		}
		t.sendARP(l, wire.ARPRequest, dst, from.addr4(), 0, a.addr4())
		return
	}
	dst, group := to, a
	if to == 0 {
		dst, group = solicited(a)
	}
	t.sendND(l, wire.ICMPv6NeighSolicit, dst, from, group, a, 0)
}

// solicited returns the group that a's owner listens to (RFC 4291 2.7.1) and
// its MAC (RFC 2464 7).
func solicited(a addr) (wire.MAC, addr) {
	low := a.lo & 0xffffff
	return wire.MAC(0x3333ff000000 | low), addr{hi: 0xff02 << 48, lo: 0x1ff000000 | low}
}

// Flags of a neighbour advertisement (RFC 4861 4.4).
const naRouter, naSolicited, naOverride = 0x80, 0x40, 0x20

func (t *turn) sendND(l *link, typ uint8, dstMAC wire.MAC, src, dst, target addr, flags uint8) {
	b := t.compose(l, dstMAC, wire.EtherTypeIPv6, ndFrame)
	if b == nil {
		return
	}
	m := putIPv6(b, src, dst, wire.ProtoICMPv6, ndTTL, ndLen)
	clear(m)
	m[0], m[4] = typ, flags
	target.put6((*[16]byte)(m[8:]))
	m[24], m[25] = ndTargetMAC, 1
	if typ == wire.ICMPv6NeighSolicit {
		m[24] = ndSourceMAC
	}
	l.mac.Put(m[26:])
	sumICMPv6(b, m)
	t.route(l.path)
}

// putIPv6 writes an IPv6 header and returns its payload of n bytes.
func putIPv6(b []byte, src, dst addr, proto, ttl uint8, n int) []byte {
	h := b[wire.EthHdrLen:]
	binary.BigEndian.PutUint32(h, 6<<28)
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	h[6], h[7] = proto, ttl
	src.put6((*[16]byte)(h[8:]))
	dst.put6((*[16]byte)(h[24:]))
	return h[wire.IPv6HdrLen : wire.IPv6HdrLen+n]
}

// putIPv4 writes an IPv4 header and returns its payload of n bytes.
func putIPv4(b []byte, src, dst addr, proto, ttl uint8, n int) []byte {
	h := b[wire.EthHdrLen:]
	clear(h[:wire.IPv4MinHdrLen])
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(wire.IPv4MinHdrLen+n))
	h[8], h[9] = ttl, proto
	binary.BigEndian.PutUint32(h[12:], src.addr4())
	binary.BigEndian.PutUint32(h[16:], dst.addr4())
	binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:wire.IPv4MinHdrLen], 0)))
	return h[wire.IPv4MinHdrLen : wire.IPv4MinHdrLen+n]
}

// sumICMPv6 writes the checksum of the message m of the frame b.
func sumICMPv6(b, m []byte) {
	binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:], 0)
	h := (*wire.IPv6Header)(b[wire.EthHdrLen:])
	binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:],
		^wire.Fold(wire.Sum(m, wire.PseudoSum6(h.Src(), h.Dst(), wire.ProtoICMPv6, len(m)))))
}

// icmpVerify tells whether the checksum of the ICMP message at hand is right;
// one that is still partial is the sender's own.
func (t *turn) icmpVerify() bool {
	p := &t.p
	if p.owes.Partial() {
		return true
	}
	m := p.data[p.l4:p.end]
	acc := uint32(0)
	if p.v6 {
		h, _ := wire.IPv6At(p.data, p.l3)
		acc = wire.PseudoSum6(h.Src(), h.Dst(), wire.ProtoICMPv6, len(m))
	}
	return wire.Fold(wire.Sum(m, acc)) == 0xffff
}

// isND tells a neighbour solicitation or advertisement.
func (p *packet) isND() bool {
	return p.v6 && p.class == icmp && !p.isFragment &&
		(p.icmpType == wire.ICMPv6NeighSolicit || p.icmpType == wire.ICMPv6NeighAdvert)
}

// nd handles the neighbour solicitation or advertisement at hand (RFC 4861 7).
func (t *turn) nd(l *link) dataplane.Drop {
	p := &t.p
	m := p.data[p.l4:p.end]
	if p.ttl != ndTTL || len(m) < ndLen-8 || m[1] != 0 {
		return dataplane.BadPacket
	}
	if !t.icmpVerify() {
		return dataplane.BadChecksum
	}
	target := v6((*[16]byte)(m[8:]))
	mac := wire.SrcMAC(p.data)
	for o := m[24:]; len(o) >= 8; {
		n := int(o[1]) * 8
		if n == 0 || n > len(o) {
			return dataplane.BadPacket
		}
		if o[0] == ndSourceMAC && p.icmpType == wire.ICMPv6NeighSolicit ||
			o[0] == ndTargetMAC && p.icmpType == wire.ICMPv6NeighAdvert {
			mac = wire.MACAt(o[2:])
		}
		o = o[n:]
	}
	if p.icmpType == wire.ICMPv6NeighAdvert {
		t.heard(l, target, mac, false)
		return dataplane.None
	}
	if !l.isOwn(target) || l.quiet {
		return dataplane.None
	}
	if p.src == (addr{}) {
		// Somebody wants to have our address (RFC 4862 5.4.3): all are told.
		t.sendND(l, wire.ICMPv6NeighAdvert, allNodesMAC, target, allNodes, target, naRouter|naOverride)
		return dataplane.None
	}
	t.heard(l, p.src, mac, true)
	t.sendND(l, wire.ICMPv6NeighAdvert, mac, target, p.src, target, naRouter|naSolicited|naOverride)
	return dataplane.None
}

// allNodes is ff02::1.
var allNodes = addr{hi: 0xff02 << 48, lo: 1}

const allNodesMAC wire.MAC = 0x333300000001

// group handles the frame at hand, which is for a group: ARP and ND.
func (t *turn) group(l *link) dataplane.Drop {
	data := t.f.Bytes()
	switch binary.BigEndian.Uint16(data[wire.EthTypeOff:]) {
	case wire.EtherTypeARP:
		return t.arp(l)
	case wire.EtherTypeIPv6:
		// Only ND is looked at; the rest of the network's multicast isn't ours.
		if len(data) < wire.EthHdrLen+wire.IPv6HdrLen+1 || data[wire.EthHdrLen+6] != wire.ProtoICMPv6 ||
			t.p.parse(t.f, wire.EtherTypeIPv6) != dataplane.None || !t.p.isND() {
			return dataplane.None
		}
		return t.nd(l)
	}
	return dataplane.None
}

// local handles the packet at hand, which is for an address of the link
// itself: it answers an echo request (RFC 1122 3.2.2.6), nothing else. Of one
// that comes in fragments each is answered by itself, which needs no room for
// the whole: the checksum of the whole, which the first has, changes by the
// type alone, as the pseudo-header's sum is the same both ways.
func (t *turn) local(l *link) dataplane.Drop {
	p := &t.p
	if p.isND() {
		return t.nd(l)
	}
	if p.class != icmp || !p.isRequest() || l.quiet || t.f.Owes.GSO() || p.isFragment && t.f.Owes.Partial() {
		return dataplane.Unsolicited
	}
	if !p.isFragment && !t.icmpVerify() {
		return dataplane.BadChecksum
	}
	typ := uint8(wire.ICMPEchoReply)
	if p.v6 {
		typ = wire.ICMPv6EchoReply
	}
	b, d := t.turnRound(l)
	if b == nil {
		return d
	}
	m, _ := wire.ICMPAt(b, p.l4)
	m.SetTypeCode(typ, m.Code())
	m.SetChecksum(wire.Delta16(uint16(p.icmpType)<<8, uint16(typ)<<8).Update(m.Checksum()))
	t.turned = p.isFragment
	return dataplane.None
}

// turnRound sends a copy of the packet at hand back to where it came from, and
// returns its bytes to be changed before it goes; nil if it can't.
func (t *turn) turnRound(l *link) ([]byte, dataplane.Drop) {
	p := &t.p
	f := t.spare()
	if f == nil {
		return nil, dataplane.None
	}
	if f.Len = p.end; f.Len > slotSize {
		return nil, dataplane.Unsolicited
	}
	b := f.Bytes()
	copy(b, p.data[:p.end])
	owes := t.f.Owes
	if !offload.Complete(b, &owes) {
		return nil, dataplane.BadPacket
	}
	setMACs(b, wire.SrcMAC(p.data), l.mac)
	if p.v6 {
		h, _ := wire.IPv6At(b, p.l3)
		p.src.put6(h.Dst())
		p.dst.put6(h.Src())
		h.SetHopLimit(localTTL)
	} else {
		h := (*wire.IPv4Header)(b[p.l3:])
		h.SetSrc(p.dst.addr4())
		h.SetDst(p.src.addr4())
		h.SetTTL(localTTL)
		csum, _ := wire.IPv4Checksum(b, p.l3)
		h.SetChecksum(csum)
	}
	t.route(l.path)
	return b, dataplane.None
}

// proclaim tells everybody on the link where its addresses are: gratuitous ARP
// (RFC 5227 3) and unsolicited advertisements (RFC 4861 7.2.6).
func (t *turn) proclaim(l *link) {
	for _, a := range l.own {
		if t.out.Full() {
			return // The next time goes on; stations ask besides.
		}
		if a.is4() {
			t.sendARP(l, wire.ARPRequest, wire.Broadcast, a.addr4(), 0, a.addr4())
		} else {
			t.sendND(l, wire.ICMPv6NeighAdvert, allNodesMAC, a, allNodes, a, naRouter|naOverride)
		}
	}
}
