// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package mem

import (
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// line keeps what two threads write to on cache lines of their own: 128
// bytes, because the prefetcher takes lines in pairs.
const line = 128

// slot holds one frame at buf[Headroom:Headroom+n]. The buffer stays the
// slot's for ever.
type slot struct {
	buf  []byte
	n    int
	owes wire.VNetHdr
}

// ring hands frames from one producer to one consumer. head and tail count
// frames since the beginning; slots[i&mask] is that of the i-th.
type ring struct {
	// head is the first frame that is not yet given back. The consumer stores.
	head atomic.Uint64
	_    [line - 8]byte
	// tail is the first frame that the consumer may not see yet. The producer
	// stores, once a batch: the store is a locked instruction (5 ns).
	tail atomic.Uint64
	// filled is where the next frame goes; it stays below limit, which follows
	// head when the producer looks there. Both are the producer's.
	filled, limit uint64
	_             [line - 24]byte
	// slots and mask never change.
	slots []slot
	mask  uint64
}

// newRing returns a ring of n slots (a power of two) for frames of up to
// frameSize bytes, cut from one slab so that small frames lie close together.
func newRing(n, frameSize int) *ring {
	stride := (dataplane.Headroom + frameSize + 63) &^ 63
	slab := make([]byte, n*stride)
	r := &ring{slots: make([]slot, n), mask: uint64(n - 1), limit: uint64(n)}
	for i := range r.slots {
		r.slots[i].buf = slab[i*stride:][: dataplane.Headroom+frameSize : stride]
	}
	return r
}

// reserve returns the slot that the next frame goes to, or why there is none:
// the ring is full or n bytes are more than a slot holds. Only the producer may
// call it, like put and publish.
func (r *ring) reserve(n int) (*slot, dataplane.Drop) {
	if r.filled == r.limit {
		r.limit = r.head.Load() + r.mask + 1
		if r.filled == r.limit {
			return nil, dataplane.TxQueueFull
		}
	}
	s := &r.slots[r.filled&r.mask]
	if n > len(s.buf)-dataplane.Headroom {
		return nil, dataplane.TxRefused
	}
	return s, dataplane.None
}

// put copies a frame into the ring and returns None, or why it can't.
func (r *ring) put(frame []byte, owes wire.VNetHdr) dataplane.Drop {
	s, d := r.reserve(len(frame))
	if d != dataplane.None {
		return d
	}
	s.n = copy(s.buf[dataplane.Headroom:], frame)
	s.owes = owes
	r.filled++
	return dataplane.None
}

// publish shows the consumer what was filled.
func (r *ring) publish() { r.tail.Store(r.filled) }
