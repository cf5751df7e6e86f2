// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package dataplane

import "heddle/dataplane/wire"

// Sizes that every port and every buffer of frames keeps to, in bytes.
const (
	// Headroom is what a frame that was pulled has at least in front of its
	// first byte: for a virtio-net header, a re-inserted 802.1Q tag and an
	// outer Ethernet, IPv6, UDP and VXLAN header.
	Headroom = 128
	// MaxFrame is the longest frame: a GSO frame of 64 KB of L3 and its
	// Ethernet header with two tags.
	MaxFrame = 65535 + 14 + 8
)

// Frame is one L2 frame in a buffer that its port lends, with what it owes.
type Frame struct {
	// Buf is the buffer; the frame is Buf[Off:Off+Len], what stands before is
	// headroom that whoever holds the frame may write to.
	Buf []byte
	Off int
	Len int
	// Owes is the frame's offload state: a partial checksum, GSO type and
	// size. The zero value is a complete frame of one segment.
	Owes wire.VNetHdr
}

// Bytes returns the frame from its destination MAC on.
func (f *Frame) Bytes() []byte { return f.Buf[f.Off : f.Off+f.Len] }

// WithHeadroom returns the frame's bytes preceded by n bytes of headroom.
// It panics if the frame has less; n ≤ Headroom is always there.
func (f *Frame) WithHeadroom(n int) []byte { return f.Buf[f.Off-n : f.Off+f.Len] }
