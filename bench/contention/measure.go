package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"heddle/dataplane"
)

// runs is how often each figure is measured; it is the median.
const runs = 5

// Cost is what a batch costs on a path, in nanoseconds.
type Cost struct {
	Path   string `json:"path"`
	Frames int    `json:"frames"` // In a batch.
	// Batch is one worker's CPU time for a batch, Locked that part of it for
	// which NAT's lock is held.
	Batch  float64 `json:"batch_ns"`
	Locked float64 `json:"locked_ns"`
	// One and Two are frames a second of one and of two workers at once, as
	// measured. Two is 0 on a machine with one core.
	One float64 `json:"one_frames_per_second"`
	Two float64 `json:"two_frames_per_second"`
}

// cpuTime is the calling thread's CPU time (CLOCK_THREAD_CPUTIME_ID): what
// other processes on the machine take isn't in it.
func cpuTime() time.Duration {
	var ts syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// median measures several times and returns the middle one.
func median(measure func() (float64, error)) (float64, error) {
	var all []float64
	for range runs {
		v, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, v)
	}
	slices.Sort(all)
	return all[runs/2], nil
}

// perCall is the CPU time in nanoseconds that a call of f takes, of calls for d.
func perCall(d time.Duration, f func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const chunk = 256
	n, begin := 0, cpuTime()
	for cpuTime()-begin < d {
		for range chunk {
			f()
		}
		n += chunk
	}
	return float64(cpuTime()-begin) / float64(n)
}

// measure takes a path's costs; each figure takes runs times d.
func measure(name string, frames int, d time.Duration) (Cost, error) {
	c := Cost{Path: name, Frames: frames}
	p, err := newPath(name, 1, frames)
	if err != nil {
		return c, err
	}
	timed := func(f func(int)) float64 {
		v, _ := median(func() (float64, error) { return perCall(d, func() { f(0) }), nil })
		return v
	}
	p.push(0) // The first makes connections.
	c.Batch = timed(p.push)
	if p.gate != nil {
		// What Gateway.Push does beside holding the lock is to push to a port that
		// only counts: 2 ns a frame.
		c.Locked = max(0, timed(p.pushGate)-timed(p.pull)-2*float64(frames))
	}
	if c.One, err = median(func() (float64, error) { return together(name, 1, frames, d) }); err != nil {
		return c, err
	}
	if runtime.NumCPU() > 1 {
		c.Two, err = median(func() (float64, error) { return together(name, 2, frames, d) })
	}
	return c, err
}

// together is frames a second that workers push at the same time for d, each
// pinned to a core of its own, counted at the end of the path.
func together(name string, workers, frames int, d time.Duration) (float64, error) {
	p, err := newPath(name, workers, frames)
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
			pin(w)
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
	var set [1024 / 64]uint64
	set[cpu/64] = 1 << (cpu % 64)
	_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
}

// transfer is what it takes a cache line to go from one core to another, in
// nanoseconds: half of a round trip of a word that two threads write in turns.
// It is 0 on a machine with one core.
func transfer(d time.Duration) float64 {
	if runtime.NumCPU() < 2 {
		return 0
	}
	var word [2 * 128 / 8]atomic.Uint64
	turn := &word[16]
	var all sync.WaitGroup
	var trips uint64
	start := time.Now()
	var stop atomic.Bool
	for w := range uint64(2) {
		all.Go(func() {
			runtime.LockOSThread()
			pin(int(w))
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

// around is what a frame of 64 B from TAP to TAP costs a worker beside what is
// measured here, in batches of so many frames. The system calls are 0.8 µs to
// read and 1.2 µs to write (package tap); a batch has a read that finds nothing,
// an epoll_wait and two looks at the clock, and one of few frames a wake-up.
func around(frames int) float64 {
	const read, write, round, wakeUp = 800, 1200, 900, 3000
	io := float64(frames*(read+write) + round)
	if frames < dataplane.BatchSize/4 {
		io += wakeUp
	}
	return io
}
