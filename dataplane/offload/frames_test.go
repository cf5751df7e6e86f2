package offload

import (
	"encoding/binary"
	"math/rand/v2"

	"heddle/dataplane/wire"
)

// super describes a super-frame to build.
type super struct {
	tags    int // 802.1Q tags, 0 to 2.
	v6      bool
	udp     bool
	ipOpts  int // IPv4: bytes of options, a multiple of 4.
	exts    int // IPv6: extension headers of 8 bytes.
	tcpOpts int // Bytes of TCP options, a multiple of 4.
	flags   uint8
	payload int
	size    int  // GSOSize; 0 builds a plain frame.
	partial bool // Leave the L4 checksum partial.
	noSum   bool // UDP: checksum 0.
	id      uint16
	seq     uint32
}

// build returns the frame and what it owes. Checksums are the model's.
func (s super) build(r *rand.Rand) ([]byte, wire.VNetHdr) {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	for i := range s.tags {
		proto := uint16(wire.EtherTypeVLAN)
		if s.tags == 2 && i == 0 {
			proto = wire.EtherTypeQinQ
		}
		b = binary.BigEndian.AppendUint16(b, proto)
		b = binary.BigEndian.AppendUint16(b, uint16(100+i))
	}
	proto, l4Len := byte(wire.ProtoTCP), 20+s.tcpOpts+s.payload
	if s.udp {
		proto, l4Len = wire.ProtoUDP, 8+s.payload
	}
	var l3 int
	if s.v6 {
		b = append(b, 0x86, 0xdd)
		l3 = len(b)
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(8*s.exts+l4Len))
		next := func(i int) byte {
			if i == s.exts {
				return proto
			}
			return 60 // Destination options.
		}
		b = append(b, next(0), 64)
		for host := range byte(2) {
			b = append(b, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host+1)
		}
		for i := range s.exts {
			b = append(b, next(i+1), 0, 1, 4, 0, 0, 0, 0) // PadN
		}
	} else {
		b = append(b, 0x08, 0x00)
		l3 = len(b)
		b = append(b, 0x45+byte(s.ipOpts/4), 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+s.ipOpts+l4Len))
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = append(b, 0x40, 0, 64, proto, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2)
		for range s.ipOpts {
			b = append(b, 1) // No operation.
		}
		binary.BigEndian.PutUint16(b[l3+10:], ^modelSum(b[l3:], 0))
	}
	l4 := len(b)
	b = append(b, 0x9c, 0x40, 0, 80)
	csumOff := wire.UDPCsumOff
	if s.udp {
		b = binary.BigEndian.AppendUint16(b, uint16(l4Len))
		b = append(b, 0, 0)
	} else {
		csumOff = wire.TCPCsumOff
		b = binary.BigEndian.AppendUint32(b, s.seq)
		b = append(b, 0, 0, 0, 9, 0x50+byte(s.tcpOpts*4), s.flags, 0xfa, 0xf0, 0, 0, 0, 0)
		for range s.tcpOpts {
			b = append(b, 1)
		}
	}
	for range s.payload {
		b = append(b, byte(r.Uint32()))
	}
	var h wire.VNetHdr
	if s.size > 0 {
		h.GSOSize, h.HdrLen = uint16(s.size), 9999 // A lie that nobody may believe.
		switch {
		case s.udp:
			h.GSOType = wire.VNetGSOUDPL4
		case s.v6:
			h.GSOType = wire.VNetGSOTCP6
		default:
			h.GSOType = wire.VNetGSOTCP4
		}
	}
	pseudo := modelPseudo(b, l3, s.v6, proto, l4Len)
	switch {
	case s.partial:
		h.Flags, h.CsumStart, h.CsumOffset = wire.VNetNeedsCsum, uint16(l4), uint16(csumOff)
		binary.BigEndian.PutUint16(b[l4+csumOff:], pseudo)
	case !s.noSum:
		csum := ^modelSum(b[l4:], pseudo)
		if s.udp && csum == 0 {
			csum = 0xffff
		}
		binary.BigEndian.PutUint16(b[l4+csumOff:], csum)
	}
	return b, h
}

// randomSuper is some super-frame that a kernel could make.
func randomSuper(r *rand.Rand) super {
	s := super{
		tags: r.IntN(3), v6: r.IntN(2) == 0, udp: r.IntN(3) == 0, ipOpts: r.IntN(3) * 4, exts: r.IntN(3),
		tcpOpts: r.IntN(4) * 4, flags: uint8(r.Uint32()), partial: r.IntN(2) == 0,
		size: 8 + r.IntN(1500), id: uint16(r.Uint32()), seq: r.Uint32(),
	}
	if r.IntN(4) == 0 {
		s.seq, s.id = 0xffffff00, 0xffff // Both wrap.
	}
	s.payload = 1 + r.IntN(min(60000, s.size*20))
	s.noSum = s.udp && !s.v6 && r.IntN(4) == 0
	return s
}

// modelSum is RFC 1071 as it is written, apart from wire's.
func modelSum(b []byte, acc uint16) uint16 {
	s := uint64(acc)
	for i, c := range b {
		s += uint64(c) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func modelPseudo(b []byte, l3 int, v6 bool, proto byte, length int) uint16 {
	var p []byte
	if v6 {
		p = append(p, b[l3+8:l3+40]...)
	} else {
		p = append(p, b[l3+12:l3+20]...)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(length))
	p = binary.BigEndian.AppendUint32(p, uint32(proto))
	return modelSum(p, 0)
}

// checksumsRight tells whether every checksum of a complete frame is right.
// A UDP checksum of 0 over IPv4 is right: there is none.
func checksumsRight(frame []byte) bool {
	var l wire.Layers
	if !l.Parse(frame) || l.End != len(frame) {
		return false
	}
	if !l.V6 && modelSum(frame[l.L3:l.L3+int(frame[l.L3]&0xf)*4], 0) != 0xffff {
		return false
	}
	if l.Proto == wire.ProtoUDP {
		u, ok := wire.UDPAt(frame, l.L4)
		if !ok || u.Len() != l.End-l.L4 {
			return false
		}
		if u.Checksum() == 0 {
			return !l.V6
		}
	}
	return modelSum(frame[l.L4:], modelPseudo(frame, l.L3, l.V6, l.Proto, l.End-l.L4)) == 0xffff
}

// otherHeaders changes the headers of an untagged frame with TCP options so that
// it can't be joined to another of its connection: bits of the byte at an offset.
var otherHeaders = []struct {
	name string
	v6   bool
	at   int
	bits byte
}{
	{"ECE in the second", false, 47, wire.TCPEce},
	{"FIN", false, 47, wire.TCPFin},
	{"SYN", false, 47, wire.TCPSyn},
	{"RST", false, 47, wire.TCPRst},
	{"URG", false, 47, wire.TCPUrg},
	{"no ACK", false, 47, wire.TCPAck},
	{"urgent pointer", false, 53, 1},
	{"acknowledgment", false, 45, 1},
	{"window", false, 49, 1},
	{"option", false, 54, 0xff},
	{"port", false, 35, 1},
	{"TOS", false, 15, 3},
	{"TTL", false, 22, 1},
	{"source", false, 29, 1},
	{"MAC", false, 11, 1},
	{"flow label", true, 17, 1},
	{"hop limit", true, 21, 1},
}
