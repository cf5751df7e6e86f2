package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Cost is what a path costs in batches of so many frames. Slices have an element
// for each round: in a round all paths are measured once, one worker and two in
// turns, so that what changes on the machine meets both.
type Cost struct {
	Path   string `json:"path"`
	Frames int    `json:"frames"` // In a batch.
	// One and Two are frames a second of one and of two workers.
	One []float64 `json:"one_frames_per_second"`
	Two []float64 `json:"two_frames_per_second"`
	// Locked is for how many nanoseconds of a batch NAT's lock is held: what a batch
	// takes longer than by the switch alone in that round. Empty where there is none.
	Locked []float64 `json:"locked_ns"`
	// Simulated is Two as the simulation has it.
	Simulated float64 `json:"simulated_two_frames_per_second"`
}

// batch is what a batch takes one worker, in nanoseconds.
func (c *Cost) batch() float64 { return float64(c.Frames) * 1e9 / median(c.One) }

// hold is for how long of that the lock is held.
func (c *Cost) hold() float64 {
	if len(c.Locked) == 0 {
		return 0
	}
	return min(median(c.Locked), c.batch())
}

// ratios are two workers' frames against one's, in each round.
func (c *Cost) ratios() []float64 {
	all := make([]float64, len(c.Two))
	for i := range all {
		all[i] = c.Two[i] / c.One[i]
	}
	return all
}

// median returns the middle of values, the lower one of two; there is one at
// least.
func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}

// round measures everything once, each figure for d.
func (c *Cost) round(number int, d time.Duration) error {
	for i := range 2 {
		workers := 1 + (number+i)%2
		rate, err := together(c.Path, workers, c.Frames, number, d)
		if err != nil {
			return err
		}
		if workers == 1 {
			c.One = append(c.One, rate)
		} else {
			c.Two = append(c.Two, rate)
		}
	}
	return nil
}

// against enters the last round of the switch alone: all that NAT adds to it, but
// for a few nanoseconds a batch, it does under its lock.
func (c *Cost) against(alone *Cost) {
	last := len(c.One) - 1
	c.Locked = append(c.Locked, max(0, float64(c.Frames)*1e9*(1/c.One[last]-1/alone.One[last])))
}

// together is frames a second that workers push at the same time for d, each
// pinned to a CPU of its own, the first of them to that of the number; counted
// at the end of the path.
func together(name string, workers, frames, cpu int, d time.Duration) (float64, error) {
	p, err := newPath(name, 2, frames)
	if err != nil {
		return 0, err
	}
	var stop atomic.Bool
	var all, ready sync.WaitGroup
	begin := make(chan struct{})
	for w := range workers {
		ready.Add(1)
		all.Go(func() {
			runtime.LockOSThread() // Never unlocked: its CPU is nobody else's.
			pin((cpu + w) % runtime.NumCPU())
			p.push(w)
			ready.Done()
			<-begin
			for !stop.Load() {
				for range 64 {
					p.push(w)
				}
			}
		})
	}
	ready.Wait()
	start, had := time.Now(), p.out.Totals().TxFrames
	close(begin)
	const most = 10 * time.Second // For a machine that is busy with something else.
	var got uint64
	var took time.Duration
	for got == 0 && took < most {
		<-time.After(d)
		got, took = p.out.Totals().TxFrames-had, time.Since(start)
	}
	stop.Store(true)
	all.Wait()
	if got == 0 {
		return 0, fmt.Errorf("path %s: nothing got through", name)
	}
	return float64(got) / took.Seconds(), nil
}

// pin ties the calling thread to a CPU if it may (sched_setaffinity(2)): a
// figure of threads that float is worth less and not wrong.
func pin(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// What the system calls of TAP to TAP cost a worker for a frame of 60 B, in
// nanoseconds: measured on a running swd, and in docs/PERFORMANCE.md.
const (
	// aroundMany is in batches of 64, by io_uring: "60 bytes, TAP to TAP" has
	// 2.89 µs, of which 0.08 are Heddle's own (Pull, switch, Push).
	aroundMany = 2_810
	// aroundOne is of a frame that comes alone and mostly finds the worker asleep,
	// 20,000 a second: "Workers" has 13.3 µs, of which 0.1 are Heddle's own.
	aroundOne = 13_200
)

// around is what a batch costs a worker beside what is measured here; 0 if that
// isn't known.
func around(frames int) float64 {
	switch frames {
	case 1:
		return aroundOne
	case dataplane.BatchSize:
		return aroundMany * dataplane.BatchSize
	}
	return 0
}
