package mem_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

var _ dataplane.Port = (*mem.Port)(nil)

// batchOf returns a batch of worker w that holds the frames.
func batchOf(w int, frames ...mem.Frame) *dataplane.Batch {
	b := &dataplane.Batch{Worker: w}
	for _, fr := range frames {
		f := b.Next()
		f.Buf = make([]byte, dataplane.Headroom+len(fr.Data))
		f.Off, f.Len, f.Owes = dataplane.Headroom, len(fr.Data), fr.Owes
		copy(f.Bytes(), fr.Data)
		b.Add()
	}
	return b
}

func pull(p *mem.Port, w int) *dataplane.Batch {
	b := &dataplane.Batch{Worker: w}
	p.Pull(b)
	return b
}

func numbered(i, size int) mem.Frame {
	return mem.Frame{
		Data: bytes.Repeat([]byte{byte(i)}, size),
		Owes: wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(i)},
	}
}

func TestInjectIsPulledInOrderWithWhatItOwes(t *testing.T) {
	p := mem.New(mem.Config{Workers: 2})
	for i := range 100 {
		if got := p.Inject(1, numbered(i, 60+i)); got != 1 {
			t.Fatalf("Inject of frame %d took %d frames, want 1", i, got)
		}
	}
	if b := pull(p, 0); b.N != 0 {
		t.Errorf("worker 0 pulled %d frames of worker 1", b.N)
	}
	for _, n := range []int{dataplane.BatchSize, 100 - dataplane.BatchSize, 0} {
		b := pull(p, 1)
		if b.N != n {
			t.Fatalf("pulled %d frames, want %d", b.N, n)
		}
		for i := range b.N {
			f, want := &b.Frames[i], numbered(i+100-n, 60+i+100-n)
			if n == dataplane.BatchSize {
				want = numbered(i, 60+i)
			}
			if !bytes.Equal(f.Bytes(), want.Data) || f.Owes != want.Owes || f.Off < dataplane.Headroom {
				t.Errorf("frame %d of %d: %d bytes at %d owing %+v, want %d bytes owing %+v",
					i, n, f.Len, f.Off, f.Owes, len(want.Data), want.Owes)
			}
		}
	}
	if c := p.Counters().Totals(); c.RxFrames != 100 || c.RxBytes != 100*60+99*100/2 {
		t.Errorf("rx counted %d frames, %d bytes", c.RxFrames, c.RxBytes)
	}
}

func TestPullStopsAtPullBytes(t *testing.T) {
	p := mem.New(mem.Config{Workers: 1, Slots: 8, FrameSize: dataplane.MaxFrame})
	for range 8 {
		p.InjectBytes(0, make([]byte, 60000))
	}
	// 60,000 and 120,000 are below 131,072; 180,000 is not.
	for _, want := range []int{3, 3, 2, 0} {
		if b := pull(p, 0); b.N != want {
			t.Errorf("pulled %d frames, want %d", b.N, want)
		}
	}
}

func TestFramesOnLoanAreNotOverwritten(t *testing.T) {
	p := mem.New(mem.Config{Workers: 1, Slots: 4})
	p.InjectBytes(0, []byte("a"), []byte("b"), []byte("c"))
	b := pull(p, 0)
	if n := p.InjectBytes(0, []byte("d"), []byte("e"), []byte("f")); n != 1 {
		t.Errorf("a ring of 4 with 3 frames on loan took %d more, want 1", n)
	}
	if got := string(b.Frames[0].Bytes()); got != "a" {
		t.Errorf("the frame on loan is %q now, want %q", got, "a")
	}
	if b = pull(p, 0); b.N != 1 || string(b.Frames[0].Bytes()) != "d" {
		t.Errorf("the next Pull gave %d frames", b.N)
	}
}

