package vswitch

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// Sizes that swbench draws its curves over.
var (
	scalePorts = []int{2, 10, 100, 1000}
	scaleMACs  = []int{1000, 10_000, 100_000, 1_000_000}
)

// station is a port whose frames are written into the worker's slab as they are
// pulled, as a TAP's are: however many stations there are, their frames lie in
// the same few cache lines. What it is given, it counts.
type station struct {
	*mem.Port
	heads [dataplane.BatchSize][2 * wire.MACLen]byte // Of the frames of one Pull: destination and source.
}

const (
	stationFrame = 64
	stationSlot  = dataplane.Headroom + stationFrame
)

func (s *station) Pull(b *dataplane.Batch) {
	for i := range s.heads {
		f := b.Next()
		f.Buf = b.Slab[i*stationSlot : (i+1)*stationSlot]
		f.Off, f.Len = dataplane.Headroom, stationFrame
		*(*[2 * wire.MACLen]byte)(f.Buf[f.Off:]) = s.heads[i]
		b.Add()
	}
	s.Counters().Rx(b.Worker, len(s.heads), len(s.heads)*stationFrame)
}

// town is a network of stations, each of which sends 64 frames at a time.
type town struct {
	net      *Network
	stations []*station
	batch    *dataplane.Batch
}

// newTown makes a town in which the k-th frame of station i is for dst(i, k).
// Station i is the port i+1 and has the MAC mac(i).
func newTown(tb testing.TB, ports int, dst func(i, k int) wire.MAC) *town {
	tb.Helper()
	to := &town{net: benchNet(tb, ports, 0, ports), batch: dataplane.NewBatch(0)}
	for i := range ports {
		s := &station{Port: mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: make([]byte, stationFrame)})}
		for k := range s.heads {
			dst(i, k).Put(s.heads[k][:])
			mac(i).Put(s.heads[k][wire.MACLen:])
		}
		if err := to.net.Swap(dataplane.PortID(i+1), s); err != nil {
			tb.Fatal(err)
		}
		to.stations = append(to.stations, s)
	}
	return to
}

// turn is one turn of the first busy stations.
func (to *town) turn(busy int) {
	for i, s := range to.stations[:busy] {
		to.batch.Reset()
		to.batch.In = dataplane.PortID(i + 1)
		s.Pull(to.batch)
		to.net.Push(to.batch)
	}
}

// frames is how many frames have come in by the stations, and gone out.
func (to *town) frames() (in, out uint64) {
	for _, s := range to.stations {
		c := s.Counters().Totals()
		in, out = in+c.RxFrames, out+c.TxFrames
	}
	return in, out
}

// traffic is a pattern of a town's.
type traffic struct {
	name string
	busy func(ports int) int
	dst  func(ports int) func(i, k int) wire.MAC
	// copies is how often each frame goes out.
	copies func(ports int) int
}

func all(ports int) int { return ports }
func once(int) int      { return 1 }

// traffics are the patterns: two stations that talk to each other among many
// that are silent, each to the next, each to 64 others at once, and each to all.
var traffics = []traffic{
	{"two", func(int) int { return 2 }, func(int) func(i, k int) wire.MAC {
		return func(i, _ int) wire.MAC { return mac(1 - i&1) }
	}, once},
	{"ring", all, func(ports int) func(i, k int) wire.MAC {
		return func(i, _ int) wire.MAC { return mac((i + 1) % ports) }
	}, once},
	{"mesh", all, func(ports int) func(i, k int) wire.MAC {
		return func(i, _ int) wire.MAC { return mac((i + 1 + rand.IntN(ports-1)) % ports) }
	}, once},
	{"flood", all, func(int) func(i, k int) wire.MAC {
		return func(int, int) wire.MAC { return wire.Broadcast }
	}, func(ports int) int { return ports - 1 }},
}

// BenchmarkScalePorts is the whole way in process of a 64-byte frame, by how
// many ports the network has: for a flooded frame, of each copy.
func BenchmarkScalePorts(b *testing.B) {
	for _, ports := range scalePorts {
		b.Run(strconv.Itoa(ports), func(b *testing.B) {
			for _, p := range traffics {
				b.Run(p.name, func(b *testing.B) {
					to := newTown(b, ports, p.dst(ports))
					busy, copies := p.busy(ports), p.copies(ports)
					cost.Run(b, busy*dataplane.BatchSize*copies, "frame", func() { to.turn(busy) })
					if in, out := to.frames(); in == 0 || out != in*uint64(copies) {
						b.Fatalf("%d frames came in, %d went out, want %d of each", in, out, copies)
					}
				})
			}
		})
	}
}

