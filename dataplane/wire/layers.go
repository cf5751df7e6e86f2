// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

// Layers says where the layers of an IP packet begin in a frame. Parse fills
// it in where it stands: a struct of this size is slow to return.
type Layers struct {
	// L3 and L4 are offsets from the frame's first byte. L4 is that of Proto's
	// header, or of a later fragment's payload.
	L3, L4 int
	// End is where the packet ends by its IP header's length, at most the
	// frame's length: short frames are padded behind it.
	End int
	// FragOff is the offset in bytes of a fragment's payload in the whole
	// packet, MoreFrags whether others follow.
	FragOff   int
	MoreFrags bool
	// V6 tells IPv6 from IPv4.
	V6 bool
	// Proto is the upper-layer protocol: behind all extension headers.
	Proto uint8
}

// IsFragment tells whether the packet is a part of a larger one.
func (l *Layers) IsFragment() bool { return l.FragOff != 0 || l.MoreFrags }

// Parse finds the layers of a frame. It returns false, and l is not valid, if
// the frame is no IPv4 or IPv6, if its headers up to L4 are malformed or not
// all there, or if the length that the IP header claims is more than the frame
// has or less than those headers. Whether an L4 header follows is for TCPAt and
// its kin to say.
func (l *Layers) Parse(frame []byte) bool {
	if !l.ParseGSO(frame) {
		return false
	}
	end := l.L3
	if l.V6 {
		if h, ok := IPv6At(frame, l.L3); ok {
			end += IPv6HdrLen + h.PayloadLen()
		}
	} else if h, ok := IPv4At(frame, l.L3); ok {
		end += h.TotalLen()
	}
	l.End = end
	return l.L4 <= end && end <= len(frame)
}

// ParseGSO is Parse for a frame that is still to be segmented: the length in
// its IP header is not looked at, and End is the frame's.
func (l *Layers) ParseGSO(frame []byte) bool {
	etherType, off, ok := L3(frame)
	if !ok {
		return false
	}
	l.L3, l.End = off, len(frame)
	l.FragOff, l.MoreFrags = 0, false
	switch etherType {
	case EtherTypeIPv4:
		h, ok := IPv4At(frame, off)
		if !ok {
			return false
		}
		l.L4, l.V6, l.Proto = off+h.HdrLen(), false, h.Proto()
		if h.IsFragment() {
			l.FragOff, l.MoreFrags = h.FragOff(), h.FlagsFrag()&IPv4MoreFragments != 0
		}
		return true
	case EtherTypeIPv6:
		h, ok := IPv6At(frame, off)
		if !ok {
			return false
		}
		l.L4, l.V6, l.Proto = off+IPv6HdrLen, true, h.NextHeader()
		if !isExtension(l.Proto) {
			return true
		}
		u, ok := IPv6Walk(frame, off)
		l.L4, l.Proto, l.FragOff, l.MoreFrags = u.Off, u.Proto, u.FragOff, u.MoreFrags
		return ok
	}
	return false
}

// PseudoSum returns the partial sum of the pseudo-header of the packet that
// Parse found in this frame, for an L4 header and payload of length bytes. A
// frame that it didn't find them in gives 0. Behind a routing header the
// destination that senders sum is the last hop's, which this isn't.
func (l *Layers) PseudoSum(frame []byte, length int) uint32 {
	if l.V6 {
		if h, ok := IPv6At(frame, l.L3); ok {
			return PseudoSum6(h.Src(), h.Dst(), l.Proto, length)
		}
		return 0
	}
	if h, ok := IPv4At(frame, l.L3); ok {
		return PseudoSum4(h.Src(), h.Dst(), l.Proto, length)
	}
	return 0
}
