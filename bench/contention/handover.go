package main

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"heddle/dataplane"
)

// handover measures what it takes a lock to go from one CPU to another, but for
// the lines that come with it.
func handover(d time.Duration) Handover {
	const long = 200 * time.Microsecond // Nobody looks for so long.
	h := Handover{Transfer: transfer(d), Looks: dataplane.MutexLooks, Wake: float64(late(long))}
	// Who waits for less than some time looks on, who waits for longer sleeps.
	looks, sleeps := 400*time.Nanosecond, long
	for sleeps-looks > looks/16 {
		hold := time.Duration(math.Sqrt(float64(looks) * float64(sleeps)))
		if float64(late(hold)) < h.Wake/2 {
			looks = hold
		} else {
			sleeps = hold
		}
	}
	h.Look = float64(sleeps) / dataplane.MutexLooks
	return h
}

// medianOf returns the medians of what was measured several times.
func medianOf(all []Handover) Handover {
	of := func(field func(Handover) float64) float64 {
		var values []float64
		for _, h := range all {
			values = append(values, field(h))
		}
		return median(values)
	}
	return Handover{
		Transfer: of(func(h Handover) float64 { return h.Transfer }),
		Look:     of(func(h Handover) float64 { return h.Look }), Looks: all[0].Looks,
		Wake: of(func(h Handover) float64 { return h.Wake }),
	}
}

// late is how long after a dataplane.Mutex became free one has it who began to wait
// when it had still been held for some time.
func late(hold time.Duration) time.Duration {
	const times = 51
	var all [times]float64
	var mu dataplane.Mutex
	var freed time.Time // Guarded by mu.
	var turn atomic.Int64
	var both sync.WaitGroup
	both.Go(func() {
		runtime.LockOSThread()
		pin(0)
		for i := range int64(times) {
			mu.Lock()
			turn.Store(2*i + 1)
			for begin := time.Now(); time.Since(begin) < hold; {
				continue
			}
			freed = time.Now()
			mu.Unlock()
			for turn.Load() != 2*i+2 {
				continue
			}
		}
	})
	both.Go(func() {
		runtime.LockOSThread()
		pin(1 % runtime.NumCPU())
		for i := range int64(times) {
			for turn.Load() != 2*i+1 {
				continue
			}
			mu.Lock()
			all[i] = float64(time.Since(freed))
			mu.Unlock()
			turn.Store(2*i + 2)
		}
	})
	both.Wait()
	return time.Duration(median(all[:]))
}

// transfer is what it takes a cache line to go from one CPU to another, in
// nanoseconds: half of a round trip of a word that two threads write in turns.
func transfer(d time.Duration) float64 {
	var word [2 * 128 / 8]atomic.Uint64
	turn := &word[16]
	var all sync.WaitGroup
	var trips uint64
	start := time.Now()
	var stop atomic.Bool
	for w := range uint64(2) {
		all.Go(func() {
			runtime.LockOSThread()
			pin(int(w) % runtime.NumCPU())
			for spins := 0; ; spins++ {
				if v := turn.Load(); v%2 == w {
					turn.Store(v + 1)
					spins = 0
				} else if spins > 1<<14 {
					if stop.Load() {
						return
					}
					runtime.Gosched() // The other has no CPU.
				}
				if w == 0 && turn.Load()&1023 == 1 && time.Since(start) > d {
					stop.Store(true)
					trips = turn.Load() / 2
					return
				}
			}
		})
	}
	all.Wait()
	return float64(time.Since(start)) / float64(max(trips, 1)) / 2
}
