package dataplane

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// MaxWorkers bounds Config.Workers.
const MaxWorkers = 64

// ErrPortID is returned for a PortID that is 0, too high, or taken.
var ErrPortID = errors.New("port id not free")

var errStopped = errors.New("the engine has stopped")

// Config is what an Engine is made from.
type Config struct {
	// Workers is the number of threads, 1 to MaxWorkers.
	Workers int
	// CPUs are what workers are pinned to: worker i to CPUs[i%len(CPUs)].
	// Without any they float, which costs a third of the speed.
	CPUs []int
	// Clock gives Batch.Now and what a port is charged for: monotonic nanoseconds.
	// It is read once a round and after each Pull.
	Clock func() int64
}

// Engine runs the workers. NewEngine makes it, Start starts the threads, Stop
// ends them after a last round that drains what has arrived.
//
// Its methods are for control code, from any goroutine but a worker's. A
// method that returns after a change has waited for every worker to have seen
// it.
type Engine struct {
	cpus    []int
	workers []*worker

	mu      sync.Mutex // Guards what follows, and that one change runs at a time.
	running bool
	stopped bool
	done    sync.WaitGroup // The threads.
}

// NewEngine returns an engine whose workers are not started.
func NewEngine(c Config) (*Engine, error) {
	if c.Workers < 1 || c.Workers > MaxWorkers {
		return nil, fmt.Errorf("engine: %d workers: want 1 to %d", c.Workers, MaxWorkers)
	}
	e := &Engine{cpus: c.CPUs}
	for i := range c.Workers {
		w, err := newWorker(i, c.Clock)
		if err != nil {
			e.Stop()
			return nil, fmt.Errorf("engine: worker %d: %w", i, err)
		}
		e.workers = append(e.workers, w)
	}
	return e, nil
}

// Workers returns the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// Start starts a locked, pinned thread for each worker. It raises GOMAXPROCS
// to one more than the workers where it is lower, so that control code runs
// beside them. It fails, with no thread left, if one can't be pinned.
func (e *Engine) Start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running || e.stopped {
		return errors.New("engine: started before")
	}
	if n := len(e.workers) + 1; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	pinned := make(chan error)
	proceed := make(chan bool)
	for i, w := range e.workers {
		e.done.Go(func() {
			// Never unlocked: the thread ends with the goroutine, and nobody
			// inherits its CPU.
			runtime.LockOSThread()
			pinned <- e.pin(i)
			if <-proceed {
				w.run()
			}
		})
	}
	var errs []error
	for range e.workers {
		errs = append(errs, <-pinned)
	}
	err := errors.Join(errs...)
	for range e.workers {
		proceed <- err == nil
	}
	if err != nil {
		e.done.Wait()
		return err
	}
	e.running = true
	return nil
}

// pin ties the calling thread to the worker's CPU (sched_setaffinity(2)).
func (e *Engine) pin(worker int) error {
	if len(e.cpus) == 0 {
		return nil
	}
	cpu := e.cpus[worker%len(e.cpus)]
	var set [1024 / 64]uint64
	if cpu < 0 || cpu >= 1024 {
		return fmt.Errorf("engine: pin worker %d to CPU %d: no such CPU", worker, cpu)
	}
	set[cpu/64] = 1 << (cpu % 64)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	if errno != 0 {
		return fmt.Errorf("engine: pin worker %d to CPU %d: %w", worker, cpu, os.NewSyscallError("sched_setaffinity", errno))
	}
	return nil
}

// Attach has every worker pull from its queue of p and push to sink. It fails,
// and leaves nothing, if id is taken or a descriptor can't be waited for.
func (e *Engine) Attach(id PortID, p Port, sink Sink) error {
	if id == 0 || id >= MaxPorts {
		return fmt.Errorf("engine: attach port %d: %w", id, ErrPortID)
	}
	err := e.change(func(i int, w *worker) error {
		if w.sources[id].port != nil {
			return fmt.Errorf("engine: attach port %d: %w", id, ErrPortID)
		}
		return w.set(i, id, p, sink)
	})
	if err != nil && !errors.Is(err, ErrPortID) {
		e.Detach(id)
	}
	return err
}

// Swap puts p in the place of the port attached as id: the same device in
// another guise, or a device made anew. When it returns no worker is in the
// old one or has a frame of it.
func (e *Engine) Swap(id PortID, p Port) error {
	return e.change(func(i int, w *worker) error {
		s := w.sources[id]
		if s.port == nil {
			return fmt.Errorf("engine: swap port %d: %w", id, ErrPortID)
		}
		return w.set(i, id, p, s.sink)
	})
}

// Detach ends what Attach began; an id that is not attached is no error. When
// it returns, no worker is in the port, has a frame of it or will pull from it:
// it may be closed once no sink holds it any more.
func (e *Engine) Detach(id PortID) {
	_ = e.change(func(_ int, w *worker) error { w.clear(id); return nil })
}

// Do runs f on every worker's thread between two turns, one worker after the
// other, and returns when all have: afterwards no worker uses what was
// unlinked before. While the engine is not running it runs f on the caller's.
func (e *Engine) Do(f func(worker int)) {
	_ = e.change(func(i int, _ *worker) error { f(i); return nil })
}

// change runs f for every worker as Do does, and joins the errors.
func (e *Engine) change(f func(i int, w *worker) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for i, w := range e.workers {
		var err error
		e.on(w, func() { err = f(i, w) })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// on runs f on the worker's thread and waits. The caller holds e.mu.
func (e *Engine) on(w *worker, f func()) {
	if !e.running {
		f()
		return
	}
	c := call{f: f, done: make(chan struct{})}
	w.calls <- c
	w.poll.wake()
	<-c.done
}

// Round gives every port of every worker its turn, on the caller's goroutine,
// at the time now, and returns how many frames were pulled. It is for tests
// and benchmarks over mem ports: the engine must not be running.
func (e *Engine) Round(now int64) int {
	frames := 0
	for _, w := range e.workers {
		frames += w.round(now)
	}
	return frames
}

// Rounds returns how many turns the workers' loops have made since Start.
// Anybody may call it.
func (e *Engine) Rounds() uint64 {
	var n uint64
	for _, w := range e.workers {
		n += w.rounds.Load()
	}
	return n
}

// Stop lets every worker drain what has arrived, ends the threads and waits
// for them. The ports stay open. A second Stop does nothing.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return
	}
	e.stopped = true
	for _, w := range e.workers {
		e.on(w, func() { w.stop = true })
	}
	e.done.Wait()
	e.running = false
	for _, w := range e.workers {
		w.poll.close()
	}
}
