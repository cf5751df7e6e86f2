package capture

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Direction is which way a frame passed the port, seen from Heddle.
type Direction uint8

// In came in by the port, Out goes out by it.
const (
	In Direction = iota
	Out
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// Record is one frame that passed a port.
type Record struct {
	// Time is Batch.Now: nanoseconds since the engine's start.
	Time int64
	// Port is the one that the frame passed.
	Port dataplane.PortID
	// Dir is which way.
	Dir Direction
	// Len is the frame's length in bytes, of which Data has the first SnapLen.
	Len int
	// Data lies in the ring: it is valid until the call that got it returns.
	Data []byte
	// Owes is the frame's offload state.
	Owes wire.VNetHdr
}

// Bounds and defaults of Config, in bytes.
const (
	// DefaultRingBytes holds 40 ms of 800 Mb/s.
	DefaultRingBytes = 4 << 20
	// MaxRingBytes is the largest ring.
	MaxRingBytes = 1 << 30
	// minRingBytes holds two records of the longest frame.
	minRingBytes = 256 << 10
)

// waitMillis is how long Wait sleeps if nobody wakes it: how old a record gets
// before it is read.
const waitMillis = 20

// Config says how much a capture keeps.
type Config struct {
	// Workers is the engine's number of workers, 1 to dataplane.MaxWorkers.
	Workers int
	// SnapLen is how many bytes of a frame are kept. 0 means all.
	SnapLen int
	// RingBytes is how much memory each worker has, rounded up to a power of
	// two, from 256 KB to MaxRingBytes; 0 means DefaultRingBytes.
	RingBytes int
}

// Capture is where Mirrors copy to and Read reads from.
type Capture struct {
	// Immutable after New.
	rings  []ring
	wakefd int // An eventfd(2).

	stopped atomic.Bool
}

// New returns a capture without ports. It holds a descriptor until Close.
func New(cfg Config) (*Capture, error) {
	if cfg.SnapLen == 0 || cfg.SnapLen > dataplane.MaxFrame {
		cfg.SnapLen = dataplane.MaxFrame
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = DefaultRingBytes
	}
	if cfg.Workers < 1 || cfg.Workers > dataplane.MaxWorkers || cfg.SnapLen < 0 || cfg.RingBytes < 0 || cfg.RingBytes > MaxRingBytes {
		return nil, fmt.Errorf("capture: out of bounds: %d workers (1 to %d), snaplen %d (0 or more), %d bytes of ring (0 to %d)",
			cfg.Workers, dataplane.MaxWorkers, cfg.SnapLen, cfg.RingBytes, MaxRingBytes)
	}
	size := 1 << bits.Len(uint(max(cfg.RingBytes, minRingBytes)-1))
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("capture: eventfd: %w", err)
	}
	c := &Capture{rings: make([]ring, cfg.Workers), wakefd: fd}
	for i := range c.rings {
		r := &c.rings[i]
		r.buf, r.mask, r.snap = make([]byte, size), uint64(size-1), cfg.SnapLen
	}
	return c, nil
}

// Wrap returns a port that copies to c what passes p, which is the port id.
func (c *Capture) Wrap(id dataplane.PortID, p dataplane.Port) *Mirror {
	return &Mirror{inner: p, c: c, id: id}
}

// Read gives f what was captured before the call, in the order of time, and
// returns how many records it was. It doesn't wait.
func (c *Capture) Read(f func(Record)) int {
	var tails [dataplane.MaxWorkers]uint64
	for i := range c.rings {
		c.rings[i].awake.Store(false)
		tails[i] = c.rings[i].tail.Load()
	}
	for n := 0; ; n++ {
		var first Record
		var next uint64
		var from *ring
		for i := range c.rings {
			r := &c.rings[i]
			if rec, after, ok := r.peek(tails[i]); ok && (from == nil || rec.Time < first.Time) {
				first, next, from = rec, after, r
			}
		}
		if from == nil {
			return n
		}
		f(first)
		from.head.Store(next)
	}
}

// Missed returns how many frames passed and were not kept, since New.
func (c *Capture) Missed() uint64 {
	var n uint64
	for i := range c.rings {
		n += c.rings[i].missed.Load()
	}
	return n
}

// Wait blocks until it is time to Read: 20 ms, or less when a ring is half full.
// It returns false, at once, after Stop: read what is left then, once.
func (c *Capture) Wait() bool {
	if c.stopped.Load() {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(c.wakefd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, waitMillis); err == nil && n > 0 {
		var count [8]byte
		_, _ = unix.Read(c.wakefd, count[:])
	}
	return !c.stopped.Load()
}

// Stop has Wait return false, also one that blocks now.
func (c *Capture) Stop() {
	c.stopped.Store(true)
	c.wake()
}

// wake ends a Wait, or the next one. It can't block: the eventfd is
// O_NONBLOCK, and one that is full wakes already.
func (c *Capture) wake() {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(c.wakefd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

// Close gives back what the capture holds.
func (c *Capture) Close() error {
	if c.wakefd < 0 {
		return errors.New("capture: closed already")
	}
	err := unix.Close(c.wakefd)
	c.wakefd = -1
	if err != nil {
		return fmt.Errorf("capture: close: %w", err)
	}
	return nil
}
