// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package dataplane

import (
	"slices"
	"sync/atomic"
)

// Bounds of what a port may take of a worker. Among ports that always have
// frames, time is shared out as by deficit round robin (Shreedhar and Varghese,
// SIGCOMM 1995), with nanoseconds of the worker's in the place of bytes: what a
// frame costs is its reads, its writes to all the ports that it goes to, its
// segments, and what the receivers' stacks do within them.
const (
	// quantum is how long one port may keep the worker a round, in nanoseconds.
	// It gets no further Pull after that, and what its last batch took beyond
	// is off its next rounds. A batch of 64 small frames from TAP to TAP takes
	// 185,000 (docs/PERFORMANCE.md, 60 bytes), a round's wait and wake-ups 1,000.
	quantum = 100_000
	// longBatch is how long one batch should keep the worker at most: a port
	// whose frames take longer than 1/64 of it gets smaller batches, down to a
	// single frame.
	longBatch = 250_000
	// maxOwed bounds what is off a port's next rounds: it is twice what one
	// frame flooded to all ports takes, and a worker that was preempted for
	// longer is no port's fault.
	maxOwed = 10_000_000
	// pullsPerRound bounds a round in frames and bytes too, where they cost
	// next to nothing: 256 frames, or four times about PullBytes.
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

	waits bool   // It is in worker.waiting.
	owed  int64  // Nanoseconds that it had in round last and before, beyond its quanta.
	last  uint64 // The round of its last turn.
	cost  int64  // Nanoseconds that a frame of its takes, by its last batches.
}

// worker is one thread's loop. All fields but the counters belong to that
// thread; control code reaches them by Engine.Do.
type worker struct {
	batch    *Batch
	sources  [MaxPorts]source
	attached []PortID // The sources in use.
	polled   []PortID // Those of them with fd -1.
	// waiting is the sources that have more, or owe too much to be asked: they
	// have their turn in the next round whether or not epoll reports them. A
	// port may have frames that its descriptor doesn't tell of: datagrams that
	// it has received and not given yet. A source that control code has taken
	// out stays in it, without waits. spare is for the next round's.
	waiting, spare []PortID
	poll           poller
	clock          func() int64
	now            int64 // The clock, as it was last read.
	calls          chan call
	stop           bool

	rounds atomic.Uint64 // Turns of the loop.
}

// call is control code's request to run f between two ports' turns.
type call struct {
	f    func()
	done chan struct{}
}

// run is the life of a worker's thread: sleep until a port has frames, give
// each such port its turn, run what control code asks for.
//
// A port that becomes ready waits for one turn of each other that is ready or
// has more, at most: epoll returns maxEvents of them in the order in which they
// became ready, and puts those that still are at the end. A turn keeps the
// worker for a quantum and a batch. Control code waits for the turn that is
// under way and no other.
//
// A round of one small frame costs two system calls of the device, two looks at
// the clock (about 30 ns each) and an epoll_wait: syscall.Syscall, unlike
// RawSyscall, lets the garbage collector go on while it blocks, and costs 20 ns
// more.
func (w *worker) run() {
	for !w.stop {
		n := w.poll.wait(w.timeout())
		round := w.rounds.Load() + 1
		w.rounds.Store(round)
		w.now = w.clock()
		w.batch.Now = w.now
		waited := w.waiting
		w.waiting, w.spare = w.spare[:0], waited
		for i := range n {
			if id, hung := w.poll.event(i); id == 0 {
				w.poll.clearWake()
			} else {
				w.event(id, hung)
			}
			w.serve()
		}
		for _, id := range waited {
			if s := &w.sources[id]; s.waits && s.last != round {
				w.turn(id)
				w.serve()
			}
		}
		for i := 0; i < len(w.polled); i++ { // By index: serve may shorten it.
			if id := w.polled[i]; w.sources[id].last != round {
				w.turn(id)
				w.serve()
			}
		}
		w.serve()
	}
	for range drainRounds {
		if w.round(w.clock()) == 0 {
			return
		}
	}
}