// crowded is a network of two ports that knows many MACs: even ones behind port
// 1, odd ones behind port 2.
type crowded struct {
	net   *Network
	out   *mem.Port
	batch *dataplane.Batch
	heads [][2 * wire.MACLen]byte // Destinations and sources of frames, drawn ahead.
	next  int
	sent  uint64
}

// newCrowded makes a network that knows macs MACs.
func newCrowded(tb testing.TB, macs int) *crowded {
	tb.Helper()
	c := &crowded{net: benchNet(tb, 2, max(macs, DefaultMACs), macs), batch: dataplane.NewBatch(0)}
	c.out = mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: make([]byte, stationFrame)})
	if err := c.net.Swap(2, c.out); err != nil {
		tb.Fatal(err)
	}
	c.batch.In = 1
	for range dataplane.BatchSize {
		f := c.batch.Next()
		f.Buf = make([]byte, stationSlot)
		f.Off, f.Len = dataplane.Headroom, stationFrame
		c.batch.Add()
	}
	return c
}

// draw has frames come from and go to any of so many stations each.
func (c *crowded) draw(ahead, stations int) {
	c.heads, c.next = make([][2 * wire.MACLen]byte, ahead), 0
	for i := range c.heads {
		mac(2*rand.IntN(stations) + 1).Put(c.heads[i][:])
		mac(2 * rand.IntN(stations)).Put(c.heads[i][wire.MACLen:])
	}
}

// turn pushes 64 frames, after so many nanoseconds.
func (c *crowded) turn(later int64) {
	for i := range c.batch.Frames {
		*(*[2 * wire.MACLen]byte)(c.batch.Frames[i].Bytes()) = c.heads[(c.next+i)%len(c.heads)]
	}
	c.next += dataplane.BatchSize
	c.sent += dataplane.BatchSize
	c.batch.Now += later
	c.net.Push(c.batch)
}

// crowds are how frames are drawn: of one flow; from any MAC to any; and the
// same with each source seen for the first time in its second, the most that a
// frame of a known MAC costs.
var crowds = []struct {
	name  string
	flow  bool
	later time.Duration
}{{"flow", true, 0}, {"random", false, 0}, {"refresh", false, time.Second}}

// BenchmarkScaleMACs is the switch's cost of a 64-byte frame by how many MACs
// are known, and what memory that takes, in a table of the default size. Run
// each size in a process of its own: memory that was used before counts as
// resident too soon.
func BenchmarkScaleMACs(b *testing.B) {
	for _, macs := range scaleMACs {
		b.Run(strconv.Itoa(macs), func(b *testing.B) {
			before := cost.Resident(b)
			c := newCrowded(b, macs)
			after := cost.Resident(b)
			b.Run("memory", func(b *testing.B) {
				for b.Loop() {
					runtime.KeepAlive(c)
				}
				b.ReportMetric((after-before)/float64(macs), "B/entry")
				b.ReportMetric((after-before)/1e6, "grown-MB")
				b.ReportMetric(after/1e6, "rss-MB")
				b.ReportMetric(0, "ns/op")
			})
			for _, p := range crowds {
				b.Run(p.name, func(b *testing.B) {
					stations := macs / 2
					if p.flow {
						stations = 1
					}
					c.draw(1<<19, stations)
					cost.Run(b, dataplane.BatchSize, "frame", func() { c.turn(int64(p.later)) })
					if out := c.out.Counters().Totals().TxFrames; out != c.sent {
						b.Fatalf("%d of %d frames went out", out, c.sent)
					}
				})
			}
		})
	}
}

// The benchmarks' traffic goes the way that they say.
func TestScaleTraffic(t *testing.T) {
	for _, ports := range []int{2, 10} {
		for _, p := range traffics {
			to := newTown(t, ports, p.dst(ports))
			busy, copies := p.busy(ports), p.copies(ports)
			for range 3 {
				to.turn(busy)
			}
			in, out := to.frames()
			if want := uint64(3 * busy * dataplane.BatchSize); in != want || out != want*uint64(copies) {
				t.Errorf("%s, %d ports: %d frames in, %d out, want %d, each %d times", p.name, ports, in, out, want, copies)
			}
			if to.net.Stats().MACs != ports {
				t.Errorf("%s: %d MACs are known, not those of %d stations", p.name, to.net.Stats().MACs, ports)
			}
		}
	}
	c := newCrowded(t, 1000)
	for _, p := range crowds {
		c.draw(1000, 500)
		for range 20 {
			c.turn(int64(p.later))
		}
		if out := c.out.Counters().Totals().TxFrames; out != c.sent || c.net.Stats().MACs != 1000 {
			t.Errorf("%s: %d of %d frames went out, %d MACs are known", p.name, out, c.sent, c.net.Stats().MACs)
		}
	}
}
