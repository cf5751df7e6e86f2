// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is the inverse of the one's complement sum
// of the 16-bit big-endian words. Three forms appear here:
//
//   - a partial sum, uint32: words added up, carries not yet folded. Sum,
//     PseudoSum4 and PseudoSum6 add to it; at most 65,000 of them fit one.
//   - a folded sum, uint16: Fold's result, uninverted.
//   - a checksum, uint16: the inverse of a folded sum, what stands in a header.
//
// Sum costs 1 ns for each 42 bytes by AVX2 where the processor has it, and for
// each 30 without: then carries run along a chain of add-with-carry over eight
// 8-byte words, which the compiler makes of bits.Add64; the chains of two rounds
// don't wait for each other, since none takes its carry from the one before. The
// words are loaded in the machine's (little-endian) order and the sum is turned
// round once at its end; RFC 1071 2(B) shows that this is the same.

// Sum adds the words of b to the partial sum acc. An odd last byte counts as
// the upper half of a word; so only the last piece of a sum over several may
// have an odd length.
func Sum(b []byte, acc uint32) uint32 {
	var s uint64
	if len(b) >= 64 {
		s = sumBlocks(b)
		b = b[len(b)&^63:]
	}
	return acc + sumTail(b, s)
}

// CopySum is Sum of src, which it copies to dst in the same pass; dst is at least
// as long. They may overlap if dst begins first.
func CopySum(dst, src []byte, acc uint32) uint32 {
	dst = dst[:len(src)]
	var s uint64
	if len(src) >= 64 {
		s = copySumBlocks(dst, src)
		whole := len(src) &^ 63
		dst, src = dst[whole:], src[whole:]
	}
	// What is copied first can't be what is summed: they may overlap.
	acc += sumTail(src, s)
	copy(dst, src)
	return acc
}

// sumTail adds the sum s of the blocks before and the words of b, less than a
// block, and returns the partial sum of them all in network order.
func sumTail(b []byte, s uint64) uint32 {
	s = s>>32 + s&0xffffffff
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		s += w>>32 + w&0xffffffff
		b = b[8:]
	}
	if len(b) >= 4 {
		s += uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0])
	}
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	return uint32(bits.ReverseBytes16(Fold(uint32(s))))
}

// sumBlocksGeneric returns the sum of b's whole blocks of 64 bytes. It stands
// alone to have the registers to itself.
func sumBlocksGeneric(b []byte) uint64 {
	var s, carries uint64
	for len(b) >= 64 {
		p := (*[64]byte)(b)
		x, c := bits.Add64(binary.LittleEndian.Uint64(p[0:]), binary.LittleEndian.Uint64(p[8:]), 0)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[16:]), c)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[24:]), c)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[32:]), c)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[40:]), c)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[48:]), c)
		x, c = bits.Add64(x, binary.LittleEndian.Uint64(p[56:]), c)
		x, _ = bits.Add64(x, 0, c) // No carry: a sum that had one is at most 2⁶⁴ - 2.
		s, c = bits.Add64(s, x, 0)
		carries += c
		b = b[64:]
	}
	return s>>32 + s&0xffffffff + carries
}

