// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"
	"hash/crc32"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// packet is the IP packet of a frame, as parse found it. src and dst are not
// kept up to date while it is translated.
type packet struct {
	data []byte // The frame.
	owes *wire.VNetHdr

	l3, l4, end  int // Offsets in data; end is that of the IP packet.
	src, dst     addr
	sport, dport uint16
	class        class
	proto        uint8
	ttl          uint8
	v6           bool
	icmpType     uint8
	isError      bool // An ICMP error message.

	isFragment bool
	more       bool // Other fragments follow.
	fragOff    int
	fragHdr    int // IPv6: offset of the fragment header.
	fragID     uint32
}

// later tells a fragment that is not its packet's first.
func (p *packet) later() bool { return p.fragOff != 0 }

const noFragment = wire.IPv4MoreFragments | wire.IPv4FragOffMask

// parse fills in p from a frame with this EtherType. It costs 6 ns for IPv4
// without options and TCP or UDP.
func (p *packet) parse(f *dataplane.Frame, etherType uint16) dataplane.Drop {
	p.data, p.owes = f.Bytes(), &f.Owes
	p.isError, p.isFragment, p.more, p.fragOff, p.fragHdr = false, false, false, 0, 0
	const l3, l4 = wire.EthHdrLen, wire.EthHdrLen + wire.IPv4MinHdrLen
	if etherType == wire.EtherTypeIPv4 && len(p.data) >= l4+wire.UDPHdrLen && p.data[l3] == 0x45 {
		h := (*[wire.IPv4MinHdrLen]byte)(p.data[l3:])
		if wire.Fold(sum20(h)) != 0xffff {
			return dataplane.BadChecksum
		}
		p.l3, p.l4, p.end = l3, l4, l3+int(binary.BigEndian.Uint16(h[2:]))
		if p.end > len(p.data) || p.end < l4 {
			return dataplane.BadPacket
		}
		p.v6 = false
		p.src, p.dst = v4(binary.BigEndian.Uint32(h[12:])), v4(binary.BigEndian.Uint32(h[16:]))
		p.ttl, p.proto = h[8], h[9]
		if ff := binary.BigEndian.Uint16(h[6:]); ff&noFragment != 0 {
			p.isFragment, p.more = true, ff&wire.IPv4MoreFragments != 0
			p.fragOff, p.fragID = int(ff&wire.IPv4FragOffMask)*8, uint32(binary.BigEndian.Uint16(h[4:]))
		}
	} else if d := p.parseSlow(etherType); d != dataplane.None {
		return d
	}
	return p.parseL4()
}

// sum20 adds up a header of 20 bytes in the machine's order, which gives
// 0xffff for a right one like any other order (RFC 1071 2(B)).
func sum20(h *[wire.IPv4MinHdrLen]byte) uint32 {
	a, b := binary.LittleEndian.Uint64(h[0:]), binary.LittleEndian.Uint64(h[8:])
	s := a>>32 + a&0xffffffff + b>>32 + b&0xffffffff + uint64(binary.LittleEndian.Uint32(h[16:]))
	s = s>>32 + s&0xffffffff
	s = s>>16&0xffff + s&0xffff + s>>32
	return uint32(s)
}

// parseSlow is parse down to L3 for everything but IPv4 without options.
func (p *packet) parseSlow(etherType uint16) dataplane.Drop {
	var l wire.Layers
	if !l.Parse(p.data) {
		return dataplane.BadPacket
	}
	p.l3, p.l4, p.end, p.v6, p.proto = l.L3, l.L4, l.End, l.V6, l.Proto
	p.isFragment, p.more, p.fragOff = l.IsFragment(), l.MoreFrags, l.FragOff
	if !p.v6 {
		if !wire.IPv4Verify(p.data, p.l3) {
			return dataplane.BadChecksum
		}
		h, _ := wire.IPv4At(p.data, p.l3)
		p.src, p.dst, p.ttl, p.fragID = v4(h.Src()), v4(h.Dst()), h.TTL(), uint32(h.ID())
		return dataplane.None
	}
	h, _ := wire.IPv6At(p.data, p.l3)
	p.src, p.dst, p.ttl = v6(h.Src()), v6(h.Dst()), h.HopLimit()
	if p.src.is4() || p.dst.is4() {
		return dataplane.BadPacket // Must not be on a wire (RFC 4291 2.5.5.2).
	}
	if p.isFragment {
		u, _ := wire.IPv6Walk(p.data, p.l3)
		p.fragHdr = u.FragHdr
		p.fragID = binary.BigEndian.Uint32(p.data[u.FragHdr+4:])
	}
	return dataplane.None
}

