package main

import (
	"container/heap"
	"math/rand/v2"
)

// Model is workers that share one lock, and nothing else that is written. Without
// Hold there is no lock, and what N do is N times what one does by construction.
//
// Each works on a batch of its own for Private, takes the lock, holds it for
// Hold, and begins again. Private varies as the sum of Stages exponential times,
// Hold is constant: the same work on the same number of frames. A lock, and what
// it guards, that another worker had last takes the time of its cache lines more.
// Who finds the lock taken does as dataplane.Mutex does: looks again for a while, which
// takes the lock's line from who holds it, and then sleeps. Whoever unlocks wakes
// the one that has slept longest, unless somebody is looking or on its way; it is
// there after Wake, may find that somebody else was faster, and looks again. The
// mutex's starvation mode, for who has waited 1 ms, is left out.
//
// Times are nanoseconds.
type Model struct {
	Private  float64
	Stages   int // 0: Private doesn't vary.
	Hold     float64
	Handover Handover
	// Locks is how many locks there are; worker i takes number i%Locks. 0 is
	// one for all. With as many as workers nobody meets anybody.
	Locks int
}

// Handover is what it takes a lock to go from one worker to another.
type Handover struct {
	// Lines is the cache lines that come with it, at Transfer each.
	Lines    float64 `json:"lines"`
	Transfer float64 `json:"transfer_ns"`
	// Who waits looks Looks times, every Look nanoseconds. Who sleeps is back Wake
	// after the lock became free.
	Look  float64 `json:"look_ns"`
	Looks int     `json:"looks"`
	Wake  float64 `json:"wake_ns"`
}

// Outcome is what came of a simulation.
type Outcome struct {
	// PerSecond is batches a second, of all workers.
	PerSecond float64
	// Busy is the share of the time that a lock was held, Waited the share of
	// the workers' time that they waited for it.
	Busy, Waited float64
}

// what happens at an event.
const (
	asks    = iota // A worker has done its own work.
	looks          // It looks again whether the lock is free.
	wakes          // It has slept.
	unlocks        // It has done what the lock is for,
	frees          // and the lock is free.
)

type event struct {
	at     float64
	number int // In the order of making, so that equal times have an order.
	kind   int
	worker int
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, k int) bool {
	return a[i].at < a[k].at || a[i].at == a[k].at && a[i].number < a[k].number
}
func (a agenda) Swap(i, k int) { a[i], a[k] = a[k], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

// lock is a mutex of the simulation.
type lock struct {
	taken    bool
	owner    int   // The last one, -1 before the first.
	looking  int   // Workers that look.
	seen     bool  // One has looked since it was taken.
	waking   bool  // One is on its way.
	sleeping []int // Workers, the one to wake first in front.
}

// simulation is one run of a Model.
type simulation struct {
	Model
	rand   *rand.Rand
	events agenda
	made   int
	now    float64
	locks  []lock

	looked []int     // By worker: how often, since it last slept or had the lock.
	asked  []float64 // By worker: since when it wants the lock.
	done   int
	held   float64
	waited float64
}

// Simulate runs workers until they have done so many batches between them, after
// a tenth as many that don't count. The same seed gives the same outcome.
func (m Model) Simulate(workers, batches int, seed uint64) Outcome {
	s := &simulation{Model: m, rand: rand.New(rand.NewPCG(seed, uint64(workers))), looked: make([]int, workers), asked: make([]float64, workers)}
	s.locks = make([]lock, max(1, m.Locks))
	for i := range s.locks {
		s.locks[i].owner = -1
	}
	for w := range workers {
		s.add(s.private()*s.rand.Float64(), asks, w)
	}
	began := 0.0
	for warm := batches / 10; s.done < warm+batches; {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		was := s.done
		s.happen(e)
		if s.done == warm && was < warm {
			began, s.held, s.waited = s.now, 0, 0
		}
	}
	took := s.now - began
	return Outcome{
		PerSecond: float64(batches) / took * 1e9,
		Busy:      s.held / took / float64(len(s.locks)),
		Waited:    s.waited / took / float64(workers),
	}
}

func (s *simulation) add(after float64, kind, worker int) {
	s.made++
	heap.Push(&s.events, event{s.now + after, s.made, kind, worker})
}

// private returns how long a batch takes that needs no lock.
func (s *simulation) private() float64 {
	if s.Stages == 0 {
		return s.Private
	}
	sum := 0.0
	for range s.Stages {
		sum += s.rand.ExpFloat64()
	}
	return s.Private * sum / float64(s.Stages)
}

func (s *simulation) happen(e event) {
	w, l := e.worker, &s.locks[e.worker%len(s.locks)]
	switch e.kind {
	case asks:
		if s.Hold == 0 {
			s.done++
			s.add(s.private(), asks, w)
			return
		}
		s.asked[w] = s.now
		s.try(w, l)
	case looks:
		l.looking--
		s.try(w, l)
	case wakes:
		l.waking = false
		s.try(w, l)
	case unlocks:
		back := 0.0
		if l.seen { // The lock's line has to come back.
			back = s.Handover.Transfer
		}
		s.held += back
		s.add(back, frees, w)
	case frees:
		s.done++
		l.taken = false
		s.add(s.private(), asks, w)
		if len(l.sleeping) > 0 && l.looking == 0 && !l.waking {
			l.waking = true
			s.add(s.Handover.Wake, wakes, l.sleeping[0])
			l.sleeping = l.sleeping[1:]
		}
	}
}

// try has a worker take the lock, or look again, or sleep.
func (s *simulation) try(w int, l *lock) {
	switch {
	case !l.taken:
		s.take(w, l)
	case s.looked[w] < s.Handover.Looks:
		s.looked[w]++
		l.looking++
		l.seen = true
		s.add(s.Handover.Look, looks, w)
	default:
		s.looked[w] = 0
		l.sleeping = append(l.sleeping, w)
	}
}

func (s *simulation) take(w int, l *lock) {
	hold := s.Hold
	if l.owner != w && l.owner >= 0 {
		hold += s.Handover.Lines * s.Handover.Transfer
	}
	l.taken, l.seen, l.owner, s.looked[w] = true, false, w, 0
	s.waited += s.now - s.asked[w]
	s.held += hold
	s.add(hold, unlocks, w)
}
