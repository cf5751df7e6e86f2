package dataplane

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pipePort is a port whose frames are the packets of a socket pair: what
// far sends arrives at Pull.
type pipePort struct {
	near, far int
	slab      [BatchSize][64]byte
	counters  *Counters
	pulls     atomic.Int64
}

func newPipePort(t *testing.T) *pipePort {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pipePort{near: fds[0], far: fds[1], counters: NewCounters(MaxWorkers)}
	t.Cleanup(func() { _ = syscall.Close(p.near); p.hangUp() })
	return p
}

func (p *pipePort) Pull(b *Batch) {
	p.pulls.Add(1)
	for !b.Full() {
		buf := p.slab[b.N][:]
		n, err := syscall.Read(p.near, buf)
		if err != nil || n == 0 {
			return
		}
		*b.Next() = Frame{Buf: buf, Len: n}
		b.Add()
	}
	b.More = true
}

func (p *pipePort) Push(*Batch)         {}
func (p *pipePort) FD(worker int) int   { return p.near }
func (p *pipePort) Counters() *Counters { return p.counters }
func (p *pipePort) Close() error        { return nil }

// send queues n frames that carry their number.
func (p *pipePort) send(t *testing.T, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		var frame [16]byte
		binary.BigEndian.PutUint64(frame[:], uint64(i))
		for {
			_, err := syscall.Write(p.far, frame[:])
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.EAGAIN) {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
}

// hangUp makes the descriptor report EPOLLHUP for ever.
func (p *pipePort) hangUp() {
	if p.far >= 0 {
		_ = syscall.Close(p.far)
		p.far = -1
	}
}

// collector is a sink that keeps the numbers of the frames in order.
type collector struct {
	got chan uint64
	in  atomic.Int64
}

func newCollector() *collector { return &collector{got: make(chan uint64, 1<<16)} }

func (c *collector) Push(b *Batch) {
	c.in.Store(int64(b.In))
	for s := b.Sel; s != 0; s &= s - 1 {
		c.got <- binary.BigEndian.Uint64(b.Frames[First(s)].Bytes())
	}
}

// expect waits for the numbers from..from+n-1 in order.
func (c *collector) expect(t *testing.T, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		select {
		case got := <-c.got:
			if got != uint64(i) {
				t.Fatalf("got frame %d, want %d", got, i)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("frame %d did not arrive in 20 s", i)
		}
	}
}

func startEngine(t *testing.T, workers int, cpus ...int) *Engine {
	t.Helper()
	begin := time.Now()
	e, err := NewEngine(Config{Workers: workers, CPUs: cpus, Clock: func() int64 { return int64(time.Since(begin)) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	return e
}

func attach(t *testing.T, e *Engine, id PortID, p Port, s Sink) {
	t.Helper()
	if err := e.Attach(id, p, s); err != nil {
		t.Fatal(err)
	}
}

func TestEngineCarriesFramesInOrder(t *testing.T) {
	e := startEngine(t, 1)
	p, c := newPipePort(t), newCollector()
	attach(t, e, 7, p, c)
	p.send(t, 0, 1000)
	c.expect(t, 0, 1000)
	if in := c.in.Load(); in != 7 {
		t.Errorf("Batch.In = %d, want 7", in)
	}
}

func TestAttachRefusesAPortIDThatIsNotFree(t *testing.T) {
	e := startEngine(t, 2)
	c := newCollector()
	attach(t, e, 1, newPipePort(t), c)
	for _, id := range []PortID{0, 1, MaxPorts} {
		if err := e.Attach(id, newPipePort(t), c); !errors.Is(err, ErrPortID) {
			t.Errorf("attach port %d: %v, want ErrPortID", id, err)
		}
	}
}

func TestAttachLeavesNothingWhenADescriptorIsBad(t *testing.T) {
	e := startEngine(t, 2)
	bad := newPipePort(t)
	near := bad.near
	bad.near = 1 << 30
	if err := e.Attach(3, bad, newCollector()); err == nil {
		t.Fatal("attached a port whose descriptor is not open")
	}
	bad.near = near
	c := newCollector()
	attach(t, e, 3, bad, c)
	bad.send(t, 0, 1)
	// Both workers wait for the same descriptor; either may take it.
	c.expect(t, 0, 1)
}

func TestDetachedPortIsNotPulled(t *testing.T) {
	e := startEngine(t, 1)
	p, other, c := newPipePort(t), newPipePort(t), newCollector()
	attach(t, e, 1, p, c)
	attach(t, e, 2, other, c)
	e.Detach(1)
	e.Detach(1)
	p.send(t, 500, 1)
	other.send(t, 0, 10)
	c.expect(t, 0, 10)
	if n := p.pulls.Load(); n != 0 {
		t.Errorf("pulled %d times after Detach", n)
	}
}

func TestSwapReplacesThePort(t *testing.T) {
	e := startEngine(t, 1)
	old, next, c := newPipePort(t), newPipePort(t), newCollector()
	attach(t, e, 1, old, c)
	old.send(t, 0, 1)
	c.expect(t, 0, 1)
	if err := e.Swap(1, next); err != nil {
		t.Fatal(err)
	}
	next.send(t, 1, 1)
	c.expect(t, 1, 1)
	if err := e.Swap(2, next); !errors.Is(err, ErrPortID) {
		t.Errorf("swap of no port: %v, want ErrPortID", err)
	}
}

// A port's frames may lie in memory that its Close unmaps: when Detach or Swap
// returns, nothing in the worker's batch leads there.
func TestNoFrameOfAPortOutlivesIt(t *testing.T) {
	for name, end := range map[string]func(*Engine) error{
		"detach": func(e *Engine) error { e.Detach(1); return nil },
		"swap":   func(e *Engine) error { return e.Swap(1, newPipePort(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t, 1)
			p, c := newPipePort(t), newCollector()
			attach(t, e, 1, p, c)
			p.send(t, 0, 20)
			c.expect(t, 0, 20)
			var before, after Batch
			e.Do(func(int) { before = *e.workers[0].batch })
			if before.Frames[0].Buf == nil {
				t.Fatal("the worker's batch never had a frame")
			}
			if err := end(e); err != nil {
				t.Fatal(err)
			}
			e.Do(func(int) { after = *e.workers[0].batch })
			for i := range after.Frames {
				if after.Frames[i].Buf != nil {
					t.Errorf("frame %d of the batch is left", i)
				}
			}
			if after.N != 0 || after.Sel != 0 || after.More {
				t.Errorf("the batch still has %d frames, Sel %x", after.N, after.Sel)
			}
		})
	}
}

// A device that is gone reports an error for ever; the worker must go back to
// sleep all the same, and wake for its successor.
func TestDeadDescriptorIsMutedAndSwapRevivesIt(t *testing.T) {
	e := startEngine(t, 1)
	p, c := newPipePort(t), newCollector()
	attach(t, e, 1, p, c)
	p.hangUp()
	// Each Do costs the worker a round, in which a muted port has no part. It may
	// take more than deadEvents until it is: a worker that is preempted within a
	// Pull counts anew, because the port then owes.
	muted := func() bool {
		before := p.pulls.Load()
		for range 100 {
			e.Do(func(int) {})
		}
		return before >= deadEvents && p.pulls.Load() == before
	}
	for begin := time.Now(); !muted(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("pulled %d times from a dead port, and again", p.pulls.Load())
		}
	}
	next := newPipePort(t)
	if err := e.Swap(1, next); err != nil {
		t.Fatal(err)
	}
	next.send(t, 0, 1)
	c.expect(t, 0, 1)
}

func TestDoRunsOnEveryWorker(t *testing.T) {
	e := startEngine(t, 3)
	seen := make([]int, 3)
	e.Do(func(w int) { seen[w]++ })
	for w, n := range seen {
		if n != 1 {
			t.Errorf("worker %d ran it %d times", w, n)
		}
	}
}

func TestStopDrainsWhatHasArrived(t *testing.T) {
	e := startEngine(t, 1)
	p, c := newPipePort(t), newCollector()
	attach(t, e, 1, p, c)
	// The frames arrive while the worker is held up; it is told to stop at once
	// when it goes on.
	held, goOn := make(chan struct{}), make(chan struct{})
	go e.Do(func(int) { close(held); <-goOn })
	<-held
	p.send(t, 0, 200)
	close(goOn)
	e.Stop()
	if len(c.got) != 200 {
		t.Errorf("%d of 200 frames passed before the end", len(c.got))
	}
	e.Stop()
	if err := e.Start(); err == nil {
		t.Error("a stopped engine started again")
	}
	if err := e.Attach(2, p, c); err == nil {
		t.Error("a stopped engine took a port")
	}
}

// greedy always has frames; without a bound on what a port may take in a round
// the other port would never get its turn.
type greedy struct {
	pipePort
	frame [64]byte
}

func (g *greedy) Pull(b *Batch) {
	for !b.Full() {
		*b.Next() = Frame{Buf: g.frame[:], Len: 60}
		b.Add()
	}
	b.More = true
}

type discard struct{ frames atomic.Int64 }

func (d *discard) Push(b *Batch) { d.frames.Add(int64(b.N)) }

func TestABusyPortDoesNotStarveAnother(t *testing.T) {
	e, err := NewEngine(Config{Workers: 1, Clock: func() int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop()
	busy, quiet := &greedy{pipePort: *newPipePort(t)}, newPipePort(t)
	sink, c := &discard{}, newCollector()
	attach(t, e, 1, busy, sink)
	attach(t, e, 2, quiet, c)
	quiet.send(t, 0, 1)
	e.Round(0)
	c.expect(t, 0, 1)
	if n := sink.frames.Load(); n != pullsPerRound*BatchSize {
		t.Errorf("the busy port took %d frames of a round, want %d", n, pullsPerRound*BatchSize)
	}
}

func TestStartThatCannotPinLeavesNoThread(t *testing.T) {
	e, err := NewEngine(Config{Workers: 2, CPUs: []int{0, 5000}, Clock: func() int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err == nil {
		t.Fatal("pinned a worker to CPU 5000")
	}
	e.Stop()
}

func TestNewEngineBoundsWorkers(t *testing.T) {
	for _, n := range []int{-1, 0, MaxWorkers + 1} {
		if _, err := NewEngine(Config{Workers: n}); err == nil {
			t.Errorf("made an engine of %d workers", n)
		}
	}
}

func TestTurnAllocatesNothing(t *testing.T) {
	e, err := NewEngine(Config{Workers: 1, Clock: func() int64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop()
	attach(t, e, 1, &greedy{pipePort: *newPipePort(t)}, &discard{})
	if n := testing.AllocsPerRun(100, func() { e.Round(0) }); n != 0 {
		t.Errorf("a round allocates %v times", n)
	}
}
