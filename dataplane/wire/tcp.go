// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Sizes in bytes of a TCP header (RFC 9293 3.1) and the offset of its checksum
// from its start, which is VNetHdr.CsumOffset.
const (
	TCPMinHdrLen = 20
	TCPMaxHdrLen = 60
	TCPCsumOff   = 16
)

// TCP flags.
const (
	TCPFin = 1 << 0
	TCPSyn = 1 << 1
	TCPRst = 1 << 2
	TCPPsh = 1 << 3
	TCPAck = 1 << 4
	TCPUrg = 1 << 5
	TCPEce = 1 << 6
	TCPCwr = 1 << 7
)

// TCPHeader is the fixed part of a TCP header, a view of the frame's own
// bytes: the setters write to the frame. Options follow it up to HdrLen.
type TCPHeader [TCPMinHdrLen]byte

// TCPAt returns the TCP header at offset off of b; ok is false if the header
// with its options is malformed or not all there.
func TCPAt(b []byte, off int) (h *TCPHeader, ok bool) {
	if !fits(b, off, TCPMinHdrLen) {
		return nil, false
	}
	h = (*TCPHeader)(b[off:])
	n := h.HdrLen()
	return h, n >= TCPMinHdrLen && n <= len(b)-off
}

// SrcPort returns the source port.
func (h *TCPHeader) SrcPort() uint16 { return binary.BigEndian.Uint16(h[0:]) }

// DstPort returns the destination port.
func (h *TCPHeader) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Seq returns the sequence number of the first payload byte.
func (h *TCPHeader) Seq() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// Ack returns the acknowledgment number; valid only with TCPAck.
func (h *TCPHeader) Ack() uint32 { return binary.BigEndian.Uint32(h[8:]) }

// HdrLen returns the length of the header with its options: 20 to 60 bytes
// if TCPAt said ok.
func (h *TCPHeader) HdrLen() int { return int(h[12]>>4) * 4 }

// Flags returns the flags, TCPFin to TCPCwr.
func (h *TCPHeader) Flags() uint8 { return h[13] }

// Window returns the window field, unscaled.
func (h *TCPHeader) Window() uint16 { return binary.BigEndian.Uint16(h[14:]) }

// Checksum returns the checksum field.
func (h *TCPHeader) Checksum() uint16 { return binary.BigEndian.Uint16(h[16:]) }

// SetSrcPort writes the source port. No setter touches the checksum.
func (h *TCPHeader) SetSrcPort(v uint16) { binary.BigEndian.PutUint16(h[0:], v) }

// SetDstPort writes the destination port.
func (h *TCPHeader) SetDstPort(v uint16) { binary.BigEndian.PutUint16(h[2:], v) }

// SetSeq writes the sequence number.
func (h *TCPHeader) SetSeq(v uint32) { binary.BigEndian.PutUint32(h[4:], v) }

// SetFlags writes the flags.
func (h *TCPHeader) SetFlags(v uint8) { h[13] = v }

// SetChecksum writes the checksum field.
func (h *TCPHeader) SetChecksum(v uint16) { binary.BigEndian.PutUint16(h[16:], v) }
