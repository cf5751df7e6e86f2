package tap

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Numbers of linux/io_uring.h.
const (
	setupSubmitAll   = 1 << 7
	setupCoopTaskrun = 1 << 8
	setupNoSQArray   = 1 << 16

	offSQRing = 0
	offSQEs   = 0x10000000

	registerFilesUpdate = 6
	registerFiles2      = 13
	registerSparse      = 1 << 0
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wqFD uint32
	_                                                      [3]uint32
	sq                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// rsrcRegister is struct io_uring_rsrc_register.
type rsrcRegister struct {
	count, flags uint32
	_, _, _      uint64
}

// filesUpdate is struct io_uring_files_update.
type filesUpdate struct {
	offset, _ uint32
	fds       *int32
}

// Rings are io_urings (io_uring(7)), one for each worker and shared by its TAP
// ports, with which Pull and Push move many small frames by one system call.
// NewRings makes them. A worker's ring is used by Pull and Push of that worker
// only; the methods are for control code, from any goroutine.
type Rings struct {
	rings []*ring // Immutable.

	mu    sync.Mutex               // Guards what follows.
	taken [dataplane.MaxPorts]bool // Which numbers of files ports have.
	// waited is how many ms Open has waited in vain for devices to be let go of,
	// by all ports together: one that somebody really holds is tried again and
	// again, and must not hold up its caller each time.
	waited int
}

// A process with rings that was killed lets go of its devices a little after it
// has ended (io_ring_exit_work, after an RCU grace period): of all of them at
// once. Open waits for so long. In milliseconds.
const (
	lettingGo     = 300
	lettingGoStep = 20
)

// await waits a moment for a killed process to let go of its devices. It returns
// false, at once, if that has been waited for long enough.
func (s *Rings) await() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	more := s.waited < lettingGo
	if more {
		s.waited += lettingGoStep
	}
	s.mu.Unlock()
	if more {
		_, _ = unix.Poll(nil, lettingGoStep)
	}
	return more
}

// rewarded notes that a device was let go of: it is worth waiting for the next.
func (s *Rings) rewarded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waited = 0
}

// NewRings makes the rings of 1 to dataplane.MaxWorkers workers: some pages of
// memory each, and 4 MB of addresses of which only what frames have touched is
// resident. It fails on kernels before Linux 6.6, and where
// io_uring is switched off (kernel.io_uring_disabled) or forbidden by a seccomp
// filter; ports then do without.
func NewRings(workers int) (*Rings, error) {
	if workers < 1 || workers > dataplane.MaxWorkers {
		return nil, fmt.Errorf("io_uring: %d workers: want 1 to %d", workers, dataplane.MaxWorkers)
	}
	s := &Rings{}
	for range workers {
		r, err := newRing()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("io_uring: %w", err), s.Close())
		}
		s.rings = append(s.rings, r)
	}
	return s, nil
}

// Close gives the rings back. The ports that have them are closed before. A nil
// Rings has nothing to close.
func (s *Rings) Close() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, r := range s.rings {
		errs = append(errs, r.close())
	}
	s.rings = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close io_uring: %w", err)
	}
	return nil
}

// give has the queues of a port use the rings, as far as there are any for
// them.
func (s *Rings) give(queues []queue) error {
	if s == nil || len(queues) > len(s.rings) || queues[0].noUSO {
		return nil // Segments made here are written one by one.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	file := slices.Index(s.taken[:], false)
	if file < 0 {
		return nil
	}
	for i := range queues {
		q := &queues[i]
		if err := s.rings[i].setFile(file, q.fd); err != nil {
			return fmt.Errorf("io_uring: %w", err)
		}
		s.taken[file] = true
		q.ring, q.file = s.rings[i], int32(file)
	}
	return nil
}

// take ends give: the rings hold no descriptor of the queues any more.
func (s *Rings) take(queues []queue) error {
	if len(queues) == 0 || queues[0].ring == nil {
		return nil
	}
	// The number is the next port's only once every ring has let go of it.
	s.mu.Lock()
	defer s.mu.Unlock()
	file := queues[0].file
	var errs []error
	for i := range queues {
		if q := &queues[i]; q.ring != nil {
			errs = append(errs, q.ring.setFile(int(file), -1))
			q.ring = nil
		}
	}
	err := errors.Join(errs...)
	s.taken[file] = err != nil
	return err
}

// newRing makes a ring that any thread may submit to, one at a time.
func newRing() (_ *ring, err error) {
	p := ringParams{flags: setupSubmitAll | setupCoopTaskrun | setupNoSQArray}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	// One mapping has both queues: IORING_FEAT_SINGLE_MMAP, Linux 5.4.
	queues, err := r.mmap(r.fd, offSQRing, int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})), unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	entries, err := r.mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	if r.slab, err = r.mmap(-1, 0, ringEntries*slotLen, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, err
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&queues[at])) }
	r.sqTail, r.sqMask = word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&queues[p.cq.cqes])), p.cqEntries)
	files := rsrcRegister{count: dataplane.MaxPorts, flags: registerSparse}
	if err = r.register(registerFiles2, unsafe.Pointer(&files), unsafe.Sizeof(files)); err != nil {
		return nil, err
	}
	return r, nil
}

// mmap maps memory that close unmaps.
func (r *ring) mmap(fd int, offset int64, n, flags int) ([]byte, error) {
	b, err := unix.Mmap(fd, offset, n, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes: %w", n, err)
	}
	r.maps = append(r.maps, b)
	return b, nil
}

// register is io_uring_register(2).
func (r *ring) register(op uintptr, arg unsafe.Pointer, n uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), n, 0, 0); errno != 0 {
		return fmt.Errorf("io_uring_register(%d): %w", op, errno)
	}
	return nil
}

// setFile gives the ring a descriptor by a number, or takes it away: fd -1. The
// ring holds it like a descriptor of its own. The worker may be using others.
func (r *ring) setFile(number, fd int) error {
	fds := [1]int32{int32(fd)}
	u := filesUpdate{offset: uint32(number), fds: &fds[0]}
	return r.register(registerFilesUpdate, unsafe.Pointer(&u), uintptr(len(fds)))
}

func (r *ring) close() error {
	var errs []error
	for _, m := range r.maps {
		errs = append(errs, unix.Munmap(m))
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}