func TestPushKeepsSelectionAndOrder(t *testing.T) {
	p := mem.New(mem.Config{Workers: 1})
	b := batchOf(0, numbered(0, 60), numbered(1, 61), numbered(2, 62), numbered(3, 63))
	b.Sel = 0b1101
	p.Push(b)
	sent := p.Sent(0)
	if len(sent) != 3 {
		t.Fatalf("sent %d frames, want 3", len(sent))
	}
	for i, n := range []int{0, 2, 3} {
		want := numbered(n, 60+n)
		if !bytes.Equal(sent[i].Data, want.Data) || sent[i].Owes != want.Owes {
			t.Errorf("sent frame %d is %d bytes owing %+v, want frame %d", i, len(sent[i].Data), sent[i].Owes, n)
		}
	}
	if more := p.Sent(0); len(more) != 0 {
		t.Errorf("Sent gave %d frames twice", len(more))
	}
	if c := p.Counters().Totals(); c.TxFrames != 3 || c.TxBytes != 60+62+63 {
		t.Errorf("tx counted %d frames, %d bytes", c.TxFrames, c.TxBytes)
	}
}

func TestPushDrops(t *testing.T) {
	tests := []struct {
		name  string
		fault dataplane.Drop
		sizes []int
		want  dataplane.Drop
		drops uint64
	}{
		{"ring full", dataplane.None, []int{60, 60, 60}, dataplane.TxQueueFull, 1},
		{"longer than a slot", dataplane.None, []int{60, 101}, dataplane.TxRefused, 1},
		{"device down", dataplane.TxDown, []int{60, 60}, dataplane.TxDown, 2},
		{"device full", dataplane.TxQueueFull, []int{60}, dataplane.TxQueueFull, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mem.New(mem.Config{Workers: 1, Slots: 2, FrameSize: 100})
			p.Fail(tt.fault)
			var frames []mem.Frame
			for i, n := range tt.sizes {
				frames = append(frames, numbered(i, n))
			}
			p.Push(batchOf(0, frames...))
			c := p.Counters().Totals()
			if c.Drops[tt.want] != tt.drops || c.TxFrames != uint64(len(tt.sizes))-tt.drops {
				t.Errorf("drops %v, sent %d; want %d of %v", c.Drops, c.TxFrames, tt.drops, tt.want)
			}
			p.Sent(0)
			p.Fail(dataplane.None)
			p.Push(batchOf(0, numbered(0, 60)))
			if len(p.Sent(0)) != 1 {
				t.Error("the port doesn't send after the fault ended")
			}
		})
	}
}

