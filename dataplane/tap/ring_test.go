package tap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// newRings makes rings that end with the test; of what uses them, openIn
// deletes the ports before.
func newRings(t *lab.T, workers int) *Rings {
	t.Helper()
	r, err := NewRings(workers)
	t.NoError(err)
	t.Cleanup(func() { t.NoError(r.Close()) })
	return r
}

// TestRingKeepsOrderAndContent carries bursts of every length, large frames
// among some of them, through two ports of a ring:
//
//	test ── AF_PACKET on a ── port a ── Pull, Push ── port b ── AF_PACKET on b ── test
func TestRingKeepsOrderAndContent(t *testing.T) {
	l := lab.New(t)
	rings := newRings(l, 1)
	ns := quiet(l, "a")
	a := openIn(l, ns, Config{Name: "a", Rings: rings})
	b := openIn(l, ns, Config{Name: "b", Rings: rings})
	in, out := openSocket(l, ns, "a"), openSocket(l, ns, "b")
	l.NoError(unix.SetsockoptInt(out.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)) // For a batch of large ones.
	rnd := rand.New(rand.NewPCG(1, 2))
	batch := dataplane.NewBatch(0)
	number := 0
	for burst := range 2*dataplane.BatchSize + 5 {
		sent := make([]frame, burst)
		for i := range sent {
			sent[i] = frame{data: plain(60+rnd.IntN(1400), number)}
			if burst%3 == 0 && rnd.IntN(8) == 0 {
				sent[i] = transport(wire.ProtoTCP, uint16(number), 2, 2000+rnd.IntN(60000)).gso(wire.VNetGSOTCP4, 1400)
			}
			number++
			l.NoError(in.send(sent[i].data, sent[i].owes))
		}
		for len(sent) > 0 {
			batch.Reset()
			if a.Pull(batch); batch.N == 0 || batch.N > len(sent) {
				t.Fatalf("burst of %d: pulled %d with %d on their way", burst, batch.N, len(sent))
			}
			b.Push(batch)
			for range batch.N {
				got, owes, err := out.receive()
				l.NoError(err)
				if !bytes.Equal(got, sent[0].data) || owes.GSOSize != sent[0].owes.GSOSize {
					t.Fatalf("burst of %d: %d frames before the last another one arrived", burst, len(sent))
				}
				sent = sent[1:]
			}
		}
		batch.Reset()
		if a.Pull(batch); batch.N != 0 || batch.More {
			t.Fatalf("burst of %d: %d frames more than were sent, More %v", burst, batch.N, batch.More)
		}
	}
	if rx, tx := a.Counters().Totals(), b.Counters().Totals(); rx.RxFrames != uint64(number) || tx.TxFrames != uint64(number) {
		t.Errorf("%d frames counted in and %d out, want %d", rx.RxFrames, tx.TxFrames, number)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	l.NoError(err)
	for _, task := range tasks {
		name, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/comm")
		if strings.HasPrefix(string(name), "iou-") {
			t.Errorf("the kernel has made a thread for the ring: %s", name)
		}
	}
}

// Large frames right behind small ones, for which the ring has begun, are more than
// PullBytes by one call's at most.
func TestRingBoundsWhatOnePullTakes(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Rings: newRings(l, 1)})
	s := openSocket(l, ns, "t0")
	const large = 40
	l.NoError(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*large*dataplane.MaxFrame))
	b := dataplane.NewBatch(0)
	for small := range 30 {
		for i := range small {
			l.NoError(s.send(plain(60, i), wire.VNetHdr{}))
		}
		super := transport(wire.ProtoTCP, 1, 2, 64000).gso(wire.VNetGSOTCP4, 1400)
		for range large {
			l.NoError(s.send(super.data, super.owes))
		}
		frames, pulls, most := 0, 0, 0
		for b.More = true; b.More; pulls++ {
			b.Reset()
			p.Pull(b)
			frames, most = frames+b.N, max(most, b.Bytes)
		}
		if frames != small+large || pulls < 3 || most > dataplane.PullBytes+ringReads*dataplane.MaxFrame {
			t.Errorf("%d small frames and %d large ones: %d frames by %d Pulls, of which one gave %d bytes", small, large, frames, pulls, most)
		}
	}
}

