package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"heddle/dataplane/wire"
)

// pkt is a packet in its parts. Zero fields take defaults: TTL 64.
type pkt struct {
	dstMAC, srcMAC wire.MAC
	src, dst       netip.Addr
	proto          uint8
	sport, dport   uint16 // ICMP echo: sport is the identifier.
	flags          uint8
	seq, ack       uint32
	win            uint16
	options        []byte
	icmpType, code uint8
	word           uint32 // ICMP errors: the second word.
	ttl            uint8
	payload        []byte

	df        bool
	id        uint16
	fragOff   int
	more      bool
	raw       []byte // L4 as it is, for fragments.
	partial   bool
	noCsum    bool // UDP without a checksum.
	gso       int
	sctp      []byte // Chunks; seq is the tag.
	etherType uint16
}

func (p pkt) String() string {
	return fmt.Sprintf("%v:%d>%v:%d proto %d ttl %d type %d flags %#x seq %d ack %d %d B",
		p.src, p.sport, p.dst, p.dport, p.proto, p.ttl, p.icmpType, p.flags, p.seq, p.ack, len(p.payload))
}

func (p *pkt) v6() bool { return p.src.Is6() }

func (p *pkt) pseudo(n int) uint32 {
	if p.v6() {
		s, d := p.src.As16(), p.dst.As16()
		return wire.PseudoSum6(&s, &d, p.proto, n)
	}
	return wire.PseudoSum4(addrOf(p.src).addr4(), addrOf(p.dst).addr4(), p.proto, n)
}

// l4 builds the L4 header and payload.
func (p *pkt) l4() ([]byte, int) {
	var b []byte
	csum := 0
	switch p.proto {
	case wire.ProtoTCP:
		b = make([]byte, 20+len(p.options))
		binary.BigEndian.PutUint32(b[4:], p.seq)
		binary.BigEndian.PutUint32(b[8:], p.ack)
		b[12], b[13] = byte(len(b)/4)<<4, p.flags
		binary.BigEndian.PutUint16(b[14:], p.win)
		copy(b[20:], p.options)
		csum = wire.TCPCsumOff
	case wire.ProtoUDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(p.payload)))
		csum = wire.UDPCsumOff
	case wire.ProtoSCTP:
		b = make([]byte, 12)
		binary.BigEndian.PutUint32(b[4:], p.seq)
		b = append(b, p.sctp...)
	case wire.ProtoICMP, wire.ProtoICMPv6:
		b = make([]byte, 8)
		b[0], b[1] = p.icmpType, p.code
		binary.BigEndian.PutUint32(b[4:], p.word)
		if wire.IsEcho(p.icmpType, p.v6()) {
			binary.BigEndian.PutUint16(b[4:], p.sport)
		}
		csum = wire.ICMPCsumOff
	default:
		return p.payload, 0
	}
	if p.proto != wire.ProtoICMP && p.proto != wire.ProtoICMPv6 {
		binary.BigEndian.PutUint16(b, p.sport)
		binary.BigEndian.PutUint16(b[2:], p.dport)
	}
	b = append(b, p.payload...)
	if p.proto == wire.ProtoSCTP {
		binary.LittleEndian.PutUint32(b[8:], sctpSum(b))
		return b, 0
	}
	acc := p.pseudo(len(b))
	if p.proto == wire.ProtoICMP {
		acc = 0
	}
	switch {
	case p.noCsum:
	case p.partial:
		binary.BigEndian.PutUint16(b[csum:], wire.Fold(acc))
	default:
		v := ^wire.Fold(wire.Sum(b, acc))
		if p.proto == wire.ProtoUDP {
			v = wire.UDPChecksum(v)
		}
		binary.BigEndian.PutUint16(b[csum:], v)
	}
	return b, csum
}

// frame builds the packet, with right checksums.
func (p pkt) frame() sent {
	if p.ttl == 0 {
		p.ttl = 64
	}
	l4, csum := p.l4()
	if p.raw != nil {
		l4 = p.raw
	}
	b := make([]byte, wire.EthHdrLen)
	p.dstMAC.Put(b)
	p.srcMAC.Put(b[6:])
	hdr := wire.IPv4MinHdrLen
	if p.v6() {
		hdr = wire.IPv6HdrLen
		binary.BigEndian.PutUint16(b[12:], wire.EtherTypeIPv6)
		h := make([]byte, 40)
		h[0] = 0x60
		h[6], h[7] = p.proto, p.ttl
		s, d := p.src.As16(), p.dst.As16()
		copy(h[8:], s[:])
		copy(h[24:], d[:])
		if p.more || p.fragOff > 0 {
			f := make([]byte, 8)
			f[0], h[6] = p.proto, 44
			v := uint16(p.fragOff)
			if p.more {
				v |= 1
			}
			binary.BigEndian.PutUint16(f[2:], v)
			binary.BigEndian.PutUint32(f[4:], uint32(p.id))
			h = append(h, f...)
			hdr += 8
		}
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+len(l4)))
		b = append(b, h...)
	} else {
		binary.BigEndian.PutUint16(b[12:], wire.EtherTypeIPv4)
		h := make([]byte, 20)
		h[0] = 0x45
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		binary.BigEndian.PutUint16(h[4:], p.id)
		v := uint16(p.fragOff / 8)
		if p.more {
			v |= wire.IPv4MoreFragments
		}
		if p.df {
			v |= wire.IPv4DontFragment
		}
		binary.BigEndian.PutUint16(h[6:], v)
		h[8], h[9] = p.ttl, p.proto
		s, d := p.src.As4(), p.dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h, 0)))
		b = append(b, h...)
	}
	s := sent{data: append(b, l4...)}
	if p.partial {
		s.owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(14 + hdr), CsumOffset: uint16(csum)}
	}
	if p.gso > 0 {
		s.owes.GSOType, s.owes.GSOSize = wire.VNetGSOTCP4, uint16(p.gso)
	}
	return s
}