// copySumBlocksGeneric is sumBlocksGeneric of src, and copies them to dst: a
// block is read, stored and summed before the next, so that dst may begin in
// front of src. It doesn't call sumBlocksGeneric, for which a block would go by
// the stack: that costs 2.5 times as much.
func copySumBlocksGeneric(dst, src []byte) uint64 {
	var s, carries uint64
	for len(src) >= 64 && len(dst) >= 64 {
		p, q := (*[64]byte)(src), (*[64]byte)(dst)
		w0, w1 := binary.LittleEndian.Uint64(p[0:]), binary.LittleEndian.Uint64(p[8:])
		w2, w3 := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		w4, w5 := binary.LittleEndian.Uint64(p[32:]), binary.LittleEndian.Uint64(p[40:])
		w6, w7 := binary.LittleEndian.Uint64(p[48:]), binary.LittleEndian.Uint64(p[56:])
		binary.LittleEndian.PutUint64(q[0:], w0)
		binary.LittleEndian.PutUint64(q[8:], w1)
		binary.LittleEndian.PutUint64(q[16:], w2)
		binary.LittleEndian.PutUint64(q[24:], w3)
		binary.LittleEndian.PutUint64(q[32:], w4)
		binary.LittleEndian.PutUint64(q[40:], w5)
		binary.LittleEndian.PutUint64(q[48:], w6)
		binary.LittleEndian.PutUint64(q[56:], w7)
		x, c := bits.Add64(w0, w1, 0)
		x, c = bits.Add64(x, w2, c)
		x, c = bits.Add64(x, w3, c)
		x, c = bits.Add64(x, w4, c)
		x, c = bits.Add64(x, w5, c)
		x, c = bits.Add64(x, w6, c)
		x, c = bits.Add64(x, w7, c)
		x, _ = bits.Add64(x, 0, c)
		s, c = bits.Add64(s, x, 0)
		carries += c
		dst, src = dst[64:], src[64:]
	}
	return s>>32 + s&0xffffffff + carries
}

// Fold brings a partial sum down to 16 bits by adding the carries back in.
func Fold(acc uint32) uint16 {
	acc = acc>>16 + acc&0xffff
	acc += acc >> 16
	return uint16(acc)
}

// PseudoSum4 returns the partial sum of the IPv4 pseudo-header (RFC 793 3.1):
// length is that of the L4 header and payload in bytes.
func PseudoSum4(src, dst uint32, proto uint8, length int) uint32 {
	return src>>16 + src&0xffff + dst>>16 + dst&0xffff + uint32(proto) +
		uint32(length)>>16 + uint32(length)&0xffff
}

// PseudoSum6 returns the partial sum of the IPv6 pseudo-header (RFC 8200 8.1):
// length is that of the upper-layer header and payload in bytes, proto the
// upper layer's, not an extension header's.
func PseudoSum6(src, dst *[16]byte, proto uint8, length int) uint32 {
	return Sum(dst[:], Sum(src[:], uint32(proto))) +
		uint32(length)>>16 + uint32(length)&0xffff
}

// Delta is what a change of covered bytes adds to a folded sum: ~m + m' of
// RFC 1624 equation 3, folded. A connection computes it once and applies it
// to each packet.
type Delta uint16

// Delta16 returns the delta of a 16-bit field that changes from m to n.
func Delta16(m, n uint16) Delta { return Delta(Fold(uint32(^m) + uint32(n))) }

// Delta32 returns the delta of a 32-bit field, like an IPv4 address, at an
// even offset.
func Delta32(m, n uint32) Delta {
	m = ^m
	return Delta(Fold(m>>16 + m&0xffff + n>>16 + n&0xffff))
}

// Delta128 returns the delta of a 16-byte field, like an IPv6 address, at an
// even offset.
func Delta128(m, n *[16]byte) Delta {
	return Delta(Fold(uint32(^Fold(Sum(m[:], 0))) + Sum(n[:], 0)))
}

// Add returns the delta of both changes together.
func (d Delta) Add(e Delta) Delta { return Delta(Fold(uint32(d) + uint32(e))) }

// Update returns the checksum csum after the change (RFC 1624 equation 3).
// For UDP the caller leaves a 0 alone and passes the result through
// UDPChecksum.
func (d Delta) Update(csum uint16) uint16 { return ^Fold(uint32(^csum) + uint32(d)) }

// UpdatePartial returns the field of a partial checksum (VNetHdr.Partial)
// after a change of the pseudo-header: an address, never a port, since what
// the sum from CsumStart on will cover is not in the field.
func (d Delta) UpdatePartial(field uint16) uint16 { return Fold(uint32(field) + uint32(d)) }
