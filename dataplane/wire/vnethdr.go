package wire

import "encoding/binary"

// VNetHdrLen is the size in bytes of struct virtio_net_hdr as TAP devices
// (IFF_VNET_HDR, TUNSETVNETHDRSZ 10) and AF_PACKET sockets (PACKET_VNET_HDR)
// put it in front of a frame (linux/virtio_net.h).
const VNetHdrLen = 10

// Flags of VNetHdr (VIRTIO_NET_HDR_F_*).
const (
	// VNetNeedsCsum marks a partial checksum: the checksum field holds the
	// uninverted pseudo-header sum, and the sum from CsumStart to the end of
	// the frame is still to be added.
	VNetNeedsCsum = 1 << 0
	// VNetDataValid marks a checksum that the giver has verified.
	VNetDataValid = 1 << 1
)

// GSO types of VNetHdr (VIRTIO_NET_HDR_GSO_*). VNetGSOECN is a flag or-ed to a
// TCP type: only the first segment may carry CWR.
const (
	VNetGSONone  = 0
	VNetGSOTCP4  = 1
	VNetGSOUDP   = 3 // UFO, long gone from the kernel; refused everywhere.
	VNetGSOTCP6  = 4
	VNetGSOUDPL4 = 5
	VNetGSOECN   = 0x80
)

// VNetHdr is struct virtio_net_hdr in host form: what a frame still owes. The
// zero value owes nothing: checksums are in the frame and it is one segment.
type VNetHdr struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // A hint by the giver; never trusted, see HeaderLen.
	GSOSize    uint16 // Payload bytes a segment; valid only if GSOType is not none.
	CsumStart  uint16 // Offset in the frame; valid only with VNetNeedsCsum.
	CsumOffset uint16 // Offset of the checksum field from CsumStart; likewise.
}

// Decode reads the header from the first VNetHdrLen bytes of b, in the byte
// order of the machine.
func (h *VNetHdr) Decode(b []byte) {
	_ = b[VNetHdrLen-1]
	h.Flags = b[0]
	h.GSOType = b[1]
	h.HdrLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumOffset = binary.NativeEndian.Uint16(b[8:])
}

// Encode writes the header to the first VNetHdrLen bytes of b.
func (h *VNetHdr) Encode(b []byte) {
	_ = b[VNetHdrLen-1]
	b[0] = h.Flags
	b[1] = h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}

// Partial tells whether the frame's checksum is still to be completed.
func (h *VNetHdr) Partial() bool { return h.Flags&VNetNeedsCsum != 0 }

// GSO tells whether the frame stands for several segments.
func (h *VNetHdr) GSO() bool { return h.GSOType != VNetGSONone }
