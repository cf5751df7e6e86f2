package dataplane

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSelVisitsFramesInOrder(t *testing.T) {
	var b Batch
	for i := range BatchSize {
		*b.Next() = Frame{Buf: make([]byte, i+1), Len: i + 1}
		b.Add()
	}
	if !b.Full() || b.N != BatchSize || b.Sel != ^uint64(0) || b.Bytes != 64*65/2 {
		t.Fatalf("after 64 frames: N %d, Sel %x, Bytes %d", b.N, b.Sel, b.Bytes)
	}
	for range 100 {
		sel := rand.Uint64()
		var want, got []int
		for i := range BatchSize {
			if sel&(1<<i) != 0 {
				want = append(want, i)
			}
		}
		for s := sel; s != 0; s &= s - 1 {
			got = append(got, First(s))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("Sel %x visits %v, want %v", sel, got, want)
		}
	}
	b.Reset()
	if b.N != 0 || b.Sel != 0 || b.Bytes != 0 || b.More {
		t.Errorf("Reset left %d frames", b.N)
	}
}

func TestFrameHeadroom(t *testing.T) {
	f := Frame{Buf: make([]byte, 200), Off: Headroom, Len: 60}
	if n := len(f.Bytes()); n != 60 {
		t.Errorf("frame is %d bytes long, want 60", n)
	}
	if n := len(f.WithHeadroom(Headroom)); n != 60+Headroom {
		t.Errorf("frame with headroom is %d bytes long, want %d", n, 60+Headroom)
	}
}

func TestCountersAddUpOverWorkers(t *testing.T) {
	c := NewCounters(3)
	for w := range 3 {
		c.Rx(w, 1, 100)
		c.Tx(w, 2, 200)
		c.Drop(w, Runt, w)
	}
	got := c.Totals()
	want := Totals{RxFrames: 3, RxBytes: 300, TxFrames: 6, TxBytes: 600}
	want.Drops[Runt] = 3
	if got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
}

func TestEveryDropHasAName(t *testing.T) {
	seen := map[string]bool{}
	for d := range DropCount {
		name := d.String()
		if name == "" || name == "unknown" || seen[name] {
			t.Errorf("drop %d is named %q", d, name)
		}
		seen[name] = true
	}
	if DropCount.String() != "unknown" {
		t.Error("a drop beyond the last has a name")
	}
}