// timeout is how long the worker may sleep, in milliseconds; -1 is until it is
// woken.
func (w *worker) timeout() int {
	switch {
	case len(w.waiting) > 0:
		return 0
	case len(w.polled) > 0:
		return pollInterval
	}
	return -1
}

// event gives a port its turn whose descriptor epoll has reported.
func (w *worker) event(id PortID, hung bool) {
	s := &w.sources[id]
	if s.waits {
		return // Its turn comes after those that have only begun to wait.
	}
	if w.turn(id) || !hung {
		s.dead = 0
		return
	}
	if s.dead++; s.dead == deadEvents {
		w.poll.remove(s.fd)
	}
}

// turn pulls from one port and pushes on for as long as it may, and tells
// whether it had something, or owes too much to be asked.
func (w *worker) turn(id PortID) bool {
	s := &w.sources[id]
	if s.port == nil {
		return false
	}
	round := w.rounds.Load()
	s.owed = max(0, s.owed-int64(min(round-s.last, maxOwed/quantum))*quantum)
	s.last = round
	frames, more := 0, true
	if s.owed < quantum {
		start := w.now
		frames, more = w.pull(id, s, start+quantum-s.owed)
		s.owed = min(s.owed+w.now-start, maxOwed)
	}
	if s.waits = more; more {
		w.waiting = append(w.waiting, id)
	}
	return more || frames > 0
}

// pull pulls from one port and pushes on until the clock shows the time end or
// the port has no more. It returns how many frames it was, and whether there
// is more.
func (w *worker) pull(id PortID, s *source, end int64) (frames int, more bool) {
	b := w.batch
	b.In = id
	for range pullsPerRound {
		b.Reset()
		b.Withheld = withheld(s.cost)
		s.port.Pull(b)
		if b.N > 0 {
			frames += b.N
			s.sink.Push(b)
		}
		began := w.now
		w.now = w.clock()
		if b.N > 0 {
			s.cost = max((w.now-began)/int64(b.N), s.cost/2)
		}
		if !b.More || w.now >= end {
			break
		}
	}
	return frames, b.More
}

// withheld returns Batch.Withheld for frames that take so long each: more frames
// than fit longBatch are none of a batch. A batch that was long once, because
// something else had the CPU, is made up for within a few.
func withheld(cost int64) int {
	if cost <= longBatch/BatchSize {
		return 0
	}
	return BatchSize - int(max(1, longBatch/cost))
}

// round gives every port its turn, whether or not it asked for it or owes.
func (w *worker) round(now int64) int {
	w.batch.Now = now
	frames := 0
	for _, id := range w.attached {
		n, _ := w.pull(id, &w.sources[id], w.now+quantum)
		frames += n
	}
	return frames
}

// serve runs what control code has asked for. It is called between any two
// turns, and costs 1 ns when there is nothing.
func (w *worker) serve() {
	if len(w.calls) == 0 {
		return
	}
	for len(w.calls) > 0 {
		c := <-w.calls
		c.f()
		close(c.done)
	}
	w.now = w.clock() // What it took is no port's.
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
	*s = source{port: port, sink: sink, fd: fd, last: w.rounds.Load()}
	return nil
}

// clear ends what set began. It empties the batch too: frames of the last Pull
// may lie in a ring that the port's Close unmaps, where a look at them would be
// the process's end.
func (w *worker) clear(id PortID) {
	s := &w.sources[id]
	if s.port == nil {
		return
	}
	w.batch.Reset()
	clear(w.batch.Frames[:])
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
	w := &worker{
		batch: NewBatch(index), clock: clock, calls: make(chan call, 1),
		waiting: make([]PortID, 0, MaxPorts), spare: make([]PortID, 0, MaxPorts),
	}
	if err := w.poll.open(); err != nil {
		return nil, err
	}
	return w, nil
}
