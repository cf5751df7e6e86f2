// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package dataplane

import (
	"slices"
	"sync/atomic"
)

const (
	// pullsPerRound bounds what one port may take of a round: a port that
	// always has more waits for the others after 256 small frames or 512 KB.
	pullsPerRound = 4
	// deadEvents is how many rounds in a row a descriptor may report an error
	// while its port has nothing, before it is muted: epoll would report it
	// for ever and the worker would spin.
	deadEvents = 8
	// drainRounds bounds the last rounds of a worker that is told to stop.
	drainRounds = 64
)

// source is a port as one worker sees it.
type source struct {
	port Port
	sink Sink
	fd   int // -1: polled each round.
	dead int // Rounds in a row with an error and nothing to pull.
}

// worker is one thread's loop. All fields but the counters belong to that
// thread; control code reaches them by Engine.Do.
type worker struct {
	batch    *Batch
	sources  [MaxPorts]source
	attached []PortID // The sources in use.
	polled   []PortID // Those of them with fd -1.
	poll     poller
	clock    func() int64
	calls    chan call
	stop     bool

	rounds atomic.Uint64 // Turns of the loop.
}

// call is control code's request to run f between two rounds.
type call struct {
	f    func()
	done chan struct{}
}

// run is the life of a worker's thread: sleep until a port has frames, give
// each such port its turn, run what control code asks for.
//
// A round of one small frame costs two system calls of the device, a clock
// (about 30 ns) and an epoll_wait: syscall.Syscall, unlike RawSyscall, lets
// the garbage collector go on while it blocks, and costs 20 ns more.
func (w *worker) run() {
	for !w.stop {
		timeout := -1
		if len(w.polled) > 0 {
			timeout = pollInterval
		}
		n := w.poll.wait(timeout)
		w.rounds.Store(w.rounds.Load() + 1)
		w.batch.Now = w.clock()
		called := false
		for i := range n {
			id, hung := w.poll.event(i)
			if id == 0 {
				called = true
				continue
			}
			if w.turn(id) > 0 || !hung {
				w.sources[id].dead = 0
				continue
			}
			if w.sources[id].dead++; w.sources[id].dead == deadEvents {
				w.poll.remove(w.sources[id].fd)
			}
		}
		for _, id := range w.polled {
			w.turn(id)
		}
		if called {
			w.serve()
		}
	}
	for range drainRounds {
		if w.round(w.clock()) == 0 {
			return
		}
	}
}

// turn pulls from one port and pushes on, and returns how many frames it was.
func (w *worker) turn(id PortID) int {
	s := &w.sources[id]
	if s.port == nil {
		return 0
	}
	frames := 0
	b := w.batch
	b.In = id
	for range pullsPerRound {
		b.Reset()
		s.port.Pull(b)
		if b.N > 0 {
			frames += b.N
			s.sink.Push(b)
		}
		if !b.More {
			break
		}
	}
	return frames
}

// round gives every port its turn, whether or not it asked for it.
func (w *worker) round(now int64) int {
	w.batch.Now = now
	frames := 0
	for _, id := range w.attached {
		frames += w.turn(id)
	}
	return frames
}

// serve runs what control code has asked for.
func (w *worker) serve() {
	w.poll.clearWake()
	for {
		select {
		case c := <-w.calls:
			c.f()
			close(c.done)
		default:
			return
		}
	}
}

// set makes port what the worker pulls id from. It runs on the worker's thread,
// or on any before it starts.
func (w *worker) set(index int, id PortID, port Port, sink Sink) error {
	if w.stop {
		return errStopped
	}
	s := &w.sources[id]
	w.clear(id)
	fd := port.FD(index)
	if fd < 0 {
		w.polled = append(w.polled, id)
	} else if err := w.poll.add(fd, id); err != nil {
		return err
	}
	w.attached = append(w.attached, id)
	*s = source{port: port, sink: sink, fd: fd}
	return nil
}

// clear ends what set began.
func (w *worker) clear(id PortID) {
	s := &w.sources[id]
	if s.port == nil {
		return
	}
	if s.fd >= 0 {
		w.poll.remove(s.fd)
	}
	is := func(p PortID) bool { return p == id }
	w.attached = slices.DeleteFunc(w.attached, is)
	w.polled = slices.DeleteFunc(w.polled, is)
	*s = source{}
}

// newWorker returns a worker that waits on its own epoll.
func newWorker(index int, clock func() int64) (*worker, error) {
	w := &worker{batch: NewBatch(index), clock: clock, calls: make(chan call, 1)}
	if err := w.poll.open(); err != nil {
		return nil, err
	}
	return w, nil
}
