// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tap

import (
	"math/bits"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Numbers of linux/io_uring.h.
const (
	opRead         = 22
	opWrite        = 23
	sqeFixedFile   = 1 << 0
	enterGetEvents = 1 << 0
)

// ringEntries is how many operations one system call takes.
const ringEntries = dataplane.BatchSize

// slotLen is what a frame that is read by a ring has for itself: which read
// gets how much isn't known before. An odd number of cache lines more than
// 64 KB has the slots' beginnings in different sets of the cache.
const slotLen = (dataplane.Headroom+readLen+line-1)&^(line-1) + 5*line

// sqe is struct io_uring_sqe.
type sqe struct {
	op     uint8
	flags  uint8
	ioprio uint16
	fd     int32
	off    uint64
	addr   uint64
	length uint32
	rw     uint32
	data   uint64
	_      [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	data  uint64
	res   int32
	flags uint32
}

// ring is one worker's io_uring. Only that worker submits to it.
type ring struct {
	// Immutable.
	fd             int
	sqTail         *uint32
	cqHead, cqTail *uint32
	sqMask, cqMask uint32
	sqes           []sqe
	cqes           []cqe
	slab           []byte   // ringEntries slots of slotLen.
	maps           [][]byte // What close unmaps.

	tail   uint32             // Of the submission queue, with what isn't submitted.
	queued int                // How many of those.
	res    [ringEntries]int32 // What each came to: bytes, or -errno.
	_      [line]byte
}

// add queues an operation of at most ringEntries, the number of which is the
// index of its result.
func (r *ring) add(op uint8, file int32, b []byte) {
	s := &r.sqes[r.tail&r.sqMask]
	*s = sqe{
		op: op, flags: sqeFixedFile, fd: file,
		addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), length: uint32(len(b)), rw: unix.RWF_NOWAIT,
		data: uint64(r.queued),
	}
	r.tail++
	r.queued++
}

// submit runs what is queued and returns how many operations were; res has
// their results. With RWF_NOWAIT the kernel neither keeps an operation until the
// descriptor is ready, as it would in spite of O_NONBLOCK, nor hands it to
// another thread: it is done when the call returns, in order. What the kernel
// didn't take, having no memory, is forgotten.
func (r *ring) submit() int {
	atomic.StoreUint32(r.sqTail, r.tail)
	n, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued), 0, 0, 0, 0)
	if errno != 0 {
		n = 0
	}
	if int(n) < r.queued {
		r.tail -= uint32(r.queued - int(n))
		atomic.StoreUint32(r.sqTail, r.tail)
	}
	r.queued = 0
	// It would be a kernel's fault to have left any; their buffers aren't ours
	// before they are done.
	for done := r.reap(); done < int(n); done += r.reap() {
		_, _, _ = syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, enterGetEvents, 0, 0)
	}
	return int(n)
}

// reap takes what is completed and returns how many.
func (r *ring) reap() int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	n := int(tail - head)
	for ; head != tail; head++ {
		c := &r.cqes[head&r.cqMask]
		r.res[c.data&(ringEntries-1)] = c.res
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

// ringFrom is from how many frames on one call for all of them is cheaper than
// one for each: a call of the ring costs as much as two, an operation in it half
// a call.
const ringFrom = 4

// ringMean is the most bytes that frames may have on average for the ring to read
// or write more of them: of larger ones a few fill a Pull, and each takes longer
// than the call.
const ringMean = 2048

// ringReads is the most reads of one call: what they bring isn't known before, and
// may be 64 KB each behind the small ones. A call's own cost is a 40th of theirs.
const ringReads = 16

// pullRing reads up to n frames into slots from the given one on, behind the
// frames that are in b. It returns how many reads were made, and whether one of
// them found nothing.
func (p *Port) pullRing(q *queue, b *dataplane.Batch, slot, n int) (made int, empty bool) {
	r := q.ring
	for i := range n {
		at := (slot+i)*slotLen + dataplane.Headroom
		r.add(opRead, q.file, r.slab[at-wire.VNetHdrLen:][:readLen])
	}
	made = r.submit()
	for i := range made {
		got := int(r.res[i&(ringEntries-1)])
		if got < 0 {
			empty = true // A later read may have found a frame that came meanwhile.
			continue
		}
		f := b.Next()
		if d := lend(f, r.slab, (slot+i)*slotLen+dataplane.Headroom, got); d != dataplane.None {
			p.counters.Drop(b.Worker, d, 1)
			continue
		}
		b.Add()
	}
	return made, empty
}

// manySmall tells whether the selected frames are for the ring.
func manySmall(b *dataplane.Batch) bool {
	n, bytes := bits.OnesCount64(b.Sel), 0
	if n < ringFrom {
		return false
	}
	for s := b.Sel; s != 0; s &= s - 1 {
		bytes += b.Frames[dataplane.First(s)].Len
	}
	return bytes <= n*ringMean
}

// pushRing writes the selected frames with one call and returns those that the
// kernel didn't take, for which it had no memory.
func (p *Port) pushRing(q *queue, b *dataplane.Batch, sent *tally) (left uint64) {
	r := q.ring
	for s := b.Sel; s != 0; s &= s - 1 {
		f := &b.Frames[dataplane.First(s)]
		piece := f.WithHeadroom(wire.VNetHdrLen)
		putHeader(piece, f)
		r.add(opWrite, q.file, piece)
	}
	left = b.Sel
	for i := range r.submit() {
		f := &b.Frames[dataplane.First(left)]
		left &= left - 1
		d := dataplane.None
		if got := r.res[i&(ringEntries-1)]; got < 0 {
			d = dropFor(syscall.Errno(-got))
		}
		if d != dataplane.None {
			p.counters.Drop(b.Worker, d, 1)
			continue
		}
		sent.add(f)
	}
	return left
}
