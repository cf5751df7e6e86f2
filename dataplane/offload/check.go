// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import "heddle/dataplane/wire"

// What one super-frame may become, so that a few hostile ones don't keep a
// worker busy. Linux makes no GSO frame beyond either.
const (
	minTCPSegment  = 8   // Payload bytes: TCP_MIN_GSO_SIZE (linux net/tcp.h).
	maxUDPSegments = 128 // UDP_MAX_SEGMENTS (linux/udp.h).
	maxIPLen       = 65535
)

// Check tells whether an untrusted header fits its frame: the partial
// checksum's field lies inside, the GSO type is known and the frame's own
// protocols, and its headers are all there and in front of some segment size.
// UFO is refused. Afterwards Complete and Segmenter.Begin can't fail but for
// their own conditions.
//
// It is inlined: nothing for a header that owes nothing, 3 ns for a partial
// checksum, 15 ns for a GSO frame.
func Check(frame []byte, h *wire.VNetHdr) bool {
	return h.Flags&wire.VNetNeedsCsum|h.GSOType == 0 || check(frame, h)
}

func check(frame []byte, h *wire.VNetHdr) bool {
	if h.Partial() && !checksumFits(frame, h) {
		return false
	}
	if !h.GSO() {
		return true
	}
	_, ok := locate(frame, h)
	return ok
}

// checksumFits tells whether the checksum field is behind the Ethernet header
// and inside the frame.
func checksumFits(frame []byte, h *wire.VNetHdr) bool {
	start := int(h.CsumStart)
	return start >= wire.EthHdrLen && start+int(h.CsumOffset)+2 <= len(frame)
}

// gsoLayout is where the headers of a GSO frame are and how it is to be cut.
type gsoLayout struct {
	l3, l4 int
	hdr    int // Length of L2 to L4: where the payload begins.
	size   int // Payload bytes a segment.
	v6     bool
	udp    bool
}

// locate parses a GSO frame. ok is false if frame and header contradict each
// other or a segment would be longer than IP can say.
func locate(frame []byte, h *wire.VNetHdr) (g gsoLayout, ok bool) {
	var l wire.Layers
	if !l.ParseGSO(frame) || l.IsFragment() {
		return g, false
	}
	g = gsoLayout{l3: l.L3, l4: l.L4, size: int(h.GSOSize), v6: l.V6}
	csumOff := wire.TCPCsumOff
	switch h.GSOType {
	case wire.VNetGSOTCP4, wire.VNetGSOTCP4 | wire.VNetGSOECN:
		ok = !l.V6 && l.Proto == wire.ProtoTCP
	case wire.VNetGSOTCP6, wire.VNetGSOTCP6 | wire.VNetGSOECN:
		ok = l.V6 && l.Proto == wire.ProtoTCP
	case wire.VNetGSOUDPL4:
		ok = l.Proto == wire.ProtoUDP
		g.udp, csumOff = true, wire.UDPCsumOff
	default:
		ok = false
	}
	if !ok || h.Partial() && (int(h.CsumStart) != l.L4 || int(h.CsumOffset) != csumOff) {
		return g, false
	}
	if g.udp {
		g.hdr = l.L4 + wire.UDPHdrLen
		ok = g.size > 0 && len(frame)-g.hdr <= g.size*maxUDPSegments
	} else {
		t, tcpOK := wire.TCPAt(frame, l.L4)
		if !tcpOK {
			return g, false
		}
		g.hdr = l.L4 + t.HdrLen()
		ok = g.size >= minTCPSegment
	}
	payload := len(frame) - g.hdr
	return g, ok && payload >= 0 && g.hdr-g.l3+min(g.size, payload) <= maxIPLen
}

// HeaderLen returns the length in bytes of L2 to L4 of a GSO frame that passed
// Check, from where the L4 header begins and what it says of its own length,
// not from h.HdrLen. It is 0 for a frame that is no GSO frame or not one that
// Check passes.
func HeaderLen(frame []byte, h *wire.VNetHdr) int {
	if !h.GSO() {
		return 0
	}
	if !h.Partial() {
		g, ok := locate(frame, h)
		if !ok {
			return 0
		}
		return g.hdr
	}
	l4 := int(h.CsumStart)
	if h.GSOType == wire.VNetGSOUDPL4 {
		if _, ok := wire.UDPAt(frame, l4); !ok {
			return 0
		}
		return l4 + wire.UDPHdrLen
	}
	t, ok := wire.TCPAt(frame, l4)
	if !ok {
		return 0
	}
	return l4 + t.HdrLen()
}

// SegmentLen returns the length in bytes of the longest frame that this one
// becomes on a wire, L2 header included: header and GSOSize for a GSO frame
// that passed Check, otherwise that of the frame. It is what an egress MTU
// limits.
func SegmentLen(frame []byte, h *wire.VNetHdr) int {
	hdr := HeaderLen(frame, h)
	if hdr == 0 {
		return len(frame)
	}
	return min(len(frame), hdr+int(h.GSOSize))
}
