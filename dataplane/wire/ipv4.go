// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// IP protocol numbers that Heddle looks at (IANA protocol numbers).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// Sizes in bytes of an IPv4 header (RFC 791 3.1) and the bits of its flags and
// fragment offset field.
const (
	IPv4MinHdrLen = 20
	IPv4MaxHdrLen = 60

	IPv4DontFragment  = 0x4000
	IPv4MoreFragments = 0x2000
	IPv4FragOffMask   = 0x1fff // In units of 8 bytes.
)

// IPv4Header is the fixed part of an IPv4 header, a view of the frame's own
// bytes: the setters write to the frame. Options follow it up to HdrLen.
type IPv4Header [IPv4MinHdrLen]byte

// IPv4At returns the IPv4 header at offset off of b; ok is false if the
// version is not 4, or the header with its options is malformed or not all
// there. Total length and checksum are not looked at: see TotalLen, Verify.
func IPv4At(b []byte, off int) (h *IPv4Header, ok bool) {
	if !fits(b, off, IPv4MinHdrLen) {
		return nil, false
	}
	h = (*IPv4Header)(b[off:])
	n := h.HdrLen()
	return h, h[0]>>4 == 4 && n >= IPv4MinHdrLen && n <= len(b)-off
}

// HdrLen returns the length of the header with its options: 20 to 60 bytes
// if IPv4At said ok.
func (h *IPv4Header) HdrLen() int { return int(h[0]&0xf) * 4 }

// TOS returns the DSCP (6 bits) and ECN (2 bits) byte.
func (h *IPv4Header) TOS() uint8 { return h[1] }

// TotalLen returns the length in bytes of header and payload as the header
// claims it; the frame may be longer (padding) or shorter (a lie).
func (h *IPv4Header) TotalLen() int { return int(binary.BigEndian.Uint16(h[2:])) }

// ID returns the identification.
func (h *IPv4Header) ID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// FlagsFrag returns flags and fragment offset: IPv4DontFragment,
// IPv4MoreFragments, IPv4FragOffMask.
func (h *IPv4Header) FlagsFrag() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// IsFragment tells whether the packet is a part of a larger one.
func (h *IPv4Header) IsFragment() bool {
	return h.FlagsFrag()&(IPv4MoreFragments|IPv4FragOffMask) != 0
}

// FragOff returns the offset in bytes of a fragment's payload in the whole.
func (h *IPv4Header) FragOff() int { return int(h.FlagsFrag()&IPv4FragOffMask) * 8 }

// TTL returns the time to live.
func (h *IPv4Header) TTL() uint8 { return h[8] }

// Proto returns the protocol of the payload.
func (h *IPv4Header) Proto() uint8 { return h[9] }

// Checksum returns the header checksum field.
func (h *IPv4Header) Checksum() uint16 { return binary.BigEndian.Uint16(h[10:]) }

// Src returns the source address.
func (h *IPv4Header) Src() uint32 { return binary.BigEndian.Uint32(h[12:]) }

// Dst returns the destination address.
func (h *IPv4Header) Dst() uint32 { return binary.BigEndian.Uint32(h[16:]) }

// SetTOS writes DSCP and ECN. No setter touches the checksum.
func (h *IPv4Header) SetTOS(v uint8) { h[1] = v }

// SetTotalLen writes the total length in bytes.
func (h *IPv4Header) SetTotalLen(v uint16) { binary.BigEndian.PutUint16(h[2:], v) }

// SetID writes the identification.
func (h *IPv4Header) SetID(v uint16) { binary.BigEndian.PutUint16(h[4:], v) }

// SetTTL writes the time to live.
func (h *IPv4Header) SetTTL(v uint8) { h[8] = v }

// SetChecksum writes the header checksum field.
func (h *IPv4Header) SetChecksum(v uint16) { binary.BigEndian.PutUint16(h[10:], v) }

// SetSrc writes the source address.
func (h *IPv4Header) SetSrc(v uint32) { binary.BigEndian.PutUint32(h[12:], v) }

// SetDst writes the destination address.
func (h *IPv4Header) SetDst(v uint32) { binary.BigEndian.PutUint32(h[16:], v) }

// IPv4Checksum computes the checksum field of the header at offset off of b,
// options included, as if the field were 0. ok is false where IPv4At's is.
func IPv4Checksum(b []byte, off int) (csum uint16, ok bool) {
	h, ok := IPv4At(b, off)
	if !ok {
		return 0, false
	}
	return ^Fold(Sum(b[off:off+h.HdrLen()], 0) + uint32(^h.Checksum())), true
}

// IPv4Verify tells whether the header at offset off of b is well formed and
// its checksum right.
func IPv4Verify(b []byte, off int) bool {
	h, ok := IPv4At(b, off)
	return ok && Fold(Sum(b[off:off+h.HdrLen()], 0)) == 0xffff
}