func decodeAll(t testing.TB, frames []sent) (ps []pkt) {
	t.Helper()
	for _, f := range frames {
		ps = append(ps, decode(t, f))
	}
	return ps
}

// decode takes a frame apart and checks every checksum by computing it anew.
func decode(t testing.TB, s sent) (p pkt) {
	t.Helper()
	p.dstMAC, p.srcMAC = wire.DstMAC(s.data), wire.SrcMAC(s.data)
	var l wire.Layers
	p.etherType = binary.BigEndian.Uint16(s.data[12:])
	if !l.Parse(s.data) {
		p.payload = s.data[14:]
		return p
	}
	p.partial = s.owes.Partial()
	p.gso = int(s.owes.GSOSize)
	p.decodeIP(t, s.data, &l)
	return p
}

func (p *pkt) decodeIP(t testing.TB, data []byte, l *wire.Layers) {
	t.Helper()
	if l.V6 {
		h, _ := wire.IPv6At(data, l.L3)
		p.src, p.dst, p.ttl = netip.AddrFrom16(*h.Src()), netip.AddrFrom16(*h.Dst()), h.HopLimit()
	} else {
		if !wire.IPv4Verify(data, l.L3) {
			t.Errorf("wrong IPv4 header checksum: % x", data[l.L3:l.L4])
		}
		h, _ := wire.IPv4At(data, l.L3)
		p.src, p.dst, p.ttl = v4(h.Src()).netip(), v4(h.Dst()).netip(), h.TTL()
		p.id, p.df = h.ID(), h.FlagsFrag()&wire.IPv4DontFragment != 0
	}
	p.proto, p.fragOff, p.more = l.Proto, l.FragOff, l.MoreFrags
	b := data[l.L4:l.End]
	p.raw = b
	if l.FragOff != 0 {
		p.payload = b
		return
	}
	acc := p.pseudo(len(b))
	field := 0
	switch p.proto {
	case wire.ProtoTCP:
		p.seq, p.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		p.flags, p.win = b[13], binary.BigEndian.Uint16(b[14:])
		n := int(b[12]>>4) * 4
		p.options, p.payload = b[20:n], b[n:]
		field = wire.TCPCsumOff
	case wire.ProtoUDP:
		p.payload = b[8:]
		field = wire.UDPCsumOff
		p.noCsum = b[6] == 0 && b[7] == 0
	case wire.ProtoICMP, wire.ProtoICMPv6:
		p.icmpType, p.code, p.word = b[0], b[1], binary.BigEndian.Uint32(b[4:])
		p.payload, field = b[8:], wire.ICMPCsumOff
		if wire.IsEcho(p.icmpType, l.V6) {
			p.sport = binary.BigEndian.Uint16(b[4:])
		}
		if p.proto == wire.ProtoICMP {
			acc = 0
		}
	case wire.ProtoSCTP:
		p.seq, p.payload = binary.BigEndian.Uint32(b[4:]), b[12:]
		if binary.LittleEndian.Uint32(b[8:]) != sctpSum(b) {
			t.Errorf("wrong SCTP checksum")
		}
	}
	if p.proto != wire.ProtoICMP && p.proto != wire.ProtoICMPv6 {
		p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	if l.MoreFrags || p.proto == wire.ProtoSCTP || p.noCsum {
		return
	}
	switch {
	case p.partial:
		if got := binary.BigEndian.Uint16(b[field:]); got%0xffff != wire.Fold(acc)%0xffff {
			t.Errorf("partial checksum %#x, want %#x: %v", got, wire.Fold(acc), p)
		}
	case wire.Fold(wire.Sum(b, acc)) != 0xffff:
		t.Errorf("wrong checksum: %v", p)
	}
}

// embedded takes apart the packet that an ICMP error carries.
func (p *pkt) embedded(t testing.TB) (in pkt) {
	t.Helper()
	etherType := uint16(wire.EtherTypeIPv4)
	if p.v6() {
		etherType = wire.EtherTypeIPv6
	}
	b := make([]byte, 14, 14+len(p.payload))
	binary.BigEndian.PutUint16(b[12:], etherType)
	b = append(b, p.payload...)
	var l wire.Layers
	if !l.Parse(b) {
		t.Fatalf("what the error carries is no packet: % x", p.payload)
	}
	in.decodeIP(t, b, &l)
	return in
}

func udpPkt(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) pkt {
	return pkt{src: src, dst: dst, sport: sport, dport: dport, proto: wire.ProtoUDP, payload: []byte("hello")}
}

func tcpPkt(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, flags uint8, seq, ack uint32) pkt {
	return pkt{
		src: src, dst: dst, sport: sport, dport: dport, proto: wire.ProtoTCP,
		flags: flags, seq: seq, ack: ack, win: 65000,
	}
}

func ping(src, dst netip.Addr, id uint16, typ uint8) pkt {
	p := pkt{src: src, dst: dst, sport: id, proto: wire.ProtoICMP, icmpType: typ, payload: []byte("abcdefgh")}
	if src.Is6() {
		p.proto = wire.ProtoICMPv6
	}
	return p
}