// parseL4 finds class and ports. A later fragment has its class only.
func (p *packet) parseL4() dataplane.Drop {
	b := p.data[p.l4:p.end]
	need := 0
	switch p.proto {
	case wire.ProtoTCP:
		p.class, need = tcp, wire.TCPMinHdrLen
	case wire.ProtoUDP:
		p.class, need = udp, wire.UDPHdrLen
	case wire.ProtoSCTP:
		p.class, need = sctp, sctpHdrLen+sctpChunkHdrLen
	case wire.ProtoICMP, wire.ProtoICMPv6:
		p.class, need = icmp, wire.ICMPHdrLen
		if (p.proto == wire.ProtoICMPv6) != p.v6 {
			return dataplane.BadPacket
		}
	default:
		p.class, p.sport, p.dport = unported, 0, 0
		return dataplane.None
	}
	if p.fragOff != 0 {
		p.sport, p.dport = 0, 0
		return dataplane.None
	}
	if len(b) < need {
		return dataplane.BadPacket
	}
	switch p.class {
	case icmp:
		return p.parseICMP(b)
	case tcp:
		if n := int(b[12]>>4) * 4; n < wire.TCPMinHdrLen || n > len(b) {
			return dataplane.BadPacket
		}
	case udp:
		// Never longer than the packet (RFC 768); a super-frame's may be 0.
		if n := int(binary.BigEndian.Uint16(b[4:])); !p.isFragment && !p.owes.GSO() && (n < wire.UDPHdrLen || n > len(b)) {
			return dataplane.BadPacket
		}
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if p.sport == 0 || p.dport == 0 {
		return dataplane.BadPacket // Port 0 is nobody's (RFC 6335 6).
	}
	return dataplane.None
}

func (p *packet) parseICMP(b []byte) dataplane.Drop {
	p.icmpType, p.sport, p.dport = b[0], 0, 0
	switch {
	case wire.IsEcho(p.icmpType, p.v6):
		p.sport = binary.BigEndian.Uint16(b[4:])
		p.dport = p.sport
	case wire.IsICMPError(p.icmpType, p.v6):
		p.isError = true
	}
	return dataplane.None
}

// isRequest tells an ICMP query that asks from one that answers.
func (p *packet) isRequest() bool {
	return p.icmpType == wire.ICMPEcho && !p.v6 || p.icmpType == wire.ICMPv6Echo && p.v6
}

// l3Len returns the length of the IP packet, or of its longest segment.
func (p *packet) l3Len(f *dataplane.Frame) int {
	if f.Owes.GSO() {
		return segmentLen(f) - p.l3
	}
	return p.end - p.l3
}

// rewrite is a change of one endpoint of a packet.
type rewrite struct {
	addr  addr
	port  uint16
	delta wire.Delta // Of the address.
	src   bool       // Which endpoint.
	ttl   bool       // Whether the TTL goes down by one.
}

// apply rewrites the packet and keeps every checksum as right or as wrong as
// it was. It returns false for an SCTP packet whose checksum is wrong, which
// would come out right, or can't be told, as in a fragment. It costs 5 ns for IPv4.
func (p *packet) apply(r *rewrite) bool {
	if p.v6 {
		h, _ := wire.IPv6At(p.data, p.l3)
		if r.src {
			r.addr.put6(h.Src())
		} else {
			r.addr.put6(h.Dst())
		}
		if r.ttl {
			h.SetHopLimit(h.HopLimit() - 1)
		}
	} else {
		h := (*wire.IPv4Header)(p.data[p.l3:])
		d := r.delta
		if r.src {
			h.SetSrc(r.addr.addr4())
		} else {
			h.SetDst(r.addr.addr4())
		}
		if r.ttl {
			h.SetTTL(h.TTL() - 1)
			d = d.Add(ttlDelta)
		}
		h.SetChecksum(d.Update(h.Checksum()))
	}
	if p.fragOff != 0 {
		return true
	}
	return p.applyL4(r)
}

// ttlDelta is what a TTL that goes down by one, the upper half of its word,
// adds to a sum.
const ttlDelta wire.Delta = 0xfeff

// applyL4 rewrites the port, or the identifier of an ICMP query, and the
// checksum.
func (p *packet) applyL4(r *rewrite) bool {
	b := p.data[p.l4:p.end]
	at, csum := 2, 0
	if r.src {
		at = 0
	}
	d := r.delta
	switch p.class {
	case tcp:
		csum = wire.TCPCsumOff
	case udp:
		csum = wire.UDPCsumOff
	case icmp:
		if p.isError {
			return true // Its own business: see icmp.go.
		}
		csum = wire.ICMPCsumOff
		at = 4
		if !p.v6 {
			d = 0 // No pseudo-header (RFC 792).
		}
	case sctp:
		return p.applySCTP(b, at, r.port)
	default:
		return true
	}
	if len(b) < at+2 {
		return true
	}
	old := binary.BigEndian.Uint16(b[at:])
	binary.BigEndian.PutUint16(b[at:], r.port)
	if len(b) < csum+2 {
		return true // Of a packet inside an ICMP error, only the start is there.
	}
	field := b[csum : csum+2]
	v := binary.BigEndian.Uint16(field)
	switch {
	case p.owes.Partial():
		v = d.UpdatePartial(v)
	case p.class == udp:
		if v == 0 {
			return true
		}
		v = wire.UDPChecksum(d.Add(wire.Delta16(old, r.port)).Update(v))
	default:
		v = d.Add(wire.Delta16(old, r.port)).Update(v)
	}
	binary.BigEndian.PutUint16(field, v)
	return true
}

// sctpTable is CRC32c's (RFC 9260 appendix A).
var sctpTable = crc32.MakeTable(crc32.Castagnoli)

// SCTP's common header (RFC 9260 3.1) and that of a chunk.
const (
	sctpHdrLen      = 12
	sctpChunkHdrLen = 4
	sctpCsumOff     = 8
)

// applySCTP rewrites a port. The checksum covers the whole packet, and no
// address.
func (p *packet) applySCTP(b []byte, at int, port uint16) bool {
	if len(b) < sctpHdrLen || binary.BigEndian.Uint16(b[at:]) == port {
		return true
	}
	if p.isFragment {
		return false
	}
	partial := p.owes.Partial()
	if !partial && sctpSum(b) != binary.LittleEndian.Uint32(b[sctpCsumOff:]) {
		return false
	}
	binary.BigEndian.PutUint16(b[at:], port)
	if !partial {
		binary.LittleEndian.PutUint32(b[sctpCsumOff:], sctpSum(b))
	}
	return true
}

// noSum is what stands for the checksum in its own sum.
var noSum = make([]byte, 4)

// sctpSum computes the checksum as if its field were 0.
func sctpSum(b []byte) uint32 {
	s := crc32.Update(0, sctpTable, b[:sctpCsumOff])
	s = crc32.Update(s, sctpTable, noSum)
	return crc32.Update(s, sctpTable, b[sctpHdrLen:])
}

// setMACs writes the Ethernet addresses.
func setMACs(frame []byte, dst, src wire.MAC) {
	h := (*[wire.EthHdrLen]byte)(frame)
	binary.BigEndian.PutUint64(h[:], uint64(dst)<<16|uint64(src)>>32)
	binary.BigEndian.PutUint32(h[8:], uint32(src))
}
