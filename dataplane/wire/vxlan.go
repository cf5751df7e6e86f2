// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Size in bytes of a VXLAN header (RFC 7348 5), the UDP port that IANA gave it,
// and how many networks it can tell apart.
const (
	VXLANHdrLen = 8
	VXLANPort   = 4789
	MaxVNI      = 1<<24 - 1
)

// vxlanI is the I flag in the header's first word: the VNI is valid.
const vxlanI = 0x0800_0000

// VXLANHeader is a VXLAN header, a view of the datagram's own bytes:
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|R|R|R|I|R|R|R|                    reserved                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      VNI                      |    reserved   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type VXLANHeader [VXLANHdrLen]byte

// VXLANAt returns the header at offset off of b; ok is false if it is not all
// there. What it says is not looked at: see HasVNI.
func VXLANAt(b []byte, off int) (h *VXLANHeader, ok bool) {
	if !fits(b, off, VXLANHdrLen) {
		return nil, false
	}
	return (*VXLANHeader)(b[off:]), true
}

// HasVNI tells whether the I flag is set. The other flags are reserved and
// ignored on receipt.
func (h *VXLANHeader) HasVNI() bool { return binary.BigEndian.Uint32(h[:])&vxlanI != 0 }

// VNI returns the network identifier, 24 bits; valid only if HasVNI.
func (h *VXLANHeader) VNI() uint32 { return binary.BigEndian.Uint32(h[4:]) >> 8 }

// Init writes the whole header for a network, the reserved bits 0.
func (h *VXLANHeader) Init(vni uint32) {
	binary.BigEndian.PutUint64(h[:], vxlanI<<32|uint64(vni&MaxVNI)<<8)
}
