package main

import (
	"container/heap"
	"math/rand/v2"
)

// Model is workers that share one lock, and nothing else that is written.
//
// Each works on a batch of its own for Private, takes the lock, holds it for
// Hold, and begins again. Private varies as the sum of Stages exponential times,
// Hold is constant: the same work on the same number of frames. Who finds the
// lock taken spins as sync.Mutex does, and after Spin sleeps; whoever unlocks
// wakes the one that has slept longest, which tries again after Wake and may
// find that somebody else was faster. A lock and what it guards that another
// worker had last come by Lines cache lines, at Transfer each, of which the
// first few nanoseconds of a hold consist.
//
// Times are nanoseconds.
type Model struct {
	Private  float64
	Stages   int // 0: Private doesn't vary.
	Hold     float64
	Lines    float64
	Transfer float64
	Spin     float64
	Wake     float64
	// Locks is how many locks there are; worker i takes number i%Locks. 0 is
	// one for all. With as many as workers nobody meets anybody.
	Locks int
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
	unlocks        // It has done what the lock is for.
	tires          // It has spun for long enough.
	retries        // It was woken.
)

type event struct {
	at     float64
	number int // In the order of making, so that equal times have an order.
	kind   int
	worker int
	spell  int // Valid for tires: which time of spinning is meant.
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
	spinning []int // Workers, the one that began first in front.
	sleeping []int
}

// simulation is one run of a Model.
type simulation struct {
	Model
	rand   *rand.Rand
	events agenda
	made   int
	now    float64
	locks  []lock

	spell  []int     // By worker: counts its times of spinning.
	asked  []float64 // By worker: since when it wants the lock.
	done   int
	held   float64
	waited float64
}

// Simulate runs workers until they have done so many batches between them, after
// a tenth as many that don't count. The same seed gives the same outcome.
func (m Model) Simulate(workers, batches int, seed uint64) Outcome {
	s := &simulation{Model: m, rand: rand.New(rand.NewPCG(seed, uint64(workers))), spell: make([]int, workers), asked: make([]float64, workers)}
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
	heap.Push(&s.events, event{s.now + after, s.made, kind, worker, s.spell[worker]})
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
		s.asked[w] = s.now
		s.try(w, l)
	case retries:
		s.try(w, l)
	case tires:
		for i, x := range l.spinning {
			if x == w && s.spell[w] == e.spell {
				l.spinning = append(l.spinning[:i:i], l.spinning[i+1:]...)
				l.sleeping = append(l.sleeping, w)
				break
			}
		}
	case unlocks:
		s.done++
		l.taken = false
		s.add(s.private(), asks, w)
		if len(l.spinning) > 0 {
			next := l.spinning[0]
			l.spinning = l.spinning[1:]
			s.take(next, l)
		} else if len(l.sleeping) > 0 {
			next := l.sleeping[0]
			l.sleeping = l.sleeping[1:]
			s.add(s.Wake, retries, next)
		}
	}
}

// try has a worker take the lock, or spin for it.
func (s *simulation) try(w int, l *lock) {
	if !l.taken {
		s.take(w, l)
		return
	}
	s.spell[w]++
	l.spinning = append(l.spinning, w)
	s.add(s.Spin, tires, w)
}

func (s *simulation) take(w int, l *lock) {
	hold := s.Hold
	if l.owner != w && l.owner >= 0 {
		hold += s.Lines * s.Transfer
	}
	l.taken, l.owner = true, w
	s.waited += s.now - s.asked[w]
	s.held += hold
	s.add(hold, unlocks, w)
}
