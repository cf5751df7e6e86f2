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
