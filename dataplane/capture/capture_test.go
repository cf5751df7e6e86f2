package capture_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/capture"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// numbered returns a frame of n bytes, at least 4, that begins with its number.
func numbered(number, n int) mem.Frame {
	data := bytes.Repeat([]byte{byte(number)}, n)
	binary.BigEndian.PutUint32(data, uint32(number))
	return mem.Frame{Data: data, Owes: wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(number)}}
}

func number(data []byte) int { return int(binary.BigEndian.Uint32(data)) }

func batchOf(worker int, frames ...mem.Frame) *dataplane.Batch {
	b := &dataplane.Batch{Worker: worker}
	for _, fr := range frames {
		f := b.Next()
		f.Buf = make([]byte, dataplane.Headroom+len(fr.Data))
		f.Off, f.Len, f.Owes = dataplane.Headroom, len(fr.Data), fr.Owes
		copy(f.Bytes(), fr.Data)
		b.Add()
	}
	return b
}

func newCapture(t testing.TB, cfg capture.Config) *capture.Capture {
	t.Helper()
	c, err := capture.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// read returns what a capture holds, as copies.
func read(c *capture.Capture) []capture.Record {
	var all []capture.Record
	c.Read(func(r capture.Record) {
		r.Data = bytes.Clone(r.Data)
		all = append(all, r)
	})
	return all
}

func TestRecordsSayWhatPassed(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1})
	inner := mem.New(mem.Config{Workers: 1})
	mirror := c.Wrap(7, inner)

	inner.Inject(0, numbered(1, 60), numbered(2, 1514))
	in := &dataplane.Batch{Now: 100}
	mirror.Pull(in)
	out := batchOf(0, numbered(3, 60), numbered(4, 61), numbered(5, 62))
	out.Now, out.Sel = 200, 0b101
	mirror.Push(out)

	if in.N != 2 || len(inner.Sent(0)) != 2 {
		t.Errorf("the inner port gave %d frames and took others than 2", in.N)
	}
	want := []capture.Record{
		{Time: 100, Port: 7, Dir: capture.In, Len: 60},
		{Time: 100, Port: 7, Dir: capture.In, Len: 1514},
		{Time: 200, Port: 7, Dir: capture.Out, Len: 60},
		{Time: 200, Port: 7, Dir: capture.Out, Len: 62},
	}
	got := read(c)
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, num := range []int{1, 2, 3, 5} {
		f := numbered(num, want[i].Len)
		want[i].Data, want[i].Owes = f.Data, f.Owes
		if !equal(got[i], want[i]) {
			t.Errorf("record %d: %v frame of %d bytes on port %d at %d owing %+v; want frame %d, %+v",
				i, got[i].Dir, got[i].Len, got[i].Port, got[i].Time, got[i].Owes, num, want[i].Owes)
		}
	}
	if n := c.Read(func(capture.Record) {}); n != 0 {
		t.Errorf("Read gave %d records twice", n)
	}
	if n := c.Missed(); n != 0 {
		t.Errorf("missed %d frames, want none", n)
	}
}

func equal(a, b capture.Record) bool {
	return a.Time == b.Time && a.Port == b.Port && a.Dir == b.Dir && a.Len == b.Len && a.Owes == b.Owes && bytes.Equal(a.Data, b.Data)
}

func TestSnapLen(t *testing.T) {
	for _, tt := range []struct{ snap, frame, kept int }{
		{0, 60000, 60000}, {64, 60, 60}, {64, 64, 64}, {64, 65, 64}, {1, 1000, 1}, {1 << 20, 60000, 60000},
	} {
		c := newCapture(t, capture.Config{Workers: 1, SnapLen: tt.snap})
		f := numbered(9, tt.frame)
		c.Wrap(1, mem.New(mem.Config{Workers: 1})).Push(batchOf(0, f))
		got := read(c)
		if len(got) != 1 || got[0].Len != tt.frame || !bytes.Equal(got[0].Data, f.Data[:tt.kept]) {
			t.Errorf("snaplen %d of a frame of %d bytes: %d records; want one with %d bytes", tt.snap, tt.frame, len(got), tt.kept)
		}
	}
}

