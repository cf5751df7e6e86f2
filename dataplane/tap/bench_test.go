package tap

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// sizes are what is measured: the least frame without its FCS, a full one, and
// TCP's largest. The MAC isn't the interface's, so that the stack, which is no
// part of the port, drops what is pushed at once.
func sizes() map[string]frame {
	return map[string]frame{
		"60B":   {data: plain(60, 1)},
		"1514B": {data: plain(1514, 1)},
		"64KB":  transport(wire.ProtoTCP, 1, 2, 65000).gso(wire.VNetGSOTCP4, 1448),
	}
}

func BenchmarkPush(b *testing.B) {
	for name, f := range sizes() {
		b.Run(name, func(b *testing.B) {
			l := lab.New(b)
			p := openIn(l, quiet(l, "a"), Config{Name: "t0"})
			const n = 16
			frames := make([]frame, n)
			for i := range frames {
				frames[i] = f
			}
			batch := batchOf(0, frames...)
			b.ReportAllocs()
			for b.Loop() {
				p.Push(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/frame")
			if c := p.Counters().Totals(); c.TxFrames < uint64(b.N*n) {
				b.Errorf("%d of %d frames went out: drops %v", c.TxFrames, b.N*n, c.Drops)
			}
		})
	}
}

// BenchmarkPull times Pull alone; what fills the queue before each runs beside
// the clock.
func BenchmarkPull(b *testing.B) {
	for name, f := range sizes() {
		b.Run(name, func(b *testing.B) {
			l := lab.New(b)
			ns := quiet(l, "a")
			p := openIn(l, ns, Config{Name: "t0"})
			s := openSocket(l, ns, "t0")
			sent := make([]byte, wire.VNetHdrLen+len(f.data))
			f.owes.Encode(sent)
			copy(sent[wire.VNetHdrLen:], f.data)
			const n = 2 // Two of 64 KB are one Pull.
			batch := dataplane.NewBatch(0)
			var spent time.Duration
			for b.Loop() {
				for range n {
					if _, err := unix.Write(s.fd, sent); err != nil {
						b.Fatal(err)
					}
				}
				start := time.Now()
				batch.Reset()
				p.Pull(batch)
				spent += time.Since(start)
				if batch.N != n {
					b.Fatalf("pulled %d frames, want %d", batch.N, n)
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*n), "ns/frame")
		})
	}
}

func BenchmarkPullEmpty(b *testing.B) {
	l := lab.New(b)
	p := openIn(l, quiet(l, "a"), Config{Name: "t0"})
	batch := dataplane.NewBatch(0)
	for b.Loop() {
		batch.Reset()
		p.Pull(batch)
	}
}
