package wire

import (
	"testing"

	"heddle/bench/golden"
)

// TestNoAllocation gates the hot functions.
func TestNoAllocation(t *testing.T) {
	var frames [][]byte
	for _, g := range goldenFrames {
		frames = append(frames, golden.Bytes(t, g.hex))
	}
	big := make([]byte, 1536)
	var h VNetHdr
	var hdr [VNetHdrLen]byte
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			sink += uint32(DstMAC(f)) + uint32(SrcMAC(f))
			tags, _ := VLANTags(f)
			sink += uint32(tags[0].ID())
			var flow Flow
			ParseFlow(f, &flow)
			flow.SetVNI(1)
			back := flow.Reverse()
			sink += uint32(flow.Hash(1)) + uint32(back.Hash(1))
			csum, _ := IPv4Checksum(f, EthHdrLen)
			sink += uint32(Delta16(1, 2).Update(csum))
			if p, ok := ARPAt(f, EthHdrLen); ok {
				sink += p.TargetIP()
			}
		}
		sink += Sum(big, 0)
		h.Encode(hdr[:])
		h.Decode(hdr[:])
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