// TestPairJoinsWorkers sends frames from a to b on two workers at once; b sends
// each back, and a has never more in flight than fit the ring.
func TestPairJoinsWorkers(t *testing.T) {
	const rounds, window, workers = 2000, 16, 2
	a, b := mem.Pair(mem.Config{Workers: workers, Slots: 2 * window}) // Frames on loan take slots too.
	var wg sync.WaitGroup
	errs := make(chan error, 2*workers)
	for w := range workers {
		wg.Go(func() {
			in := &dataplane.Batch{Worker: w}
			for sent, back := 0, 0; back < rounds; {
				if sent < rounds && sent-back < window {
					a.Push(batchOf(w, numbered(sent%251, 60)))
					sent++
				}
				in.Reset()
				a.Pull(in)
				if in.N == 0 {
					runtime.Gosched()
				}
				for i := range in.N {
					if got := in.Frames[i].Bytes()[0]; got != byte(back%251) {
						errs <- fmt.Errorf("worker %d: frame %d came back as number %d", w, back, got)
					}
					back++
				}
			}
		})
		wg.Go(func() {
			in := &dataplane.Batch{Worker: w}
			for n := 0; n < rounds; n += in.N {
				in.Reset()
				b.Pull(in)
				b.Push(in)
				if in.N == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := a.Inject(0, numbered(1, 60)); n != 0 {
		t.Error("Inject on a paired port competes with the other end's worker")
	}
}

func TestLoopGivesTheSameFramesAgain(t *testing.T) {
	p := mem.NewLoop(mem.Config{Workers: 2, Restore: 4}, numbered(1, 60), numbered(2, 1000))
	for range 3 {
		b := pull(p, 1)
		if b.N != 2 || b.Bytes != 1060 {
			t.Fatalf("pulled %d frames of %d bytes, want 2 of 1060", b.N, b.Bytes)
		}
		for i := range b.N {
			f, want := &b.Frames[i], numbered(i+1, []int{60, 1000}[i])
			if !bytes.Equal(f.Bytes(), want.Data) || f.Owes != want.Owes {
				t.Errorf("frame %d is not what was loaded", i)
			}
			clear(f.Bytes()[:4])
			f.Off, f.Len, f.Owes = f.Off-4, 20, wire.VNetHdr{}
		}
		p.Push(b)
	}
	if c := p.Counters().Totals(); c.RxFrames != 6 || c.RxBytes != 3*1060 || c.TxFrames != 6 || c.TxBytes != 6*20 {
		t.Errorf("counted %+v", c)
	}
}

// TestRingAgainstModel holds a port against two slices in random operations.
func TestRingAgainstModel(t *testing.T) {
	const slots = 16
	rnd := rand.New(rand.NewPCG(1, 2))
	p := mem.New(mem.Config{Workers: 1, Slots: slots})
	var in, out []byte
	lent := 0
	for i := range 5000 {
		id := byte(i)
		switch rnd.IntN(4) {
		case 0, 1:
			want := 0
			if len(in)+lent < slots {
				in, want = append(in, id), 1
			}
			if got := p.Inject(0, numbered(int(id), 14)); got != want {
				t.Fatalf("step %d: Inject took %d, want %d", i, got, want)
			}
		case 2:
			b := pull(p, 0)
			if b.N != len(in) {
				t.Fatalf("step %d: pulled %d, want %d", i, b.N, len(in))
			}
			for j := range b.N {
				if b.Frames[j].Bytes()[0] != in[j] {
					t.Fatalf("step %d: frame %d is %d, want %d", i, j, b.Frames[j].Bytes()[0], in[j])
				}
			}
			in, lent = nil, b.N
			for j := range b.N {
				if len(out) < slots {
					out = append(out, b.Frames[j].Bytes()[0])
				}
			}
			p.Push(b)
		case 3:
			sent := p.Sent(0)
			if len(sent) != len(out) {
				t.Fatalf("step %d: sent %d, want %d", i, len(sent), len(out))
			}
			for j := range sent {
				if sent[j].Data[0] != out[j] {
					t.Fatalf("step %d: sent frame %d is %d, want %d", i, j, sent[j].Data[0], out[j])
				}
			}
			out = nil
		}
	}
}

func TestConfigOutOfBoundsPanics(t *testing.T) {
	for _, cfg := range []mem.Config{
		{}, {Workers: 1, Slots: -1}, {Workers: 1, FrameSize: dataplane.MaxFrame + 1}, {Workers: 1, Restore: -1},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%+v) doesn't panic", cfg)
				}
			}()
			mem.New(cfg)
		}()
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	p := mem.New(mem.Config{Workers: 1})
	loop := mem.NewLoop(mem.Config{Workers: 1, Restore: 64}, numbered(1, 60), numbered(2, 60))
	a, b := mem.Pair(mem.Config{Workers: 1})
	batch := batchOf(0, numbered(1, 60), numbered(2, 60))
	in := &dataplane.Batch{}
	for name, f := range map[string]func(){
		"push until full": func() { p.Push(batch) },
		"pull nothing":    func() { in.Reset(); p.Pull(in) },
		"loop":            func() { in.Reset(); loop.Pull(in); loop.Push(in) },
		"pair":            func() { a.Push(batch); in.Reset(); b.Pull(in) },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
}

func BenchmarkLoop64(b *testing.B) {
	frames := make([]mem.Frame, dataplane.BatchSize)
	for i := range frames {
		frames[i] = numbered(i, 64)
	}
	p := mem.NewLoop(mem.Config{Workers: 1}, frames...)
	batch := &dataplane.Batch{}
	for b.Loop() {
		batch.Reset()
		p.Pull(batch)
		p.Push(batch)
	}
	perFrame(b)
}

func BenchmarkPair64(b *testing.B) {
	frames := make([]mem.Frame, dataplane.BatchSize)
	for i := range frames {
		frames[i] = numbered(i, 64)
	}
	x, y := mem.Pair(mem.Config{Workers: 1})
	out, in := batchOf(0, frames...), &dataplane.Batch{}
	for b.Loop() {
		x.Push(out)
		in.Reset()
		y.Pull(in)
	}
	perFrame(b)
}

// perFrame reports the time of a frame in a loop over full batches.
func perFrame(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*dataplane.BatchSize), "ns/frame")
}
