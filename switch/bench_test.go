package vswitch

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// patience is for learn, where nobody contends.
var patience = lockTries

// sink is a port that costs nothing.
type sink struct{ counters *dataplane.Counters }

func (sink) Pull(*dataplane.Batch)           {}
func (sink) Push(*dataplane.Batch)           {}
func (sink) FD(int) int                      { return -1 }
func (s sink) Counters() *dataplane.Counters { return s.counters }
func (sink) Close() error                    { return nil }

// benchNet is a network with sinks as ports 1 to n that knows MACs 0 to
// macs-1, port i%n+1's each.
func benchNet(b testing.TB, ports, maxMACs, macs int) *Network {
	b.Helper()
	sw := New(1, maxMACs)
	n, err := sw.AddNetwork(NetworkConfig{Ageing: MaxAgeing})
	if err != nil {
		b.Fatal(err)
	}
	for id := range ports {
		if err := n.Attach(dataplane.PortID(id+1), sink{dataplane.NewCounters(1)}, PortConfig{MTU: 1500}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range macs {
		key := keyOf(uint64(mac(i))<<16, n.index)
		sw.fdb.learn(n, seconds(MaxAgeing), &slot{id: dataplane.PortID(i%ports + 1)}, key, sw.fdb.home(key), 0, 0, &patience)
	}
	if got := n.Stats().MACs; got != macs {
		b.Fatalf("learnt %d MACs, want %d", got, macs)
	}
	return n
}

// fill makes a batch of 64-byte frames from port 1.
func fill(bt *dataplane.Batch, dst, src func(i int) wire.MAC) {
	bt.Reset()
	bt.In = 1
	for i := range dataplane.BatchSize {
		f := bt.Next()
		f.Buf = append(make([]byte, dataplane.Headroom), append(header(dst(i), src(i), 0x0800), make([]byte, 50)...)...)
		f.Off, f.Len = dataplane.Headroom, 64
		bt.Add()
	}
}

// BenchmarkPush is the switch alone: 64-byte frames, known unicast, sinks.
func BenchmarkPush(b *testing.B) {
	even := func(int) wire.MAC { return mac(0) }
	for _, bb := range []struct {
		name     string
		dst, src func(i int) wire.MAC
	}{
		{"one flow", func(int) wire.MAC { return mac(1) }, even},
		{"two flows in turn", func(i int) wire.MAC { return mac(1 + 2*(i%2)) }, even},
		{"64 flows from one source", func(i int) wire.MAC { return mac(2*i + 1) }, even},
		{"64 sources to 64 destinations", func(i int) wire.MAC { return mac(2*i + 1) }, func(i int) wire.MAC { return mac(2 * i) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			n := benchNet(b, 2, 1000, 200)
			var bt dataplane.Batch
			fill(&bt, bb.dst, bb.src)
			cost.Run(b, dataplane.BatchSize, "frame", func() { n.Push(&bt) })
		})
	}
}

// BenchmarkMemPorts is the whole way in process: pull, switch, push.
func BenchmarkMemPorts(b *testing.B) {
	var frames []mem.Frame
	for range dataplane.BatchSize {
		frames = append(frames, mem.Frame{Data: append(header(mac(1), mac(0), 0x0800), make([]byte, 50)...)})
	}
	n := benchNet(b, 2, 1000, 200)
	in, out := mem.NewLoop(mem.Config{Workers: 1}, frames...), mem.NewLoop(mem.Config{Workers: 1}, frames...)
	if n.Swap(1, in) != nil || n.Swap(2, out) != nil {
		b.Fatal("swap")
	}
	bt := dataplane.Batch{In: 1}
	cost.Run(b, dataplane.BatchSize, "frame", func() {
		bt.Reset()
		in.Pull(&bt)
		n.Push(&bt)
	})
	if got, want := out.Counters().Totals().TxFrames, uint64(b.N*dataplane.BatchSize); got < want {
		b.Fatalf("%d frames went out, want %d", got, want)
	}
}

// BenchmarkLookup pushes frames from one source to destinations drawn evenly
// from all that the FDB knows, through the default table.
func BenchmarkLookup(b *testing.B) {
	for _, macs := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("%d MACs", macs), func(b *testing.B) {
			n := benchNet(b, 2, 0, macs)
			var bt dataplane.Batch
			dst := func(int) wire.MAC { return mac(2*rand.IntN(macs/2) + 1) }
			fill(&bt, dst, func(int) wire.MAC { return mac(0) })
			// Destinations change from batch to batch: 8 K batches' worth are
			// drawn ahead.
			const ahead = 1 << 19
			var dsts [][wire.MACLen]byte
			for range ahead {
				dsts = append(dsts, dst(0).Bytes())
			}
			next := 0
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				for i := range bt.Frames {
					copy(bt.Frames[i].Buf[dataplane.Headroom:], dsts[(next+i)%ahead][:])
				}
				next += dataplane.BatchSize
				n.Push(&bt)
			})
		})
	}
}

