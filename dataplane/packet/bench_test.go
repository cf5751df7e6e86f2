package packet

import (
	"fmt"
	"testing"
	"time"

	"heddle/dataplane"
)

// size names what a benchmark moves.
type size struct {
	name  string
	frame sent
}

func sizes() []size {
	return []size{
		{"64B", build(recipe{payload: 64 - 42})},
		{"64KB", build(recipe{tcp: true, payload: 65000, gso: 1448})},
	}
}

// BenchmarkPush sends over a veth pair whose other end has nobody listening:
// the time is the port's, the system call's and the kernel's way to the drop.
func BenchmarkPush(b *testing.B) {
	for _, s := range sizes() {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/batch=%d", s.name, n), func(b *testing.B) {
				c := newCable(b, 1)
				c.far.close()
				frames := make([]sent, n)
				for i := range frames {
					frames[i] = s.frame
				}
				batch := batchOf(0, frames...)
				b.ReportAllocs()
				b.SetBytes(int64(len(s.frame.frame)))
				for i := 0; i < b.N; i += n {
					c.port.Push(batch)
				}
			})
		}
	}
}

// BenchmarkPull reports the time that Pull alone takes for a frame, ring slots
// given back included; the kernel's copy into the ring is the sender's cost.
func BenchmarkPull(b *testing.B) {
	for _, s := range sizes() {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/batch=%d", s.name, n), func(b *testing.B) {
				c := newCable(b, 1)
				far := c.open(Config{Interface: "far"})
				frames := make([]sent, n)
				for i := range frames {
					frames[i] = s.frame
				}
				out, in := batchOf(0, frames...), &dataplane.Batch{}
				pulled, spent := 0, time.Duration(0)
				b.ReportAllocs()
				for pulled < b.N {
					far.Push(out)
					for {
						in.Reset()
						start := time.Now()
						c.port.Pull(in)
						spent += time.Since(start)
						pulled += in.N
						if !in.More {
							break
						}
					}
				}
				b.ReportMetric(float64(spent.Nanoseconds())/float64(pulled), "ns/frame")
			})
		}
	}
}
