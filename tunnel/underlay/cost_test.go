package underlay

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/bench/cost"
	"heddle/dataplane"
)

// TestNoAllocation gates the hot functions, the way of refused super-packets
// included.
func TestNoAllocation(t *testing.T) {
	w := newWired(t)
	a, b := w.pair(false, Config{SourcePorts: 4})
	data := repeat(rand.New(rand.NewPCG(12, 12)), 43, 1450, 1000)
	once := func() {
		for flow := range uint16(3) {
			for _, d := range data {
				if a.box.Add(a.to, flow, 1, d[:8], d[8:]) == nil {
					t.Fatal("no room")
				}
			}
		}
		a.Send(0, a.box.Messages())
		a.box.Reset()
		for range 100 {
			if in, _ := b.Recv(0); len(in) == 0 {
				break
			}
		}
	}
	if n := testing.AllocsPerRun(50, once); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	a.segments = false
	if n := testing.AllocsPerRun(50, once); n != 0 {
		t.Errorf("datagrams one by one: %v allocations, want none", n)
	}
}

// pin puts the calling goroutine on one CPU until what it returns is called.
func pin(tb testing.TB, cpu int) (unpin func()) {
	tb.Helper()
	runtime.LockOSThread()
	var before, set unix.CPUSet
	must(tb, unix.SchedGetaffinity(0, &before))
	set.Set(cpu)
	must(tb, unix.SchedSetaffinity(0, &set))
	return func() {
		must(tb, unix.SchedSetaffinity(0, &before))
		runtime.UnlockOSThread()
	}
}

// stream sends b.N rounds of datagrams from one end to the other, which a
// thread on the CPU given receives meanwhile, and reports the time and rate of a
// datagram that arrived.
func stream(b *testing.B, from, to *end, cpu int, data [][]byte) {
	b.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	datagrams, calls, bytes := 0, 0, 0
	go func() {
		defer close(stopped)
		defer pin(b, cpu)()
		fds := []unix.PollFd{{Fd: int32(to.FD(0)), Events: unix.POLLIN}}
		for {
			in, more := to.Recv(0)
			for i := range in {
				datagrams += (in[i].Len + in[i].SegSize - 1) / in[i].SegSize
				bytes += in[i].Len
			}
			if len(in) > 0 {
				calls++
			}
			if more {
				continue
			}
			select {
			case <-stop:
				if len(in) == 0 {
					return
				}
			default:
				if _, err := unix.Poll(fds, 1); err != nil && err != unix.EINTR {
					b.Error(err)
					return
				}
			}
		}
	}()
	defer pin(b, 0)()
	before := cost.CPU()
	sent := 0
	b.ResetTimer()
	for b.Loop() {
		for _, d := range data {
			from.box.Add(from.to, 0, 0, d[:60], d[60:])
		}
		msgs := from.box.Messages()
		from.Send(0, msgs)
		for i := range msgs {
			if msgs[i].Drop == dataplane.None {
				sent += (msgs[i].Len + msgs[i].SegSize - 1) / msgs[i].SegSize
			}
		}
		from.box.Reset()
	}
	elapsed := b.Elapsed()
	spent := cost.CPU() - before
	close(stop)
	<-stopped
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(bytes)*8/float64(elapsed.Nanoseconds()), "Gb/s")
	b.ReportMetric(float64(elapsed.Nanoseconds())/float64(max(datagrams, 1)), "ns/datagram")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(sent), "sender-ns/datagram")
	b.ReportMetric(float64(datagrams)/float64(max(calls, 1)), "datagrams/recv")
	b.ReportMetric(100*float64(sent-datagrams)/float64(sent), "%lost")
}

// BenchmarkVeth: datagrams of 1,450 bytes over a veth pair between two
// namespaces, the ends on a core each or both on one.
func BenchmarkVeth(b *testing.B) {
	r := rand.New(rand.NewPCG(13, 13))
	for _, bm := range []struct {
		name     string
		data     [][]byte
		segments bool
	}{
		{"1450B", repeat(r, 87, 1450, 1450), true},
		{"1450B one by one", repeat(r, 87, 1450, 1450), false},
		{"100B", repeat(r, 63, 100, 100), true},
		{"100B one by one", repeat(r, 63, 100, 100), false},
	} {
		for cpu, cores := range []string{"one core", "two cores"} {
			b.Run(bm.name+"/"+cores, func(b *testing.B) {
				w := newWired(b)
				from, to := w.pair(false, Config{SourcePorts: 1})
				from.segments = bm.segments
				stream(b, from, to, cpu, bm.data)
			})
		}
	}
}

// BenchmarkRecvNothing: what a Recv costs that finds
// nothing.
func BenchmarkRecvNothing(b *testing.B) {
	n := newNetNS(b)
	u := n.open(Config{Local: netip.MustParseAddrPort("127.0.0.1:0"), SourcePorts: 1})
	for b.Loop() {
		u.Recv(0)
	}
}

// BenchmarkOutbox: what a datagram of two pieces costs to be put in a message.
func BenchmarkOutbox(b *testing.B) {
	var box Outbox
	to := &Dest{}
	data := make([]byte, 1450)
	for b.Loop() {
		for range 44 {
			box.Add(to, 0, 0, data[:60], data[60:])
		}
		box.Reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(44*b.N), "ns/datagram")
}