// BenchmarkFind is the table alone, one look after the other, with nothing that
// would hide a cache miss but the CPU's own looking ahead.
func BenchmarkFind(b *testing.B) {
	for _, macs := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("%d MACs", macs), func(b *testing.B) {
			n := benchNet(b, 2, 0, macs)
			t := &n.sw.fdb
			r := rand.New(rand.NewPCG(1, 2))
			keys := make([]uint64, 1<<16)
			for i := range keys {
				keys[i] = keyOf(uint64(mac(r.IntN(macs)))<<16, n.index)
			}
			i, found := 0, 0
			cost.Run(b, 1, "lookup", func() {
				k := keys[i%len(keys)]
				if t.find(k, t.home(k)) != 0 {
					found++
				}
				i++
			})
			if found != i {
				b.Fatal("not found")
			}
		})
	}
}

// BenchmarkLearn is new MACs, 1,000 at a time, in a table with room and in a
// full one.
func BenchmarkLearn(b *testing.B) {
	for _, bb := range []struct {
		name   string
		before int
	}{{"with room", 0}, {"full, evicting", DefaultMACs}} {
		b.Run(bb.name, func(b *testing.B) {
			n := benchNet(b, 2, 0, bb.before)
			i := bb.before
			cost.Run(b, 1000, "MAC", func() {
				i = learnNext(n, i, 0)
				if bb.before == 0 && i%500_000 == 0 {
					n = benchNet(b, 2, 0, 0)
				}
			})
		})
	}
}

// learnNext learns 1,000 MACs from i on.
func learnNext(n *Network, i int, now int64) int {
	t := &n.sw.fdb
	for range 1000 {
		key := keyOf(uint64(mac(i))<<16, n.index)
		t.learn(n, 1, &slot{id: dataplane.PortID(i%2 + 1)}, key, t.home(key), 0, now, &patience)
		i++
	}
	return i
}

// BenchmarkRefresh is a second passing for MACs that go on sending.
func BenchmarkRefresh(b *testing.B) {
	n := benchNet(b, 2, 0, 1000)
	now := int64(0)
	cost.Run(b, 1000, "MAC", func() {
		now += int64(time.Second)
		learnNext(n, 0, now)
	})
}

// BenchmarkLearnAndExpire is a MAC's whole life in a half full table.
func BenchmarkLearnAndExpire(b *testing.B) {
	n := benchNet(b, 2, 0, DefaultMACs/2)
	if err := n.Configure(NetworkConfig{Ageing: time.Second}); err != nil {
		b.Fatal(err)
	}
	i, now := DefaultMACs/2, int64(0)
	cost.Run(b, 1000, "MAC", func() {
		now += int64(4 * time.Millisecond)
		i = learnNext(n, i, now)
		n.sw.Expire(now, 1000)
	})
}

// BenchmarkFill prints the table of fdb's essay.
func BenchmarkFill(b *testing.B) {
	for _, percent := range []int{25, 50, 60, 70, 78} {
		b.Run(fmt.Sprintf("%d percent", percent), func(b *testing.B) {
			for b.Loop() {
				n := benchNet(b, 2, 0, 0)
				t := &n.sw.fdb
				r := rand.New(rand.NewPCG(uint64(percent), 0))
				for i := 0; t.count < min(percent*int(t.homes)*lineCells/100, t.maxMACs); i += 1000 {
					learnNext(n, i, 0)
				}
				var hit, miss probes
				for i := range t.cells {
					if key := t.cells[i].key.Load(); key != 0 {
						hit.add(i - int(t.home(key)) + 1)
					}
				}
				for range 1 << 18 {
					home := t.home(r.Uint64() &^ 0xffff)
					miss.add(int(t.locate(0, home)-home) + 1)
				}
				hit.report(b, "hit")
				miss.report(b, "miss")
				b.ReportMetric(float64(n.Stats().Refused), "refused")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

type probes struct{ n, cells, lines, most int }

func (p *probes) add(cells int) {
	p.n++
	p.cells += cells
	p.lines += (cells + lineCells - 1) / lineCells
	p.most = max(p.most, cells)
}

func (p *probes) report(b *testing.B, what string) {
	b.ReportMetric(float64(p.cells)/float64(p.n), what+"-cells")
	b.ReportMetric(float64(p.lines)/float64(p.n), what+"-lines")
	b.ReportMetric(float64(p.most), what+"-max")
}

// BenchmarkMemory reports what a switch of the default size takes for an entry
// when it is full. Run it with -benchtime=1x.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		n := benchNet(b, 2, 0, DefaultMACs)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/DefaultMACs, "B/MAC")
		runtime.KeepAlive(n)
	}
}
