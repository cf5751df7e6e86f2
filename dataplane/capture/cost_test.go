package capture_test

import (
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/capture"
	"heddle/dataplane/mem"
)

func TestHotPathAllocatesNothing(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1, RingBytes: 256 << 10})
	mirror := c.Wrap(1, mem.NewLoop(mem.Config{Workers: 1}, numbered(1, 60), numbered(2, 1514)))
	b := &dataplane.Batch{}
	run := func() {
		b.Reset()
		b.Now++
		mirror.Pull(b)
		mirror.Push(b)
	}
	none := func(capture.Record) {}
	if n := testing.AllocsPerRun(50, func() { run(); c.Read(none) }); n != 0 {
		t.Errorf("with a reader: %v allocations a round", n)
	}
	if n := testing.AllocsPerRun(500, run); n != 0 {
		t.Errorf("into a ring that fills up: %v allocations a round", n)
	}
	if c.Missed() == 0 {
		t.Error("the ring was never full")
	}
}

// BenchmarkMirror is what a captured frame costs the worker: the Mirror around a loop
// port, whose own cost BenchmarkLoop64 of mem has. Read runs beside the clock;
// without it ("full") every frame is missed.
func BenchmarkMirror(b *testing.B) {
	for _, bm := range []struct {
		name string
		size int
		read bool
	}{{"64B", 64, true}, {"1514B", 1514, true}, {"full", 1514, false}} {
		b.Run(bm.name, func(b *testing.B) {
			c := newCapture(b, capture.Config{Workers: 1, RingBytes: 256 << 10})
			frames := make([]mem.Frame, dataplane.BatchSize)
			for i := range frames {
				frames[i] = numbered(i, bm.size)
			}
			mirror := c.Wrap(1, mem.NewLoop(mem.Config{Workers: 1}, frames...))
			batch := &dataplane.Batch{}
			var spent time.Duration
			b.ReportAllocs()
			for b.Loop() {
				batch.Reset()
				batch.Now++
				start := time.Now()
				mirror.Pull(batch)
				spent += time.Since(start)
				if bm.read {
					c.Read(func(capture.Record) {})
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*dataplane.BatchSize), "ns/frame")
			if missed := c.Missed() > 0; missed == bm.read && b.N > 10 {
				b.Errorf("missed %d frames", c.Missed())
			}
		})
	}
}
