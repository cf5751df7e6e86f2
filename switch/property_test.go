package vswitch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// TestNoFrameIsDuplicatedOrOvertaken sends batches of numbered frames between
// few stations, broadcasts among them, while stations move and entries go.
func TestNoFrameIsDuplicatedOrOvertaken(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	l := newLab(t, 8, NetworkConfig{}, Ordinary, Ordinary, Ordinary, Ordinary)
	number := 0
	for range 3000 {
		var frames [][]byte
		in := dataplane.PortID(1 + r.IntN(4))
		for range 1 + r.IntN(dataplane.BatchSize) {
			dst, src := mac(r.IntN(12)), mac(r.IntN(12))
			if r.IntN(5) == 0 {
				dst = wire.Broadcast
			}
			for range 1 + r.IntN(3) { // Runs of one flow.
				if len(frames) < dataplane.BatchSize {
					frames = append(frames, frame(dst, src, fmt.Sprintf("%08d", number)))
					number++
				}
			}
		}
		first := fmt.Sprintf("%08d", number-len(frames))
		before := l.p[in].allDrops()
		l.net.Push(l.batch(in, frames...))
		delivered := map[string]bool{}
		for id, p := range l.p {
			got := p.take()
			if id == in && len(got) > 0 {
				t.Fatalf("port %d got its own frames %v", id, got)
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Fatalf("port %d got frames out of order or twice: %v", id, got)
			}
			for _, f := range got {
				if f < first {
					t.Fatalf("port %d got frame %s of an earlier batch", id, f)
				}
				delivered[f] = true
			}
		}
		if lost := uint64(len(frames) - len(delivered)); lost != l.p[in].allDrops()-before {
			t.Fatalf("%d frames reached nobody, %d were counted", lost, l.p[in].allDrops()-before)
		}
		l.now += time.Duration(r.IntN(300)) * time.Millisecond
	}
}

// countPort counts atomically what it is given, and notes frames that aren't
// for it.
type countPort struct {
	fakePort
	frames atomic.Uint64
	wrong  atomic.Uint64
	mine   wire.MAC
}

func (p *countPort) Push(b *dataplane.Batch) {
	for s := b.Sel; s != 0; s &= s - 1 {
		p.frames.Add(1)
		if wire.DstMAC(b.Frames[dataplane.First(s)].Bytes()) != p.mine {
			p.wrong.Add(1)
		}
	}
}