// TestOutIsCopiedBeforeThePortSettlesIt pushes a partial checksum to a port
// that completes it in place.
func TestOutIsCopiedBeforeThePortSettlesIt(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1})
	mirror := c.Wrap(1, mem.New(mem.Config{Workers: 1, NoPartial: true}))
	f := numbered(1, 60)
	f.Owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 34, CsumOffset: 6}
	mirror.Push(batchOf(0, f))
	if got := read(c); len(got) != 1 || !got[0].Owes.Partial() || !bytes.Equal(got[0].Data, f.Data) {
		t.Errorf("the record isn't what was handed to the port: %+v", got)
	}
}

func TestSeveralPortsAndWorkersMergeByTime(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 2})
	mirrors := []*capture.Mirror{
		c.Wrap(1, mem.New(mem.Config{Workers: 2})),
		c.Wrap(2, mem.New(mem.Config{Workers: 2})),
	}
	// Each worker's rounds are in order, the two workers' aren't.
	for _, r := range []struct {
		worker, port int
		now          int64
	}{{1, 0, 10}, {1, 1, 30}, {1, 0, 50}, {0, 1, 20}, {0, 0, 40}, {0, 1, 40}} {
		b := batchOf(r.worker, numbered(int(r.now), 60))
		b.Now = r.now
		mirrors[r.port].Push(b)
	}
	var times []int64
	var ports []dataplane.PortID
	for _, r := range read(c) {
		times, ports = append(times, r.Time), append(ports, r.Port)
	}
	if !slices.Equal(times, []int64{10, 20, 30, 40, 40, 50}) || !slices.Equal(ports, []dataplane.PortID{1, 2, 2, 1, 2, 1}) {
		t.Errorf("records at %v of ports %v", times, ports)
	}
}

// TestAgainstModel holds a ring against a plain list in random operations: what
// isn't missed comes out whole and in order, and a miss only happens when the
// ring has less room left than the frame takes.
func TestAgainstModel(t *testing.T) {
	const ringBytes, header, align = 256 << 10, 32, 32
	rnd := rand.New(rand.NewPCG(3, 4))
	c := newCapture(t, capture.Config{Workers: 1, RingBytes: ringBytes, SnapLen: 30000})
	mirror := c.Wrap(1, mem.NewLoop(mem.Config{Workers: 1}, numbered(0, 60)))
	var want []mem.Frame
	held, missed := 0, uint64(0)
	for i := range 4000 {
		if rnd.IntN(20) == 0 {
			got := read(c)
			if len(got) != len(want) {
				t.Fatalf("step %d: %d records, want %d", i, len(got), len(want))
			}
			for j, r := range got {
				f := want[j]
				if r.Len != len(f.Data) || !bytes.Equal(r.Data, f.Data[:min(len(f.Data), 30000)]) || r.Owes != f.Owes {
					t.Fatalf("step %d: record %d is frame %d of %d bytes, want frame %d of %d",
						i, j, number(r.Data), r.Len, number(f.Data), len(f.Data))
				}
			}
			want, held = nil, 0
			continue
		}
		size := 4 + rnd.IntN(200)
		if rnd.IntN(4) == 0 {
			size = 4 + rnd.IntN(dataplane.MaxFrame-4)
		}
		f := numbered(i, size)
		b := batchOf(0, f)
		b.Now = int64(i)
		mirror.Push(b)
		need := (header + min(size, 30000) + align - 1) &^ (align - 1)
		switch now := c.Missed(); {
		case now == missed:
			want, held = append(want, f), held+need
		// At most one gap, shorter than what didn't fit there, is in the ring.
		case now == missed+1 && held+2*(header+30000+align) > ringBytes-need:
			missed = now
		default:
			t.Fatalf("step %d: missed %d → %d with %d of %d bytes held and %d to add", i, missed, now, held, ringBytes, need)
		}
	}
	if missed == 0 {
		t.Error("the ring was never full")
	}
}

func TestFullRingMissesAndGoesOn(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1, RingBytes: 256 << 10})
	inner := mem.New(mem.Config{Workers: 1, Slots: 8, FrameSize: dataplane.MaxFrame})
	mirror := c.Wrap(1, inner)
	for i := range 8 {
		b := batchOf(0, numbered(i, 60000))
		b.Now = int64(i)
		mirror.Push(b)
	}
	if sent := inner.Sent(0); len(sent) != 8 {
		t.Errorf("the port took %d frames, want all 8", len(sent))
	}
	if got := read(c); len(got) != 4 || c.Missed() != 4 {
		t.Errorf("%d records and %d missed, want the first 4 of 60,000 bytes in 256 KB and 4", len(got), c.Missed())
	}
	mirror.Push(batchOf(0, numbered(9, 60)))
	if got := read(c); len(got) != 1 || number(got[0].Data) != 9 {
		t.Errorf("after Read the capture doesn't go on: %d records", len(got))
	}
}

