package mem

import (
	"fmt"
	"math/bits"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Defaults of Config.
const (
	// DefaultSlots is how many frames a ring holds.
	DefaultSlots = 256
	// DefaultFrameSize is the longest frame in bytes.
	DefaultFrameSize = 2048
)

// Config says what a port in memory is like. The zero value with Workers set
// is a port with default rings.
type Config struct {
	// Workers is the number of queues, at least 1.
	Workers int
	// Slots is how many frames a queue holds in each direction: rounded up to
	// a power of two, 0 means DefaultSlots.
	Slots int
	// FrameSize is the longest frame in bytes, 1 to dataplane.MaxFrame; 0
	// means DefaultFrameSize. Tests of GSO frames set MaxFrame and, as every
	// slot has that much memory, fewer Slots. Push drops a longer frame with
	// TxRefused.
	FrameSize int
	// NoPartial and NoGSO make the port one whose far end can't complete a
	// checksum, or can't segment: Push then does it in software and sends what
	// owes nothing. NoPartial implies NoGSO, as in the kernel.
	NoPartial, NoGSO bool
	// Restore is how many leading bytes of each frame a loop port makes good
	// at each Pull, at 2 ns for 64: set it when what is measured rewrites
	// frames in place. Valid only for NewLoop.
	Restore int
}

// Frame is a frame with what it owes, as control code gives and takes it.
type Frame struct {
	Data []byte
	Owes wire.VNetHdr
}

// New returns a port whose far end is Inject and Sent. It panics if cfg is
// out of its bounds: the caller is a test or a benchmark.
func New(cfg Config) *Port {
	p := newPort(cfg)
	for i := range p.queues {
		p.queues[i].in = newRing(p.cfg.Slots, p.cfg.FrameSize)
		p.queues[i].out = newRing(p.cfg.Slots, p.cfg.FrameSize)
	}
	return p
}

// Pair returns two ports joined by a cable: what worker w pushes to one,
// worker w of the other pulls. Inject on one shows up in its own Pull, in
// competition with the other's worker, and is therefore refused (0 frames);
// so is Sent. It panics like New.
func Pair(cfg Config) (*Port, *Port) {
	a, b := newPort(cfg), newPort(cfg)
	for i := range a.queues {
		ab, ba := newRing(a.cfg.Slots, a.cfg.FrameSize), newRing(a.cfg.Slots, a.cfg.FrameSize)
		a.queues[i].in, a.queues[i].out = ba, ab
		b.queues[i].in, b.queues[i].out = ab, ba
	}
	a.paired, b.paired = true, true
	return a, b
}

// NewLoop returns a port that gives the frames (1 to BatchSize of them) at
// every Pull of every worker, without copying them, and only counts what is
// pushed. Each worker has frames of its own; what somebody changes in one
// stays changed, but for the first cfg.Restore bytes and for where the frame
// starts, its length and what it owes. It panics like New.
func NewLoop(cfg Config, frames ...Frame) *Port {
	if len(frames) == 0 || len(frames) > dataplane.BatchSize {
		panic(fmt.Sprintf("mem: a loop port needs 1 to %d frames, not %d", dataplane.BatchSize, len(frames)))
	}
	p := newPort(cfg)
	for i := range p.queues {
		q := &p.queues[i]
		for _, f := range frames {
			buf := make([]byte, dataplane.Headroom+len(f.Data))
			copy(buf[dataplane.Headroom:], f.Data)
			q.loop = append(q.loop, dataplane.Frame{Buf: buf, Off: dataplane.Headroom, Len: len(f.Data), Owes: f.Owes})
			keep := f.Data[:min(len(f.Data), p.cfg.Restore)]
			q.pristine = append(q.pristine, append([]byte(nil), keep...))
		}
	}
	return p
}

func newPort(cfg Config) *Port {
	if cfg.Slots == 0 {
		cfg.Slots = DefaultSlots
	}
	if cfg.FrameSize == 0 {
		cfg.FrameSize = DefaultFrameSize
	}
	if cfg.Workers < 1 || cfg.Slots < 1 || cfg.FrameSize < 1 || cfg.FrameSize > dataplane.MaxFrame || cfg.Restore < 0 {
		panic(fmt.Sprintf("mem: config out of bounds: %+v", cfg))
	}
	cfg.NoGSO = cfg.NoGSO || cfg.NoPartial
	cfg.Slots = 1 << bits.Len(uint(cfg.Slots-1))
	return &Port{
		queues:   make([]queue, cfg.Workers),
		counters: dataplane.NewCounters(cfg.Workers),
		cfg:      cfg,
	}
}

// Inject copies frames into a worker's queue, where its next Pull finds them,
// and returns how many fitted: it stops at a full queue, and at a frame that
// is longer than FrameSize.
func (p *Port) Inject(worker int, frames ...Frame) int {
	if p.paired || p.queues[worker].loop != nil {
		return 0
	}
	p.inject.Lock()
	defer p.inject.Unlock()
	r := p.queues[worker].in
	defer r.publish()
	for i, f := range frames {
		if r.put(f.Data, f.Owes) != dataplane.None {
			return i
		}
	}
	return len(frames)
}

// InjectBytes is Inject for frames that owe nothing.
func (p *Port) InjectBytes(worker int, frames ...[]byte) int {
	for i, data := range frames {
		if p.Inject(worker, Frame{Data: data}) == 0 {
			return i
		}
	}
	return len(frames)
}

// Sent takes the frames that the worker has pushed since the last call, oldest
// first, as copies. It has none to give on a pair's or a loop's port.
func (p *Port) Sent(worker int) []Frame {
	if p.paired || p.queues[worker].loop != nil {
		return nil
	}
	p.sent.Lock()
	defer p.sent.Unlock()
	r := p.queues[worker].out
	var frames []Frame
	for h := r.head.Load(); h != r.tail.Load(); h++ {
		s := &r.slots[h&r.mask]
		data := append([]byte(nil), s.buf[dataplane.Headroom:dataplane.Headroom+s.n]...)
		frames = append(frames, Frame{Data: data, Owes: s.owes})
		r.head.Store(h + 1)
	}
	return frames
}

// Fail makes every Push drop all its frames for the reason d, as a device
// does that is down (TxDown) or full (TxQueueFull); None ends the fault. It
// takes effect with the next Push.
func (p *Port) Fail(d dataplane.Drop) { p.fail.Store(uint32(d)) }
