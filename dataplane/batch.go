// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package dataplane

import (
	"math/bits"
	"unsafe"

	"heddle/dataplane/wire"
)

// BatchSize is the most frames a batch holds: one for each bit of Batch.Sel.
const BatchSize = 64

// Batch is up to BatchSize frames that one port gave in one Pull. It belongs
// to a worker, which reuses it for every round.
type Batch struct {
	Frames [BatchSize]Frame
	// N is how many of Frames are valid.
	N int
	// Sel selects the frames that a Push is for: bit i stands for Frames[i],
	// and lower bits go first, which keeps the order of a flow. Pull sets it
	// to all N; a forwarder sets it anew for each port it pushes to.
	Sel uint64
	// More is set by a Pull that is to be called again in this round: it ended
	// for want of room, or it lends ring slots that the next Pull gives back.
	// A Pull that saw the queue empty, and holds nothing, leaves it unset.
	More bool
	// In is the port that the frames came from.
	In PortID
	// Worker is the index of the worker that owns the batch, and so of the
	// queue of each port that may be used, 0 ≤ Worker < Engine.Workers().
	Worker int
	// Now is the time of the round in nanoseconds since the engine started,
	// from a monotonic clock. Tables take their time from here.
	Now int64
	// Bytes is the sum of Frames[:N].Len.
	Bytes int
	// Withheld is how many frames fewer than BatchSize are to fill the batch,
	// 0 ≤ Withheld < BatchSize. The worker sets it before each Pull from a port
	// whose frames are long work (flooded to many ports, cut into segments), so
	// that no batch of them holds up the others for long.
	Withheld int
	// Slab is memory of the worker's, SlabLen bytes from the beginning of a
	// cache line, for ports that read frames into it: one for all of them stays
	// in the cache. What a Pull has put there is valid until the worker's next
	// Pull from any port.
	Slab []byte
}

// SlabLen holds what one Pull reads: PullBytes of frames, headroom, room for a
// tag that is put back and padding of each, and the last frame, which starts
// below PullBytes.
const SlabLen = PullBytes + BatchSize*(Headroom+wire.VLANTagLen+lineLen) + MaxFrame + 1

// lineLen is the length of a cache line in bytes.
const lineLen = 64

// NewBatch returns an empty batch with a slab.
func NewBatch(worker int) *Batch {
	slab := make([]byte, SlabLen+lineLen)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(slab))) & (lineLen - 1))
	return &Batch{Worker: worker, Slab: slab[skip:][:SlabLen:SlabLen]}
}

// Reset empties the batch. The worker calls it before each Pull.
func (b *Batch) Reset() { b.N, b.Sel, b.Bytes, b.More = 0, 0, 0, false }

// Full tells whether no frame fits any more.
func (b *Batch) Full() bool { return b.N >= BatchSize-b.Withheld }

// Next returns the frame to fill next. The caller calls Add when it is filled;
// until then it is not part of the batch. The batch must not be full.
func (b *Batch) Next() *Frame { return &b.Frames[b.N&(BatchSize-1)] }

// Add makes the frame that Next returned part of the batch and selects it.
func (b *Batch) Add() {
	b.Bytes += b.Frames[b.N&(BatchSize-1)].Len
	b.Sel |= 1 << b.N
	b.N++
}

// First returns the index of the first selected frame in sel; sel must not be
// zero. The idiom to visit the selected frames in order is
//
//	for s := b.Sel; s != 0; s &= s - 1 {
//		f := &b.Frames[dataplane.First(s)]
//	}
func First(sel uint64) int { return bits.TrailingZeros64(sel) & (BatchSize - 1) }