func TestRingCountsEachFramesFate(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Rings: newRings(l, 1)})
	s := openSocket(l, ns, "t0")
	good := frame{data: plain(60, 1)}
	short := frame{data: plain(14, 1)[:13]}
	want := func(when string, sent uint64, drops map[dataplane.Drop]uint64) {
		t.Helper()
		c := p.Counters().Totals()
		if c.TxFrames != sent || c.TxBytes != 60*sent {
			t.Errorf("%s: %d frames and %d bytes sent, want %d and %d", when, c.TxFrames, c.TxBytes, sent, 60*sent)
		}
		for d, n := range drops {
			if c.Drops[d] != n {
				t.Errorf("%s: %v counted %d times, want %d", when, d, c.Drops[d], n)
			}
		}
	}
	p.Push(batchOf(0, good, short, good, good, short, good))
	want("two too short", 4, map[dataplane.Drop]uint64{dataplane.TxRefused: 2})
	for range 4 {
		_, _, err := s.receive()
		l.NoError(err)
	}
	l.NoError(ns.SetUp("t0", false))
	p.Push(batchOf(0, good, good, good, good, good))
	want("link down", 4, map[dataplane.Drop]uint64{dataplane.TxRefused: 2, dataplane.TxDown: 5})
	l.NoError(ns.SetUp("t0", true))
	some := batchOf(0, good, good, good, good, good, good)
	some.Sel = 0b110110
	p.Push(some)
	want("link up again, four of six selected", 8, map[dataplane.Drop]uint64{dataplane.TxRefused: 2, dataplane.TxDown: 5})
	l.NoError(ns.DeleteLink("t0"))
	p.Push(batchOf(0, good, good, good, good))
	want("device gone", 8, map[dataplane.Drop]uint64{dataplane.TxRefused: 2, dataplane.TxDown: 9})
	b := dataplane.NewBatch(0)
	if p.Pull(b); b.N != 0 || b.More {
		t.Errorf("a device that is gone gave %d frames, More %v", b.N, b.More)
	}
}

// TestRingThatRefuses has io_uring_enter fail: frames go one by one.
func TestRingThatRefuses(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Rings: newRings(l, 1)})
	s := openSocket(l, ns, "t0")
	r := p.queues[0].ring
	fd := r.fd
	b := dataplane.NewBatch(0)
	for round, fdNow := range []int{fd, -1, fd} {
		r.fd = fdNow
		for i := range 20 {
			l.NoError(s.send(plain(60, i), wire.VNetHdr{}))
		}
		b.Reset()
		if p.Pull(b); b.N != 20 || b.More {
			t.Errorf("round %d: pulled %d, More %v; want 20", round, b.N, b.More)
		}
		p.Push(b)
		for i := range b.N {
			got, _, err := s.receive()
			l.NoError(err)
			if got[20] != byte(i) {
				t.Errorf("round %d: frame %d arrived as number %d", round, got[20], i)
			}
		}
	}
	r.fd = fd
	if c := p.Counters().Totals(); c.RxFrames != 60 || c.TxFrames != 60 {
		t.Errorf("%d frames counted in and %d out, want 60", c.RxFrames, c.TxFrames)
	}
}

func TestRingLetsGoOfTheDevice(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	rings := newRings(l, 2)
	for range 3 {
		p := openIn(l, ns, Config{Name: "t0", Queues: 2, Rings: rings})
		exchange(l, ns, p, "t0")
		l.NoError(p.Close())
		p = openIn(l, ns, Config{Name: "t0", Queues: 3, Rings: rings}) // More than there are rings.
		if p.queues[0].ring != nil {
			t.Error("a port of three workers has the rings of two")
		}
		l.NoError(p.Delete())
	}
	if i := len(rings.taken); rings.taken != [dataplane.MaxPorts]bool{} {
		t.Errorf("of %d numbers some are taken with every port closed", i)
	}
	proc := startHolder(l, ns, "t1"+ringed)
	proc.Kill()
	<-proc.Exited()
	// Open waits for the process's rings, but not for a kernel that is late.
	var p *Port
	l.Eventually(patience, "the killed process's TAP is taken over", func() error {
		return ns.Do(func() (err error) { p, err = Open(Config{Name: "t1", Rings: rings}); return err })
	})
	if p.Created() {
		t.Error("what a killed process with rings left was made anew, not taken over")
	}
	l.NoError(p.Delete())
}

