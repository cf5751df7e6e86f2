package offload

import (
	"math/rand/v2"
	"testing"

	"heddle/dataplane/wire"
)

// superFrames are 64 KB of what Linux sends with offloads on.
func superFrames() map[string]super {
	return map[string]super{
		"tcp4": {tcpOpts: 12, payload: 45 * 1448, size: 1448, partial: true},
		"tcp6": {v6: true, tcpOpts: 12, payload: 45 * 1428, size: 1428, partial: true},
		"udp4": {udp: true, payload: 44 * 1472, size: 1472, partial: true},
	}
}

// TestNoAllocation gates the hot functions.
func TestNoAllocation(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 13))
	buf := make([]byte, 2000)
	for name, s := range superFrames() {
		frame, h := s.build(r)
		tagged := append(make([]byte, wire.VLANTagLen), frame...)
		var seg Segmenter
		if n := testing.AllocsPerRun(20, func() {
			if !Check(frame, &h) || !seg.Begin(frame, &h) || SegmentLen(frame, &h) > len(buf) {
				t.Fatal("refused")
			}
			for seg.Next(buf) > 0 {
			}
			owes := h
			InsertVLAN(tagged, 1, wire.EtherTypeVLAN, &owes)
			RemoveVLAN(tagged, &owes)
			owes.GSOType = wire.VNetGSONone
			Complete(frame, &owes)
		}); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	r := rand.New(rand.NewPCG(14, 14))
	plain, _ := super{payload: 18}.build(r)
	partial, partialOwes := super{payload: 18, partial: true}.build(r)
	tcp, tcpOwes := superFrames()["tcp4"].build(r)
	for _, c := range []struct {
		name  string
		frame []byte
		h     wire.VNetHdr
	}{{"nothing", plain, wire.VNetHdr{}}, {"partial", partial, partialOwes}, {"gso", tcp, tcpOwes}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if !Check(c.frame, &c.h) {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkSegmentLen(b *testing.B) {
	frame, h := superFrames()["tcp4"].build(rand.New(rand.NewPCG(15, 15)))
	for b.Loop() {
		if SegmentLen(frame, &h) == 0 {
			b.Fatal("refused")
		}
	}
}

func BenchmarkComplete(b *testing.B) {
	for name, n := range map[string]int{"60B": 6, "1514B": 1460} {
		frame, owes := super{payload: n, partial: true}.build(rand.New(rand.NewPCG(16, 16)))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h := owes
				if !Complete(frame, &h) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkSegmenter reports the time of a segment beside that of a 64 KB
// frame.
func BenchmarkSegmenter(b *testing.B) {
	for name, s := range superFrames() {
		frame, h := s.build(rand.New(rand.NewPCG(17, 17)))
		buf := make([]byte, 2000)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(frame)))
			var seg Segmenter
			n := 0
			for b.Loop() {
				seg.Begin(frame, &h)
				for seg.Next(buf) > 0 {
					n++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/segment")
		})
	}
}

// arrived is a TCP super-frame's segments as a tunnel receives them: in one
// buffer, each behind an outer header's rest.
type arrived struct {
	original, buf []byte
	at, n         []int
}

func arrive(tb testing.TB, s super) *arrived {
	tb.Helper()
	a := &arrived{}
	for _, f := range stream(tb, s, rand.New(rand.NewPCG(18, 18))) {
		a.original = append(a.original, make([]byte, testGap)...)
		a.at, a.n = append(a.at, len(a.original)), append(a.n, len(f))
		a.original = append(a.original, f...)
	}
	a.buf = make([]byte, len(a.original))
	copy(a.buf, a.original)
	return a
}

// join makes one frame of them and returns how long it is.
func (a *arrived) join(c *Coalescer) int {
	if _, open := c.Begin(a.buf, a.at[0], a.n[0], 1450); !open {
		return 0
	}
	for i := 1; i < len(a.at); i++ {
		if !c.Add(a.buf[a.at[i]:][:a.n[i]]) {
			return 0
		}
	}
	n, _ := c.End()
	return n
}

func TestCoalesceAllocatesNothing(t *testing.T) {
	a := arrive(t, super{tcpOpts: 12, payload: 40 * 1398, size: 1398, flags: wire.TCPAck})
	var c Coalescer
	if n := testing.AllocsPerRun(20, func() {
		copy(a.buf, a.original)
		if a.join(&c) == 0 {
			t.Fatal("refused")
		}
		Adopt(a.buf[a.at[0]:][:a.n[0]], 1450, 0)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// BenchmarkCoalescer includes putting the segments back, which the row "copy"
// is without the rest.
func BenchmarkCoalescer(b *testing.B) {
	tcp4 := super{tcpOpts: 12, payload: 46 * 1398, size: 1398, flags: wire.TCPAck}
	tcp6 := super{v6: true, tcpOpts: 12, payload: 46 * 1378, size: 1378, flags: wire.TCPAck}
	var c Coalescer
	for _, bm := range []struct {
		name    string
		from    super
		partial bool
		run     func(*arrived)
	}{
		{"copy", tcp4, false, func(*arrived) {}},
		{"tcp4", tcp4, false, func(a *arrived) { a.join(&c) }},
		{"tcp6", tcp6, false, func(a *arrived) { a.join(&c) }},
		{"partial", tcp4, true, func(a *arrived) { a.join(&c) }},
	} {
		a := arrive(b, bm.from)
		if bm.partial {
			for i := range a.at {
				partial(a.original[a.at[i]:][:a.n[i]])
			}
		}
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(a.buf)))
			for b.Loop() {
				copy(a.buf, a.original)
				bm.run(a)
			}
		})
	}
}

func BenchmarkAdopt(b *testing.B) {
	frame, _ := super{payload: 1000, partial: true}.build(rand.New(rand.NewPCG(19, 19)))
	for b.Loop() {
		if owes := Adopt(frame, 1450, 0); !owes.Partial() {
			b.Fatal("not seen")
		}
	}
}

// trainOf returns what makes a train of the frames, and fails the test if they
// don't join.
func trainOf(t testing.TB, cars []car) func() {
	var train Train
	head := make([]byte, MaxTrainHead)
	return func() {
		joined := train.Begin(cars[0].frame, &cars[0].owes, bigTCP) > 0
		for i := range cars[1:] {
			c := &cars[1+i]
			joined = joined && train.Carries(c.frame) && train.Add(c.frame, &c.owes) > 0
		}
		if !joined {
			t.Fatal("the frames don't join")
		}
		train.Head(head)
	}
}

// threeCars are three frames of 20 KB that make a train.
func threeCars(v6 bool) []car {
	s := super{v6: v6, tcpOpts: 12, payload: 14 * 1400, size: 1400, partial: true, flags: wire.TCPAck}
	return run(s, 3, rand.New(rand.NewPCG(35, 35)))
}

func TestTrainAllocatesNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		if n := testing.AllocsPerRun(100, trainOf(t, threeCars(v6))); n != 0 {
			t.Errorf("IPv6 %v: %v allocations, want none", v6, n)
		}
	}
}

// BenchmarkTrain is what a train of three frames costs.
func BenchmarkTrain(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(b *testing.B) {
			join := trainOf(b, threeCars(v6))
			for b.Loop() {
				join()
			}
		})
	}
}