// TestWorkersAndControlTogether has four workers forward between fixed
// stations while others come, move and go, and control code does all it can.
// Frames between the fixed stations, whose entries are static or refreshed and
// kept from eviction by moderation, must not go astray.
func TestWorkersAndControlTogether(t *testing.T) {
	const workers, rounds = 4, 1500
	sw := New(workers, 600)
	n, err := sw.AddNetwork(NetworkConfig{Ageing: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ports := make([]*countPort, workers+1)
	for i := range ports {
		// Port 1 to 4 belong to the workers, 5 is the target of all.
		ports[i] = &countPort{fakePort: fakePort{counters: dataplane.NewCounters(workers)}, mine: mac(1000)}
		if err := n.Attach(dataplane.PortID(i+1), ports[i], PortConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	target := ports[workers]
	if err := n.AddStatic(mac(1000), workers+1); err != nil {
		t.Fatal(err)
	}

	var running atomic.Int32
	running.Store(workers)
	var wg sync.WaitGroup
	var now atomic.Int64
	for w := range workers {
		wg.Go(func() {
			defer running.Add(-1)
			r := rand.New(rand.NewPCG(uint64(w), 1))
			l := &lab{}
			for range rounds {
				l.now = time.Duration(now.Add(int64(time.Millisecond)))
				var frames [][]byte
				for range 16 {
					// Unknown sources, some of them shared with other workers.
					frames = append(frames, frame(mac(1000), mac(r.IntN(800)), "x"))
				}
				b := l.batch(dataplane.PortID(w+1), frames...)
				b.Worker = w
				n.Push(b)
			}
		})
	}
	wg.Go(func() {
		r := rand.New(rand.NewPCG(99, 1))
		extra := &countPort{fakePort: fakePort{counters: dataplane.NewCounters(workers)}}
		events := make([]FlapEvent, 16)
		for i := 0; running.Load() > 0; i++ {
			at := now.Load()
			id := dataplane.PortID(1 + r.IntN(workers))
			sw.Expire(at, 100)
			_, _ = n.Flush(id)
			_ = n.AddStatic(mac(r.IntN(800)), id)
			_ = n.Remove(mac(r.IntN(800)))
			_ = n.Swap(id, ports[id-1])
			_ = n.SetMTU(id, 1400+i%100)
			_ = n.Configure(NetworkConfig{Ageing: time.Duration(1+i%3) * time.Second, MaxMACs: 300 + i%300})
			_ = n.Attach(9, extra, PortConfig{})
			for range sw.Entries(at) {
			}
			_ = n.Detach(9)
			sw.TakeFlaps(events)
			sw.Stats()
		}
	})
	wg.Wait()

	sw.fdb.verify(t)
	var drops [dataplane.DropCount]uint64
	for i, p := range ports {
		for d, c := range p.counters.Totals().Drops {
			drops[d] += c
		}
		if i != workers && p.frames.Load() != 0 {
			t.Errorf("port %d got %d frames for the station behind port %d", i+1, p.frames.Load(), workers+1)
		}
	}
	sent, got := uint64(workers*rounds*16), target.frames.Load()
	if got+drops[dataplane.MACFlapping] != sent || target.wrong.Load() != 0 {
		t.Errorf("%d frames sent, %d arrived (%d not the target's), %d dropped as flapping; all drops %v",
			sent, got, target.wrong.Load(), drops[dataplane.MACFlapping], drops)
	}
}

// TestReadersNeverMissAnEntryThatStays looks up fixed keys while a writer
// inserts and removes others around them in a crowded table.
func TestReadersNeverMissAnEntryThatStays(t *testing.T) {
	const stay, churn = 300, 600
	l := newLab(t, stay+churn, NetworkConfig{}, Ordinary, Ordinary)
	table := &l.sw.fdb
	for i := range stay {
		l.learn(2, i)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				key := keyOf(uint64(mac(i%stay))<<16, l.net.index)
				if v := table.find(key, table.home(key)); v.port() != 2 {
					t.Errorf("station %d is on port %d, want 2", i%stay, v.port())
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		m := mac(stay + r.IntN(churn))
		if l.net.Remove(m) != nil {
			key := keyOf(uint64(m)<<16, l.net.index)
			tries := lockTries
			table.learn(l.net, 300, &slot{id: 1}, key, table.home(key), 0, 0, &tries)
		}
	}
	done.Store(true)
	wg.Wait()
	table.verify(t)
}

func TestHashSpreadsMACsThatDifferLittle(t *testing.T) {
	for name, at := range map[string]func(i int) uint64{
		"sequential":            func(i int) uint64 { return uint64(i) << 16 },
		"by the first byte":     func(i int) uint64 { return uint64(i%128)<<57 | uint64(i/128)<<16 },
		"steps of 4096":         func(i int) uint64 { return uint64(i) << 28 },
		"one MAC, all networks": func(i int) uint64 { return uint64(i) % MaxNetworks },
		"chosen for low bits":   func(i int) uint64 { return uint64(i*i) << 16 },
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			var table fdb
			table.init(1 << 14)
			seen := map[uint64]bool{}
			lines := map[uint32]int{}
			for i := range 1 << 12 {
				if k := keyOf(0, 0) | at(i) + 1<<60; !seen[k] {
					seen[k] = true
					lines[table.home(k)]++
				}
			}
			// 4,096 keys on 5,243 lines: the fullest of a random spread has 9
			// or fewer with a probability of 1 - 10^-6.
			most := 0
			for _, n := range lines {
				most = max(most, n)
			}
			if most > 12 {
				t.Errorf("%d keys share a line", most)
			}
		})
	}
}
