package tunnel

import (
	"testing"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	vswitch "heddle/switch"
)

// batchOf is 64 frames by number.
func batchOf(f func(i int) dataplane.Frame) *dataplane.Batch {
	b := dataplane.NewBatch(0)
	b.In = 1
	for i := range dataplane.BatchSize {
		*b.Next() = f(i)
		b.Add()
	}
	return b
}

// BenchmarkMemPorts is the whole way in process of 64-byte frames: pull from a
// mem port, switch, tunnel, to an underlay that sends nothing; and back.
func BenchmarkMemPorts(b *testing.B) {
	for _, bb := range []struct {
		name  string
		flows int
	}{{"one flow", 1}, {"64 flows", 64}} {
		newNet := func(b *testing.B) (*site, *still, *vswitch.Network, *Tunnel) {
			s, u, _, _ := newStill(b)
			sw := vswitch.New(1, 0)
			n, err := sw.AddNetwork(vswitch.NetworkConfig{})
			s.must(err)
			tu := s.tunnel(s.v.Peers()[0], 43, 6, n)
			s.must(n.Attach(6, tu, vswitch.PortConfig{Role: vswitch.Tunnel}))
			return s, u, n, tu
		}
		b.Run("encap, "+bb.name, func(b *testing.B) {
			s, _, n, tu := newNet(b)
			var frames []mem.Frame
			for i := range dataplane.BatchSize {
				f := small(1+i%bb.flows, 4)
				frames = append(frames, mem.Frame{Data: f.Bytes()})
			}
			in := mem.NewLoop(mem.Config{Workers: 1}, frames...)
			s.must(n.Attach(1, in, vswitch.PortConfig{}))
			s.must(n.Announce(mac(2), 6))
			bt := dataplane.NewBatch(0)
			bt.In = 1
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				bt.Reset()
				in.Pull(bt)
				n.Push(bt)
			})
			if got := tu.Counters().Totals().TxFrames; got < uint64(b.N*dataplane.BatchSize) {
				b.Fatalf("%d frames went out", got)
			}
		})
		b.Run("decap, "+bb.name, func(b *testing.B) {
			s, u, n, tu := newNet(b)
			out := mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: make([]byte, 60)})
			s.must(n.Attach(1, out, vswitch.PortConfig{}))
			s.must(n.AddStatic(mac(2), 1))
			var frames []dataplane.Frame
			for i := range dataplane.BatchSize {
				frames = append(frames, small(1+i%bb.flows, 4))
			}
			u.give(frames...)
			for i := range frames {
				d := u.in[0]
				d.Buf[d.Off+i*d.SegSize+6] = 43
			}
			u.restore = false
			bt := dataplane.NewBatch(0)
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				bt.Reset()
				s.v.Pull(bt)
				s.v.Push(bt)
			})
			if got := tu.Counters().Totals().RxFrames; got < uint64(b.N*dataplane.BatchSize) {
				b.Fatalf("%d frames came in", got)
			}
		})
	}
}

// BenchmarkPush is the tunnel alone.
func BenchmarkPush(b *testing.B) {
	for _, bb := range []struct {
		name string
		f    func(i int) dataplane.Frame
	}{
		{"64 B, one flow", func(int) dataplane.Frame { return small(1, 4) }},
		{"64 B, 64 flows", func(i int) dataplane.Frame { return small(i, 4) }},
		{"64 B, IPv6", func(i int) dataplane.Frame { return spec{v6: true, proto: 17, payload: 2}.frame() }},
		{"1,450 B", func(int) dataplane.Frame { return spec{payload: 1410}.frame() }},
		{"1,450 B, partial", func(int) dataplane.Frame { return spec{payload: 1410, partial: true}.frame() }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			_, _, tu, _ := newStill(b)
			bt := batchOf(bb.f)
			owes := bt.Frames[0].Owes
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				if owes.Partial() {
					for i := range bt.Frames {
						bt.Frames[i].Owes = owes
					}
				}
				tu.Push(bt)
			})
		})
	}
}

// BenchmarkSuperFrame is 62 KB of TCP, 44 segments: cut and encapsulated, and
// received, verified and joined.
func BenchmarkSuperFrame(b *testing.B) {
	super := spec{payload: 44 * 1398, size: 1398, partial: true}
	b.Run("encap", func(b *testing.B) {
		_, _, tu, _ := newStill(b)
		bt := dataplane.NewBatch(0)
		*bt.Next() = super.frame()
		bt.Add()
		cost.Run(b, 1, "frame", func() { tu.Push(bt) })
		if got := tu.Counters().Totals().TxFrames; got < uint64(b.N) {
			b.Fatalf("%d super-frames went out of %d", got, b.N)
		}
	})
	b.Run("decap", func(b *testing.B) {
		s, u, _, d := newStill(b)
		u.give(segmentsOf(b, super)...)
		bt := dataplane.NewBatch(0)
		cost.Run(b, 1, "frame", func() {
			bt.Reset()
			s.v.Pull(bt)
			s.v.Push(bt)
		})
		if d.frames < b.N || d.frames > b.N+1 {
			b.Fatalf("%d frames of %d super-frames", d.frames, b.N)
		}
	})
}

// BenchmarkGuard is what guarding a port adds to a frame.
func BenchmarkGuard(b *testing.B) {
	s, _, _, _ := newStill(b)
	for _, bb := range []struct {
		name string
		f    dataplane.Frame
	}{{"TCP", spec{payload: 10}.frame()}, {"UDP", small(1, 0)}} {
		b.Run(bb.name, func(b *testing.B) {
			bt := batchOf(func(int) dataplane.Frame { return bb.f })
			g := s.v.Guard(mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: bb.f.Bytes()}))
			cost.Run(b, dataplane.BatchSize, "frame", func() { g.Push(bt) })
		})
	}
}

// BenchmarkNeighbour looks up announced addresses among many.
func BenchmarkNeighbour(b *testing.B) {
	for _, many := range []int{1000, 1_000_000} {
		b.Run(map[int]string{1000: "1 K", 1_000_000: "1 M"}[many], func(b *testing.B) {
			var n neighbours
			n.init()
			for i := range many {
				n.set(1, addr{0, uint64(i)}, mac(i), 1)
			}
			i := 0
			cost.Run(b, 1, "lookup", func() {
				i = (i*7 + 1) % many
				n.find(1, addr{0, uint64(i)})
			})
		})
	}
}
