// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import (
	"encoding/binary"

	"heddle/dataplane/wire"
)

// Complete finishes a partial checksum in the frame and returns with *h owing
// nothing. It does what skb_checksum_help does in Linux: the sum from
// CsumStart to the frame's end, where the field already holds the pseudo
// header's; for UDP a computed 0 becomes 0xffff (RFC 768). A frame that owes
// nothing stays as it is.
//
// It returns false, and has changed nothing, for a GSO frame, which a
// Segmenter has to cut, and if the field is not inside the frame.
//
// It costs what wire.Sum does: 60 ns for a frame of 1,514 bytes.
func Complete(frame []byte, h *wire.VNetHdr) bool {
	if h.GSO() {
		return false
	}
	if !h.Partial() {
		return true
	}
	if !checksumFits(frame, h) {
		return false
	}
	start := int(h.CsumStart)
	csum := ^wire.Fold(wire.Sum(frame[start:], 0))
	if h.CsumOffset == wire.UDPCsumOff {
		csum = wire.UDPChecksum(csum)
	}
	binary.BigEndian.PutUint16(frame[start+int(h.CsumOffset):], csum)
	*h = wire.VNetHdr{Flags: h.Flags &^ wire.VNetNeedsCsum}
	return true
}