func TestARoundIsBounded(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1})
	mirror := c.Wrap(1, mem.NewLoop(mem.Config{Workers: 1}, numbered(0, 60)))
	big := batchOf(0, numbered(1, 60000))
	round := func(now int64) (kept int) {
		big.Now = now
		for range 30 {
			mirror.Push(big)
		}
		return len(read(c))
	}
	// The ninth frame begins below 512 KB, the tenth doesn't.
	for now := range int64(3) {
		if kept := round(now); kept != 9 {
			t.Errorf("round %d kept %d frames of 60,000 bytes, want 9", now, kept)
		}
	}
	if n := c.Missed(); n != 3*21 {
		t.Errorf("missed %d, want %d", n, 3*21)
	}
}

// TestReadWhileWorkersRun has two workers push while a goroutine reads as
// control code does.
func TestReadWhileWorkersRun(t *testing.T) {
	lab.New(t) // For its leak checks.
	const workers, frames = 2, 20000
	c, err := capture.New(capture.Config{Workers: workers, RingBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	mirror := c.Wrap(3, mem.NewLoop(mem.Config{Workers: workers}, numbered(0, 60)))
	last := [workers]int{-1, -1}
	records := 0
	check := func(r capture.Record) {
		n := number(r.Data)
		w := n % workers
		if n <= last[w] || !bytes.Equal(r.Data, numbered(n, r.Len).Data) {
			t.Errorf("record of frame %d after %d, or it isn't whole", n, last[w])
		}
		last[w] = n
		records++
	}
	var reader, pushers sync.WaitGroup
	reader.Go(func() {
		for c.Wait() {
			c.Read(check)
		}
		c.Read(check)
	})
	for w := range workers {
		pushers.Go(func() {
			b := batchOf(w, numbered(0, 100), numbered(0, 1500))
			for i := range frames / 2 {
				b.Now = int64(i)
				for j := range b.N {
					data := b.Frames[j].Bytes()
					copy(data, numbered((i*2+j)*workers+w, len(data)).Data)
				}
				mirror.Push(b)
			}
		})
	}
	pushers.Wait()
	c.Stop()
	reader.Wait()
	if got := uint64(records) + c.Missed(); got != workers*frames {
		t.Errorf("%d records and %d missed of %d frames", records, c.Missed(), workers*frames)
	}
	if c.Wait() {
		t.Error("Wait after Stop says that there is more to come")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c.Close() == nil {
		t.Error("a second Close is no error")
	}
}

// TestAFullRingWakesTheReader: a ring that is half full ends a Wait.
func TestAFullRingWakesTheReader(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1, RingBytes: 256 << 10})
	mirror := c.Wrap(1, mem.NewLoop(mem.Config{Workers: 1}, numbered(0, 60)))
	quickest := time.Hour
	for round := range int64(10) { // Another process may have the processor for a while.
		for range 3 {
			b := batchOf(0, numbered(1, 60000))
			b.Now = round
			mirror.Push(b)
		}
		start := time.Now()
		c.Wait()
		quickest = min(quickest, time.Since(start))
		read(c)
	}
	if quickest > 10*time.Millisecond {
		t.Errorf("Wait took %v at best although the ring was half full", quickest)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []capture.Config{
		{}, {Workers: dataplane.MaxWorkers + 1}, {Workers: 1, SnapLen: -1},
		{Workers: 1, RingBytes: -1}, {Workers: 1, RingBytes: capture.MaxRingBytes + 1},
	} {
		if _, err := capture.New(cfg); err == nil {
			t.Errorf("New(%+v) is no error", cfg)
		}
	}
}

func TestTapIsThePortInside(t *testing.T) {
	c := newCapture(t, capture.Config{Workers: 1})
	inner := mem.New(mem.Config{Workers: 1})
	mirror := c.Wrap(1, inner)
	if mirror.FD(0) != inner.FD(0) || mirror.Counters() != inner.Counters() || mirror.Inner() != dataplane.Port(inner) || mirror.Close() != nil {
		t.Error("the Mirror isn't the port inside")
	}
}