// TestHeldIsWaitedForOnce: daemons try a TAP that somebody holds again and again,
// and nothing else goes on meanwhile.
func TestHeldIsWaitedForOnce(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	rings := newRings(l, 2)
	proc := startHolder(l, ns, "t0"+ringed)
	held := Config{Name: "t0", Queues: 2, Rings: rings}
	for range 3 {
		if err := openErr(l, ns, held); !errors.Is(err, ErrHeld) {
			t.Fatalf("Open of a TAP that another process holds: %v, want ErrHeld", err)
		}
		if rings.waited != lettingGo {
			t.Errorf("waited for %d ms in all, want %d", rings.waited, lettingGo)
		}
	}
	proc.Kill()
	<-proc.Exited()
	l.Eventually(patience, "the killed process's TAP is taken over", func() error {
		return ns.Do(func() error {
			p, err := Open(held)
			if err == nil {
				err = p.Close()
			}
			return err
		})
	})
}

// A number is nobody else's before every ring has let go of it: the next port
// would lose its descriptor.
func TestRingsGiveANumberOnceItIsFree(t *testing.T) {
	l := lab.New(t)
	rings := newRings(l, 8)
	var ends [2]int
	l.NoError(unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC))
	defer func() { l.NoError(errors.Join(unix.Close(ends[0]), unix.Close(ends[1]))) }()
	queues := func() []queue {
		all := make([]queue, len(rings.rings))
		for i := range all {
			all[i].fd = ends[1]
		}
		return all
	}
	old := queues()
	l.NoError(rings.give(old))
	for range 300 {
		next, taken := queues(), make(chan error)
		go func() { taken <- rings.take(old) }()
		errGive := rings.give(next)
		l.NoError(errors.Join(errGive, <-taken))
		for i := range next {
			r := next[i].ring
			r.add(opWrite, next[i].file, r.slab[:1])
			if n := r.submit(); n != 1 || r.res[0] != 1 {
				t.Fatalf("ring %d has lost its descriptor: %d done, result %d", i, n, r.res[0])
			}
		}
		_, err := unix.Read(ends[0], make([]byte, len(next)))
		l.NoError(err)
		old = next
	}
	l.NoError(rings.take(old))
}

func TestNewRingsRefuses(t *testing.T) {
	l := lab.New(t)
	for _, workers := range []int{-1, 0, dataplane.MaxWorkers + 1} {
		if _, err := NewRings(workers); err == nil {
			t.Errorf("rings for %d workers", workers)
		}
	}
	var limit unix.Rlimit
	l.NoError(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	next := fillDescriptors(l)
	l.NoError(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + 1), Max: limit.Max}))
	_, err := NewRings(2) // Leaves no first ring behind: lab.New checks.
	l.NoError(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("rings without descriptors: %v, want EMFILE", err)
	}
	var none *Rings
	l.NoError(none.Close())
}

func TestRingAllocatesNothing(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Rings: newRings(l, 1)})
	s := openSocket(l, ns, "t0")
	sent := make([]byte, wire.VNetHdrLen+60)
	copy(sent[wire.VNetHdrLen:], plain(60, 1))
	b := dataplane.NewBatch(0)
	var err error
	n := testing.AllocsPerRun(50, func() {
		for range 20 {
			_, e := unix.Write(s.fd, sent)
			err = errors.Join(err, e)
		}
		b.Reset()
		p.Pull(b)
		p.Push(b)
	})
	l.NoError(err)
	if c := p.Counters().Totals(); n != 0 || c.TxFrames != 51*20 {
		t.Errorf("%v allocations a batch, %d frames sent; want 0 and %d", n, c.TxFrames, 51*20)
	}
}
