package packet

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"heddle/bench/cost"
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
// cpu-ns/frame is the port's share, the system call's and the kernel's way to
// the drop, whatever else the machine does.
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
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				b.ReportAllocs()
				start, pushed := cost.CPU(), 0
				for ; pushed < b.N; pushed += n {
					c.port.Push(batch)
				}
				b.ReportMetric(float64(cost.CPU()-start)/float64(pushed), "cpu-ns/frame")
			})
		}
	}
}

// BenchmarkPull reports the median of what one Pull of a batch and the next,
// which gives its slots back, take for a frame; the kernel's copy into the ring
// is the sender's cost.
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
				out, in := batchOf(0, frames...), dataplane.NewBatch(0)
				spent := make([]time.Duration, 0, b.N/n+1)
				b.ReportAllocs()
				for len(spent)*n < b.N {
					far.Push(out)
					start, pulled := time.Now(), 0
					for in.More = true; in.More; {
						in.Reset()
						c.port.Pull(in)
						pulled += in.N
					}
					spent = append(spent, time.Since(start))
					if pulled != n {
						b.Fatalf("%d of %d frames", pulled, n)
					}
				}
				slices.Sort(spent)
				b.ReportMetric(float64(spent[len(spent)/2])/float64(n), "median-ns/frame")
			})
		}
	}
}
