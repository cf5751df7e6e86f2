// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package capture

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// line keeps what two threads write to on cache lines of their own: 128 bytes,
// because the prefetcher takes lines in pairs.
const line = 128

// roundBytes bounds what one round of a worker copies: as much as a pull of
// four full batches, some 30 µs.
const roundBytes = 4 * dataplane.PullBytes

// A record in a ring, little endian, by its offsets in bytes:
//
//	0        4          8               16     18    19     20      30   32
//	├────────┼──────────┼───────────────┼──────┼─────┼──────┼───────┼────┼──────────┬─────┤
//	 kept      frame's    Batch.Now       port   in/   kind   virtio-      the bytes  padding
//	 bytes     length                            out          net header   kept       to 32
//
// A record never wraps: where one doesn't fit the end of the ring, a gap (a
// record of that kind, without bytes) tells the reader to begin anew. Records
// are multiples of 32 bytes so that the gap's header fits whatever is left.
const (
	recordHdrLen = 32
	recordAlign  = 32

	kindFrame = 0
	kindGap   = 1
)

// ring is one worker's bytes. head and tail count bytes since the beginning;
// byte i is at buf[i&mask].
type ring struct {
	// Immutable.
	buf  []byte
	mask uint64
	snap int
	_    [line]byte

	// head is where the reader is. The reader stores.
	head atomic.Uint64
	// awake is set by the worker when it wakes the reader, and cleared by the
	// reader, so that one fill of the ring is one wake.
	awake atomic.Bool
	_     [line]byte

	// tail is where the reader may read to. The worker stores, once a batch.
	tail atomic.Uint64
	// missed counts frames that weren't copied. Only the worker adds.
	missed atomic.Uint64
	// round and spent are the worker's: the bytes it copied in that round.
	round int64
	spent int
	_     [line]byte
}

// copyBatch copies the frames of b that sel selects into the ring, and shows
// them to the reader.
func (r *ring) copyBatch(b *dataplane.Batch, sel uint64, id dataplane.PortID, dir Direction, c *Capture) {
	if b.Now != r.round {
		r.round, r.spent = b.Now, 0
	}
	tail := r.tail.Load()
	end := r.head.Load() + uint64(len(r.buf))
	for ; sel != 0; sel &= sel - 1 {
		next, ok := r.put(&b.Frames[dataplane.First(sel)], b.Now, id, dir, tail, end)
		if !ok {
			// A shorter frame may still fit, but holes in the middle of a
			// batch would cost the same and tell less.
			r.missed.Store(r.missed.Load() + uint64(bits.OnesCount64(sel)))
			break
		}
		tail = next
	}
	r.tail.Store(tail)
	if end-tail < uint64(len(r.buf)/2) && !r.awake.Load() {
		r.awake.Store(true)
		c.wake()
	}
}

// put writes a frame at tail, if it can stay below end, and returns where the
// next goes.
func (r *ring) put(f *dataplane.Frame, now int64, id dataplane.PortID, dir Direction, tail, end uint64) (next uint64, ok bool) {
	kept := min(f.Len, r.snap)
	n := recordLen(kept)
	at := tail & r.mask
	if left := uint64(len(r.buf)) - at; left < n {
		if end-tail < left+n {
			return tail, false
		}
		r.buf[at+19] = kindGap
		tail += left
		at = 0
	}
	if end-tail < n || r.spent > roundBytes {
		return tail, false
	}
	r.spent += kept
	h := r.buf[at : at+n : at+n]
	binary.LittleEndian.PutUint32(h[0:], uint32(kept))
	binary.LittleEndian.PutUint32(h[4:], uint32(f.Len))
	binary.LittleEndian.PutUint64(h[8:], uint64(now))
	binary.LittleEndian.PutUint16(h[16:], uint16(id))
	h[18], h[19] = uint8(dir), kindFrame
	f.Owes.Encode(h[20:])
	copy(h[recordHdrLen:], f.Bytes()[:kept])
	return tail + n, true
}

// recordLen is how much of a ring a record of so many bytes takes.
func recordLen(kept int) uint64 {
	return uint64(recordHdrLen+kept+recordAlign-1) &^ (recordAlign - 1)
}

// peek returns the record at the head, and where the one behind it begins. ok
// is false if there is none before tail. Only the reader may call it.
func (r *ring) peek(tail uint64) (rec Record, next uint64, ok bool) {
	head := r.head.Load()
	if head == tail {
		return rec, head, false
	}
	at := head & r.mask
	if r.buf[at+19] == kindGap {
		head += uint64(len(r.buf)) - at
		at = 0
	}
	h := r.buf[at:]
	kept := int(binary.LittleEndian.Uint32(h))
	rec = Record{
		Len:  int(binary.LittleEndian.Uint32(h[4:])),
		Time: int64(binary.LittleEndian.Uint64(h[8:])),
		Port: dataplane.PortID(binary.LittleEndian.Uint16(h[16:])),
		Dir:  Direction(h[18]),
		Data: h[recordHdrLen : recordHdrLen+kept : recordHdrLen+kept],
	}
	rec.Owes.Decode(h[20 : 20+wire.VNetHdrLen])
	return rec, head + recordLen(kept), true
}
