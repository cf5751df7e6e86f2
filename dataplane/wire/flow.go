// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Flow names the packets that travel from one L4 endpoint to another on one
// network: a 5-tuple and a VNI. It is 40 bytes without pointers or padding:
// comparable, a map key, a table key.
//
// An ICMP echo has its identifier as both ports, so that Reverse of a request
// is the Flow of its reply. A protocol without ports, and a fragment, have 0.
type Flow struct {
	// The addresses as two big-endian words each; IPv4's are IPv4-mapped
	// (::ffff:a.b.c.d, RFC 4291 2.5.5.2).
	SrcHi, SrcLo     uint64
	DstHi, DstLo     uint64
	SrcPort, DstPort uint16
	vniProto         uint32 // VNI in the upper 24 bits, protocol in the lower 8.
}

// mapped is the lower half of an IPv4-mapped address without the IPv4 part.
const mapped = 0xffff << 32

// is4 tells whether an address is IPv4-mapped.
func is4(hi, lo uint64) bool { return hi == 0 && lo>>32 == 0xffff }

// Proto returns the IP protocol.
func (f *Flow) Proto() uint8 { return uint8(f.vniProto) }

// VNI returns the network identifier, 24 bits; ParseFlow leaves it 0.
func (f *Flow) VNI() uint32 { return f.vniProto >> 8 }

// SetVNI puts the flow on the network vni, of which 24 bits count.
func (f *Flow) SetVNI(vni uint32) { f.vniProto = vni<<8 | f.vniProto&0xff }

// SetProto writes the IP protocol.
func (f *Flow) SetProto(proto uint8) { f.vniProto = f.vniProto&^0xff | uint32(proto) }

// Is4 tells whether the addresses are IPv4's.
func (f *Flow) Is4() bool { return is4(f.SrcHi, f.SrcLo) }

// Src4 returns the IPv4 source address; valid only if Is4.
func (f *Flow) Src4() uint32 { return uint32(f.SrcLo) }

// Dst4 returns the IPv4 destination address; valid only if Is4.
func (f *Flow) Dst4() uint32 { return uint32(f.DstLo) }

// SrcAddr returns the source address for people, IPv4's unmapped.
func (f *Flow) SrcAddr() netip.Addr { return flowAddr(f.SrcHi, f.SrcLo) }

// DstAddr returns the destination address for people, IPv4's unmapped.
func (f *Flow) DstAddr() netip.Addr { return flowAddr(f.DstHi, f.DstLo) }

// Reverse returns the flow of the packets that answer this one's.
func (f *Flow) Reverse() Flow {
	return Flow{
		SrcHi: f.DstHi, SrcLo: f.DstLo, DstHi: f.SrcHi, DstLo: f.SrcLo,
		SrcPort: f.DstPort, DstPort: f.SrcPort, vniProto: f.vniProto,
	}
}

// Hash returns 64 well-mixed bits of the flow; seed chooses the function. A
// table that strangers fill takes a random seed, so that they can't choose
// flows that collide; what two hosts or runs must agree on takes a fixed one.
// A flow and its Reverse hash differently. It costs about 6 ns: three
// folded multiplications (the construction of wyhash, Wang Yi 2019).
func (f *Flow) Hash(seed uint64) uint64 {
	ports := uint64(f.SrcPort)<<48 | uint64(f.DstPort)<<32 | uint64(f.vniProto)
	// The seed is in both factors: one that a stranger could make 0 would
	// take the other out of the hash.
	turned := bits.RotateLeft64(seed, 32)
	a := mix(f.SrcHi^seed^secret0, f.SrcLo^turned^secret1)
	b := mix(f.DstHi^seed^secret2, f.DstLo^turned^secret3)
	return mix(a^ports^seed^secret1, b^bits.RotateLeft64(ports, 32)^turned^secret0)
}

// The secrets are odd numbers with about half of their bits set: the first
// digits of the fractional parts of the square roots of 2, 3, 5 and 7.
const (
	secret0 = 0x6a09e667f3bcc909
	secret1 = 0xbb67ae8584caa73b
	secret2 = 0x3c6ef372fe94f82b
	secret3 = 0xa54ff53a5f1d36f1
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// ParseFlow writes the flow of a frame's packet to f, with VNI 0. ok is false,
// and f is not valid, if the frame is no well-formed IP packet, its TCP, UDP,
// SCTP or ICMP header is not all there, it is an ICMP message other than echo,
// which belongs to no flow of its own, or an IPv6 packet with an IPv4-mapped
// address, which must not be on a wire and would pass for an IPv4 flow.
// fragment tells that the packet is a part of a larger one: only its first has
// ports, so no fragment's flow has any.
//
// It costs about 25 ns.
func ParseFlow(frame []byte, f *Flow) (fragment, ok bool) {
	var l Layers
	if !l.Parse(frame) {
		return false, false
	}
	return l.IsFragment(), l.Flow(frame, f)
}

// Flow writes the flow of the packet that Parse found in this frame to f; see
// ParseFlow.
func (l *Layers) Flow(frame []byte, f *Flow) (ok bool) {
	if l.V6 {
		h, ok := IPv6At(frame, l.L3)
		if !ok {
			return false
		}
		f.SrcHi, f.SrcLo = binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[16:])
		f.DstHi, f.DstLo = binary.BigEndian.Uint64(h[24:]), binary.BigEndian.Uint64(h[32:])
		if is4(f.SrcHi, f.SrcLo) || is4(f.DstHi, f.DstLo) {
			return false
		}
	} else {
		h, ok := IPv4At(frame, l.L3)
		if !ok {
			return false
		}
		f.SrcHi, f.SrcLo = 0, mapped|uint64(h.Src())
		f.DstHi, f.DstLo = 0, mapped|uint64(h.Dst())
	}
	f.vniProto = uint32(l.Proto)
	f.SrcPort, f.DstPort = 0, 0
	if l.IsFragment() {
		return true
	}
	f.SrcPort, f.DstPort, ok = l.ports(frame)
	return ok
}

// sctpHdrLen is the size in bytes of SCTP's common header (RFC 9260 3.1),
// which begins with the ports as TCP's and UDP's do.
const sctpHdrLen = 12

// ports returns the ports of a packet that is no fragment.
func (l *Layers) ports(frame []byte) (src, dst uint16, ok bool) {
	if l.L4 < 0 || l.L4 > l.End || l.End > len(frame) {
		return 0, 0, false
	}
	b := frame[l.L4:l.End]
	need := 0
	switch l.Proto {
	case ProtoTCP:
		need = TCPMinHdrLen
	case ProtoUDP:
		need = UDPHdrLen
	case ProtoSCTP:
		need = sctpHdrLen
	case ProtoICMP, ProtoICMPv6:
		h, ok := ICMPAt(b, 0)
		if !ok || (l.Proto == ProtoICMPv6) != l.V6 || !IsEcho(h.Type(), l.V6) {
			return 0, 0, false
		}
		return h.EchoID(), h.EchoID(), true
	default:
		return 0, 0, true
	}
	if len(b) < need {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), true
}

func flowAddr(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b).Unmap()
}
