package dataplane

import (
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The fairness tests run a worker's real loop on a clock that stands still but
// for what ports' frames are said to cost, so that shares and waits come out
// the same on any machine.

// costly is a port that has frames of a given cost, and the sink of its own
// frames: a Push makes the clock go on.
type costly struct {
	fd    int
	cost  int64 // Nanoseconds that a frame takes.
	shape shape
	lab   *fairLab

	left     int // Frames that a hidden port still has.
	batches  []int
	turns    []turnOf
	counters *Counters
}

// shape is how a port's frames come.
type shape int

const (
	full   shape = iota // More than it can ever give, in full batches.
	sparse              // One each time that it is asked.
	nearly              // 63 each time, and then it is found empty.
	hidden              // As many as left, and its descriptor doesn't tell.
)

// turnOf is what a port was given in a round.
type turnOf struct {
	round      uint64
	begin, end int64
}

// fairLab is a worker with such ports. What it has belongs to the worker's
// thread until run returns.
type fairLab struct {
	e     *Engine
	now   int64
	end   int64 // When the last batch of run was pushed.
	ports []*costly
	// hook and after are called after each batch with how many there were.
	hook, after func(batches int)
	count       int
}

func newFairLab(t *testing.T) *fairLab {
	t.Helper()
	l := &fairLab{}
	e, err := NewEngine(Config{Workers: 1, Clock: func() int64 { return l.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	l.e = e
	return l
}

// add attaches a port. One with a descriptor has it readable for ever, but for
// a hidden one, whose first Pull empties it.
func (l *fairLab) add(t *testing.T, s shape, cost int64, descriptor bool) *costly {
	t.Helper()
	p := &costly{fd: -1, cost: cost, shape: s, lab: l, counters: NewCounters(1)}
	if descriptor {
		pipe := newPipePort(t)
		p.fd = pipe.near
		pipe.send(t, 0, 1)
	}
	l.ports = append(l.ports, p)
	attach(t, l.e, PortID(len(l.ports)), p, p)
	return p
}

// run lets the worker go on until it has pushed so many batches.
func (l *fairLab) run(t *testing.T, batches int) {
	t.Helper()
	done := make(chan struct{})
	l.after = func(n int) {
		switch {
		case n == batches:
			l.end = l.now
			close(done)
		case n > batches: // Until Stop: nothing is left to see.
			for _, p := range l.ports {
				p.shape, p.left = hidden, 0
			}
		}
	}
	if err := l.e.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the worker stands still")
	}
	l.e.Stop()
	l.after, l.hook = nil, nil
}

func (p *costly) Pull(b *Batch) {
	n := BatchSize
	switch p.shape {
	case sparse:
		n = 1
	case nearly:
		n = BatchSize - 1
	case hidden:
		n = max(0, min(p.left, BatchSize))
		var b [1]byte
		_, _ = syscall.Read(p.fd, b[:]) // Afterwards the descriptor is silent.
	}
	for range n {
		if b.Full() {
			break
		}
		*b.Next() = Frame{Len: 60}
		b.Add()
		p.left--
	}
	b.More = b.Full() && p.shape != sparse
}

func (p *costly) Push(b *Batch) {
	round, begin := p.lab.e.Rounds(), p.lab.now
	p.lab.now += int64(b.N) * p.cost
	p.batches = append(p.batches, b.N)
	if n := len(p.turns); n > 0 && p.turns[n-1].round == round {
		p.turns[n-1].end = p.lab.now
	} else {
		p.turns = append(p.turns, turnOf{round, begin, p.lab.now})
	}
	p.lab.count++
	if p.lab.hook != nil {
		p.lab.hook(p.lab.count)
	}
	if p.lab.after != nil {
		p.lab.after(p.lab.count)
	}
}

func (p *costly) FD(int) int          { return p.fd }
func (p *costly) Counters() *Counters { return p.counters }
func (p *costly) Close() error        { return nil }

// longest is how long the port's longest batch takes, once its cost is known.
func (p *costly) longest() int64 {
	return max(min(BatchSize*p.cost, longBatch), p.cost)
}

// time is how long the port kept the worker between two moments.
func (p *costly) time(from, to int64) (sum int64) {
	for _, t := range p.turns {
		sum += max(0, min(t.end, to)-max(t.begin, from))
	}
	return sum
}

// Ports that always have frames get equal times, whatever a frame of theirs
// costs and however they are waited for, and one that has a frame now and then
// waits for one turn of each at most. The costs are of a 60 B frame from TAP to
// TAP, 64 KB from TAP to TAP, 60 B to 100 ports and 60 B to 1,000 ports.
func TestSharesAreOfTimeAndEqual(t *testing.T) {
	const small, super, hundred, thousand = 2_000, 10_000, 120_000, 1_200_000
	for _, tt := range []struct {
		name  string
		costs []int64
		shape shape
	}{
		{"alike", []int64{small, small, small}, full},
		{"a small and a large one", []int64{small, super}, full},
		{"a flood to 100 ports", []int64{small, small, hundred}, full},
		{"a flood to 1,000 ports", []int64{small, super, thousand}, full},
		{"batches that end in an empty queue", []int64{small, super, hundred}, nearly},
		{"200", slices.Repeat([]int64{small}, 200), full},
		{"many", []int64{small, small, small, small, small, small, small, small, small, super, super, hundred}, full},
	} {
		for _, descriptors := range []string{"descriptors", "polled", "mixed"} {
			t.Run(tt.name+", "+descriptors, func(t *testing.T) {
				l := newFairLab(t)
				for i, c := range tt.costs {
					l.add(t, tt.shape, c, descriptors == "descriptors" || descriptors == "mixed" && i%2 == 0)
				}
				quiet := l.add(t, sparse, small, descriptors != "polled")
				l.run(t, 6000)
				l.check(t, quiet)
			})
		}
	}
}

// check holds what the worker did against what it promises.
func (l *fairLab) check(t *testing.T, quiet *costly) {
	t.Helper()
	// The first rounds are for finding out what frames cost.
	from, to := l.end/2, l.end
	wait, slack := int64(0), int64(0)
	for _, p := range l.ports {
		if p != quiet {
			wait += quantum + p.longest()
			slack = max(slack, 2*quantum+2*p.longest())
		}
	}
	var least, most int64
	for i, p := range l.ports {
		if p == quiet {
			continue
		}
		had := p.time(from, to)
		if i == 0 {
			least, most = had, had
		}
		least, most = min(least, had), max(most, had)
	}
	if most-least > slack {
		t.Errorf("the ports had between %d and %d µs, which is more than %d apart", least/1000, most/1000, slack/1000)
	}
	last, waited := from, int64(0)
	for _, turn := range quiet.turns {
		if turn.begin >= from {
			waited = max(waited, turn.begin-last)
			last = turn.end
		}
	}
	if waited = max(waited, to-last); waited > wait {
		t.Errorf("the quiet port waited for %d µs, which is more than %d", waited/1000, wait/1000)
	}
	share := func(had int64) float64 { return 100 * float64(had) / float64(to-from) }
	t.Logf("shares of %.1f to %.1f%%; the quiet port waited for %d µs, the bound is %d", share(least), share(most), waited/1000, wait/1000)
}

// Epoll returns some of the ports that are ready, and others the next time: none
// has a second turn before all have had one.
func TestMoreReadyPortsThanEpollReturns(t *testing.T) {
	l := newFairLab(t)
	const ports = maxEvents + 5
	for range ports {
		l.add(t, sparse, 2000, true)
	}
	l.run(t, 20*ports)
	for i, p := range l.ports {
		if n := len(p.turns); n < 19 || n > 22 {
			t.Errorf("port %d had %d turns of 20", i+1, n)
		}
	}
}

// A tunnel's datagrams hold many frames each: it may have more of them than a
// turn gives when its socket is empty.
func TestWhatAPortStillHasIsPulledWithoutItsDescriptor(t *testing.T) {
	l := newFairLab(t)
	p := l.add(t, hidden, 100, true)
	const batches = 5*pullsPerRound + 3
	p.left = batches * BatchSize
	l.run(t, batches)
	if p.left != 0 {
		t.Errorf("%d frames were left behind", p.left)
	}
}

// Frames of long work come in batches that are short enough, down to one frame,
// and in full ones again soon after.
func TestFramesOfLongWorkComeInSmallBatches(t *testing.T) {
	for _, tt := range []struct {
		cost int64
		want int
	}{
		{1, BatchSize}, {longBatch / BatchSize, BatchSize}, {10_000, 25}, {120_000, 2}, {longBatch, 1}, {1_200_000, 1}, {1 << 40, 1},
	} {
		l := newFairLab(t)
		p := l.add(t, full, tt.cost, false)
		l.run(t, 10)
		if got := p.batches[9]; got != tt.want {
			t.Errorf("frames of %d ns come %d at a time, want %d", tt.cost, got, tt.want)
		}
	}
	l := newFairLab(t)
	p := l.add(t, full, 1_200_000, false)
	l.run(t, 10)
	p.shape, p.cost, p.batches = full, 2000, nil
	for len(p.batches) < 10 {
		l.drive()
	}
	if got := p.batches[9]; got != BatchSize {
		t.Errorf("9 batches after its frames became short work, one is of %d", got)
	}
}

// drive gives the first port a turn in a round of its own, once run has ended.
func (l *fairLab) drive() {
	w := l.e.workers[0]
	w.rounds.Store(w.rounds.Load() + 1)
	w.turn(1)
}

// A worker that stood still (a machine that was suspended) charges that to a
// port, but not for long.
func TestAPortPaysForALongTurnInBoundedTime(t *testing.T) {
	l := newFairLab(t)
	p := l.add(t, full, 2000, false)
	l.run(t, 1)
	p.shape, p.cost, p.batches = full, int64(time.Hour), nil
	for len(p.batches) == 0 {
		l.drive()
	}
	p.cost = 2000
	rounds := 0
	for ; len(p.batches) < 2 && rounds < 2*maxOwed/quantum; rounds++ {
		l.drive()
	}
	if rounds != maxOwed/quantum {
		t.Errorf("its next turn was after %d rounds, want %d", rounds, maxOwed/quantum)
	}
}

// What control code wants done waits for the turn that is under way and for no
// other, however many ports have more.
func TestControlWaitsForOneTurn(t *testing.T) {
	l := newFairLab(t)
	for i := range 100 {
		l.add(t, full, 2000, i%2 == 0)
	}
	const asked = 500
	done := make(chan int, 1)
	begun, first := make(chan struct{}), 0
	l.hook = func(batches int) {
		if batches == asked {
			first = batches
			go func() {
				close(begun)
				l.e.Do(func(int) { done <- l.count })
			}()
			<-begun
			for len(l.e.workers[0].calls) == 0 {
				runtime.Gosched()
			}
		}
	}
	l.run(t, 1000)
	if after := <-done - first; after >= pullsPerRound {
		t.Errorf("it had to wait for %d batches of 64 frames, which are more than one turn", after)
	}
}

// A turn allocates nothing, nor does a port that waits for the next.
func TestWaitingAllocatesNothing(t *testing.T) {
	l := newFairLab(t)
	p := l.add(t, full, 2000, false)
	l.run(t, 1)
	p.shape = full
	p.batches, p.turns = make([]int, 0, 10000), make([]turnOf, 0, 10000)
	if n := testing.AllocsPerRun(500, func() {
		l.e.workers[0].waiting = l.e.workers[0].waiting[:0]
		l.drive()
	}); n != 0 {
		t.Errorf("a turn allocates %v times", n)
	}
}
