// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Size in bytes of an IPv6 header (RFC 8200 3), and the bounds of a walk along
// its extension headers.
const (
	IPv6HdrLen = 40
	// IPv6MaxExt is how many extension headers are stepped over; RFC 8200 4.1
	// recommends at most seven, one of them twice.
	IPv6MaxExt = 8
)

// Extension headers (RFC 8200 4, RFC 4302, RFC 7045) as next header values.
const (
	ipv6HopByHop    = 0
	ipv6Routing     = 43
	ipv6Fragment    = 44
	ipv6AH          = 51
	ipv6DestOptions = 60
	ipv6Mobility    = 135
	ipv6HIP         = 139
	ipv6Shim6       = 140
)

// IPv6Header is an IPv6 header without its extensions, a view of the frame's
// own bytes: the setters write to the frame.
type IPv6Header [IPv6HdrLen]byte

// IPv6At returns the IPv6 header at offset off of b; ok is false if the
// version is not 6 or the header is not all there. The payload length is not
// looked at.
func IPv6At(b []byte, off int) (h *IPv6Header, ok bool) {
	if !fits(b, off, IPv6HdrLen) {
		return nil, false
	}
	h = (*IPv6Header)(b[off:])
	return h, h[0]>>4 == 6
}

// TrafficClass returns the DSCP (6 bits) and ECN (2 bits) byte.
func (h *IPv6Header) TrafficClass() uint8 { return h[0]<<4 | h[1]>>4 }

// FlowLabel returns the flow label, 20 bits.
func (h *IPv6Header) FlowLabel() uint32 { return binary.BigEndian.Uint32(h[:]) & 0xfffff }

// PayloadLen returns the length in bytes of what follows, extension headers
// included, as the header claims it.
func (h *IPv6Header) PayloadLen() int { return int(binary.BigEndian.Uint16(h[4:])) }

// NextHeader returns the type of the first header that follows.
func (h *IPv6Header) NextHeader() uint8 { return h[6] }

// HopLimit returns the hop limit.
func (h *IPv6Header) HopLimit() uint8 { return h[7] }

// Src returns the source address, a view of the frame.
func (h *IPv6Header) Src() *[16]byte { return (*[16]byte)(h[8:24]) }

// Dst returns the destination address, a view of the frame.
func (h *IPv6Header) Dst() *[16]byte { return (*[16]byte)(h[24:40]) }

// SetPayloadLen writes the payload length in bytes.
func (h *IPv6Header) SetPayloadLen(v uint16) { binary.BigEndian.PutUint16(h[4:], v) }

// SetHopLimit writes the hop limit.
func (h *IPv6Header) SetHopLimit(v uint8) { h[7] = v }

// SetTrafficClass writes DSCP and ECN.
func (h *IPv6Header) SetTrafficClass(v uint8) {
	h[0] = h[0]&0xf0 | v>>4
	h[1] = h[1]&0x0f | v<<4
}

// IPv6Upper is where an IPv6 packet's extension headers end.
type IPv6Upper struct {
	// Proto is the first next header value that is no extension header: an
	// upper-layer protocol, ESP (50) or no next header (59).
	Proto uint8
	// Off is the offset where Proto's header begins, at most len(b). Valid
	// for all but a later fragment, where it is the fragment's payload.
	Off int
	// FragHdr is the offset of the fragment header, 0 if there is none.
	FragHdr int
	// FragOff is the offset in bytes of the fragment in the whole, MoreFrags
	// whether others follow. Valid only with FragHdr; both zero in an atomic
	// fragment (RFC 6946), which is whole.
	FragOff   int
	MoreFrags bool
}

// IsFragment tells whether the packet is a part of a larger one.
func (u *IPv6Upper) IsFragment() bool { return u.FragOff != 0 || u.MoreFrags }

// IPv6Walk walks the extension headers of the IPv6 packet at offset off of b.
// ok is false if the packet is no IPv6, has more than IPv6MaxExt extension
// headers, or one that is not all there. Behind the fragment header of a later
// fragment there is only payload, so the walk ends there.
func IPv6Walk(b []byte, off int) (u IPv6Upper, ok bool) {
	h, ok := IPv6At(b, off)
	if !ok {
		return u, false
	}
	u.Proto, u.Off = h.NextHeader(), off+IPv6HdrLen
	for range IPv6MaxExt + 1 {
		if !isExtension(u.Proto) {
			return u, true
		}
		if len(b)-u.Off < 8 {
			return u, false
		}
		ext := (*[8]byte)(b[u.Off:])
		n := 8 + int(ext[1])*8
		switch u.Proto {
		case ipv6AH:
			n = 8 + int(ext[1])*4 // RFC 4302 2.2: words of 4 bytes, less 2.
		case ipv6Fragment:
			n = 8 // The length byte is reserved.
			v := binary.BigEndian.Uint16(ext[2:])
			u.FragHdr, u.FragOff, u.MoreFrags = u.Off, int(v&^7), v&1 != 0
		}
		if len(b)-u.Off < n {
			return u, false
		}
		u.Proto = ext[0]
		u.Off += n
		if u.FragOff != 0 {
			return u, true
		}
	}
	return u, false
}

func isExtension(next uint8) bool {
	switch next {
	case ipv6HopByHop, ipv6Routing, ipv6Fragment, ipv6AH, ipv6DestOptions,
		ipv6Mobility, ipv6HIP, ipv6Shim6:
		return true
	}
	return false
}
