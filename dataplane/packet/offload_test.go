package packet

import (
	"bytes"
	"testing"

	"heddle/dataplane"
)

// TestKernelSegmentsWhatPushGives has the interface's offloads off, so that
// the kernel must cut and complete what Push hands it by the virtio-net header
// alone; the wire must show right checksums and all of the payload.
func TestKernelSegmentsWhatPushGives(t *testing.T) {
	c := newCable(t, 1)
	c.offloads("near", allOff)
	for name, s := range everyFrame() {
		if !s.owes.Partial() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c.port.Push(batchOf(0, s))
			checkSegments(t, c, s)
		})
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
}

// TestSettle does in software what an older kernel refuses.
func TestSettle(t *testing.T) {
	c := newCable(t, 1)
	for name, s := range everyFrame() {
		t.Run(name, func(t *testing.T) {
			b := batchOf(0, s)
			d := c.port.queues[0].settle(&b.Frames[0], 0)
			if !s.owes.Partial() {
				if d != dataplane.TxRefused {
					t.Errorf("a frame that owes nothing, refused by the kernel: %v", d)
				}
				return
			}
			if d != dataplane.None {
				t.Fatal(d)
			}
			checkSegments(t, c, s)
		})
	}
}

// checkSegments takes in the segments of s at the far end and checks them.
func checkSegments(t *testing.T, c *cable, s sent) {
	t.Helper()
	hdr := len(s.frame) // Of a frame that is its own segment, everything but the checksum.
	count, payload := 1, []byte(nil)
	if s.owes.GSO() {
		hdr = int(s.owes.HdrLen)
		count = (len(s.frame) - hdr + int(s.owes.GSOSize) - 1) / int(s.owes.GSOSize)
	}
	for range count {
		got := c.far.recv()
		if got.owes.Partial() || got.owes.GSO() {
			t.Fatalf("a segment still owes %+v", got.owes)
		}
		checkChecksums(t, got)
		payload = append(payload, got.frame[hdr:]...)
	}
	if !bytes.Equal(payload, s.frame[hdr:]) {
		t.Errorf("the segments' payload is not the frame's")
	}
}

// TestRefusedByTheKernel has the kernel itself refuse a header: a GSO size of
// 65,535 means something else to it (GSO_BY_FRAGS in linux/skbuff.h).
func TestRefusedByTheKernel(t *testing.T) {
	c := newCable(t, 1)
	good := build(recipe{payload: 18})
	odd := build(recipe{tcp: true, payload: 1000, gso: 0xffff})
	c.port.Push(batchOf(0, good, odd, good))
	same(t, c.far.recv(), good)
	got := c.far.recv()
	checkChecksums(t, got)
	if got.owes.GSO() || len(got.frame) != len(odd.frame) {
		t.Errorf("%d bytes that owe %+v, want the frame of %d bytes complete", len(got.frame), got.owes, len(odd.frame))
	}
	same(t, c.far.recv(), good)
	if s := c.port.Counters().Totals(); s.TxFrames != 3 || s.TxBytes != uint64(len(odd.frame)+2*len(good.frame)) {
		t.Errorf("counted %d frames, %d bytes", s.TxFrames, s.TxBytes)
	}
}

func TestPushCountsWhatTheKernelRefuses(t *testing.T) {
	good := build(recipe{payload: 18})
	long := build(recipe{payload: 1600})
	short := sent{frame: []byte{1, 2, 3, 4, 5, 6, 7}}
	badGSO := build(recipe{tcp: true, payload: 3000, gso: 1000})
	badGSO.owes.CsumOffset = 6 // UDP's.
	for _, tc := range []struct {
		name   string
		frames []sent
		want   map[string]uint64
	}{
		{"longer than the MTU", []sent{good, long, good}, map[string]uint64{"tx-refused": 1}},
		{"at both ends", []sent{long, good, good, long}, map[string]uint64{"tx-refused": 2}},
		{"nothing else", []sent{long, long}, map[string]uint64{"tx-refused": 2}},
		{"GSO that contradicts its frame", []sent{good, badGSO, good}, map[string]uint64{"tx-offload": 1}},
		{"many", []sent{long, good, badGSO, good, long, good}, map[string]uint64{"tx-refused": 2, "tx-offload": 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCable(t, 1)
			c.port.Push(batchOf(0, tc.frames...))
			passed := 0
			for _, s := range tc.frames {
				if len(s.frame) == len(good.frame) {
					same(t, c.far.recv(), good)
					passed++
				}
			}
			got := drops(c.port)
			for name, n := range tc.want {
				if got[name] != n || len(got) != len(tc.want) {
					t.Fatalf("drops %v, want %v", got, tc.want)
				}
			}
			if s := c.port.Counters().Totals(); s.TxFrames != uint64(passed) || s.TxBytes != uint64(passed*len(good.frame)) {
				t.Errorf("counted %d frames, %d bytes; %d passed", s.TxFrames, s.TxBytes, passed)
			}
		})
	}
	t.Run("runt", func(t *testing.T) {
		// Root may send runts (dev_validate_header fills them up), so that
		// what happens is the kernel's choice; it must be counted once.
		c := newCable(t, 1)
		c.port.Push(batchOf(0, short, good))
		s := c.port.Counters().Totals()
		if s.TxFrames+s.Drops[dataplane.TxRefused] != 2 || s.TxFrames == 0 {
			t.Errorf("counted %d frames, drops %v", s.TxFrames, drops(c.port))
		}
	})
}

// TestPushSelects sends the selected frames of a batch only, in their order.
func TestPushSelects(t *testing.T) {
	c := newCable(t, 1)
	frames := make([]sent, dataplane.BatchSize)
	for i := range frames {
		frames[i] = build(recipe{payload: 18 + i, seed: uint64(i)})
	}
	b := batchOf(0, frames...)
	for _, sel := range []uint64{1, 1 << 63, 0x8000_0000_0000_0001, 0xaaaa_5555_0f0f_3c3c, ^uint64(0)} {
		b.Sel = sel
		c.port.Push(b)
		for i, s := range frames {
			if sel>>i&1 != 0 {
				same(t, c.far.recv(), s)
			}
		}
	}
	b.Sel = 0
	c.port.Push(b)
	if s, ok := c.far.tryRecv(0); ok {
		t.Errorf("%d bytes arrived that were not selected", len(s.frame))
	}
}
