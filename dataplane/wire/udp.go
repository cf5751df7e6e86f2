// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Size in bytes of a UDP header (RFC 768) and the offset of its checksum from
// its start, which is VNetHdr.CsumOffset.
const (
	UDPHdrLen  = 8
	UDPCsumOff = 6
)

// UDPHeader is a UDP header, a view of the frame's own bytes: the setters
// write to the frame.
type UDPHeader [UDPHdrLen]byte

// UDPAt returns the UDP header at offset off of b; ok is false if it is not
// all there. The length field is not looked at.
func UDPAt(b []byte, off int) (h *UDPHeader, ok bool) {
	if !fits(b, off, UDPHdrLen) {
		return nil, false
	}
	return (*UDPHeader)(b[off:]), true
}

// SrcPort returns the source port.
func (h *UDPHeader) SrcPort() uint16 { return binary.BigEndian.Uint16(h[0:]) }

// DstPort returns the destination port.
func (h *UDPHeader) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Len returns the length in bytes of header and payload as the header claims.
func (h *UDPHeader) Len() int { return int(binary.BigEndian.Uint16(h[4:])) }

// Checksum returns the checksum field; 0 is none.
func (h *UDPHeader) Checksum() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// SetSrcPort writes the source port. No setter touches the checksum.
func (h *UDPHeader) SetSrcPort(v uint16) { binary.BigEndian.PutUint16(h[0:], v) }

// SetDstPort writes the destination port.
func (h *UDPHeader) SetDstPort(v uint16) { binary.BigEndian.PutUint16(h[2:], v) }

// SetLen writes the length in bytes of header and payload.
func (h *UDPHeader) SetLen(v uint16) { binary.BigEndian.PutUint16(h[4:], v) }

// SetChecksum writes the checksum field.
func (h *UDPHeader) SetChecksum(v uint16) { binary.BigEndian.PutUint16(h[6:], v) }

// UDPChecksum turns a computed checksum into what UDP sends: a computed 0 is
// sent as 0xffff, since 0 says that there is none (RFC 768).
func UDPChecksum(computed uint16) uint16 {
	if computed == 0 {
		return 0xffff
	}
	return computed
}
