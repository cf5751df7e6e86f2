package load

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// made returns frame number seq of a flow.
func made(t *testing.T, f Frames, flow uint16, seq uint64) []byte {
	t.Helper()
	templates, err := f.templates()
	if err != nil {
		t.Fatal(err)
	}
	stamp(templates[flow], flow, seq)
	return templates[flow]
}

func TestFrameGolden(t *testing.T) {
	want := strings.ReplaceAll(
		"0248646c0002 0248646c0001 0800"+ // Ethernet.
			"4500 002e 0000 0000 40 11 2697 c6126401 c6126402"+ // IPv4, 46 bytes, checksum right.
			"2712 0009 001a 0000"+ // UDP, port 10002 to 9, 26 bytes, no checksum.
			"48646c65 0002 0000000000000007", " ", "") // Magic, flow, sequence.
	f := DefaultFrames()
	f.Flows = 3
	frame := made(t, f, 2, 7)
	if got := hex.EncodeToString(frame[:offHash]); got != want {
		t.Errorf("frame\n%s, want\n%s", got, want)
	}
	if len(frame) != 60 {
		t.Errorf("a frame of %d bytes", len(frame))
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil || p.Layer(layers.LayerTypeUDP) == nil {
		t.Errorf("gopacket reads %v", p)
	}
}

func TestFramesRefused(t *testing.T) {
	for name, change := range map[string]func(*Frames){
		"no flows":  func(f *Frames) { f.Flows = 0 },
		"flows":     func(f *Frames) { f.Flows = MaxFlows + 1 },
		"too short": func(f *Frames) { f.Size = MinSize - 1 },
		"too long":  func(f *Frames) { f.Size = MaxSize + 1 },
		"no MAC":    func(f *Frames) { f.Dst = nil },
	} {
		f := DefaultFrames()
		change(&f)
		if _, err := NewChecker(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCheckerVerdicts(t *testing.T) {
	f := DefaultFrames()
	f.Flows, f.Size = 2, 80
	frame := func(flow uint16, seq uint64) []byte { return made(t, f, flow, seq) }
	damaged := func(at int) []byte {
		b := frame(0, 5)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name   string
		frames [][]byte
		want   Received
	}{
		{"in order", [][]byte{frame(0, 0), frame(1, 0), frame(0, 1)}, Received{Delivered: 3}},
		{"loss", [][]byte{frame(0, 0), frame(0, 9)}, Received{Delivered: 2}},
		{"duplicate", [][]byte{frame(0, 0), frame(0, 1), frame(0, 0)}, Received{Delivered: 2, Duplicates: 1}},
		{"reordered", [][]byte{frame(0, 1), frame(0, 0)}, Received{Delivered: 2, Reordered: 1}},
		{"another flow's number", [][]byte{frame(0, 1), frame(1, 0)}, Received{Delivered: 2}},
		{"late", [][]byte{frame(0, window+1), frame(0, 0)}, Received{Delivered: 1, Late: 1}},
		{"far ahead forgets", [][]byte{frame(0, 3), frame(0, 3+2*window), frame(0, 3+window+1)}, Received{Delivered: 3, Reordered: 1}},
		{"damaged source address", [][]byte{damaged(26)}, Received{Corrupt: 1}},
		{"damaged port", [][]byte{damaged(35)}, Received{Corrupt: 1}},
		{"damaged flow", [][]byte{damaged(offFlow)}, Received{Corrupt: 1}},
		{"damaged sequence", [][]byte{damaged(offSeq)}, Received{Corrupt: 1}},
		{"damaged hash", [][]byte{damaged(offHash)}, Received{Corrupt: 1}},
		{"damaged filler", [][]byte{damaged(79)}, Received{Corrupt: 1}},
		{"cut short", [][]byte{frame(0, 5)[:70]}, Received{Corrupt: 1}},
		{"padded", [][]byte{append(frame(0, 5), 0)}, Received{Corrupt: 1}},
		{"foreign", [][]byte{damaged(0), {1, 2, 3}, {}}, Received{Foreign: 3}},
	} {
		checker, err := NewChecker(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.frames {
			checker.Check(b)
		}
		if got := checker.Received(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// The checker's window against a map of everything seen.
func TestCheckerAgainstModel(t *testing.T) {
	f := DefaultFrames()
	rng := rand.New(rand.NewPCG(1, 2))
	checker, err := NewChecker(f)
	if err != nil {
		t.Fatal(err)
	}
	frame := made(t, f, 0, 0)
	seen := map[uint64]bool{}
	var want Received
	var next uint64
	for range 300_000 {
		seq := next
		switch rng.IntN(4) {
		case 0:
			seq += rng.Uint64N(40)
		case 1:
			seq -= min(seq, rng.Uint64N(60))
		case 2:
			if rng.IntN(1000) == 0 {
				seq += rng.Uint64N(2 * window)
			}
		}
		switch {
		case seq < next && next-seq > window:
			want.Late++
		case seen[seq]:
			want.Duplicates++
		default:
			if seq < next {
				want.Reordered++
			}
			want.Delivered++
			seen[seq] = true
		}
		next = max(next, seq+1)
		stamp(frame, 0, seq)
		checker.Check(frame)
	}
	if got := checker.Received(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestVerify(t *testing.T) {
	good := Received{Delivered: 10, Seconds: 1}
	if err := good.Verify(20); err != nil {
		t.Errorf("loss alone is refused: %v", err)
	}
	for name, bad := range map[string]Received{
		"corrupt":    {Delivered: 10, Corrupt: 1},
		"duplicates": {Delivered: 10, Duplicates: 1},
		"reordered":  {Delivered: 10, Reordered: 1},
		"late":       {Delivered: 10, Late: 1},
		"ring":       {Delivered: 10, RingDropped: 1},
		"too many":   {Delivered: 21},
		"nothing":    {},
	} {
		if bad.Verify(20) == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	for _, c := range []struct {
		came, sent, want float64
	}{{2, 1, 5}, {2, 2, 5}, {0.001, 2, 5}, {0, 2, 0}} {
		if got := (Received{Delivered: 11, Seconds: c.came}).Rate(Sent{Seconds: c.sent}); got != c.want {
			t.Errorf("11 frames in %v s, sent in %v: rate %v, want %v", c.came, c.sent, got, c.want)
		}
	}
	if got := (Received{}).Rate(Sent{Seconds: 1}); got != 0 {
		t.Errorf("rate of nothing %v", got)
	}
}

// A frame that differs from a sent one anywhere is never delivered.
func FuzzChecker(f *testing.F) {
	frames := DefaultFrames()
	templates, err := frames.templates()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(templates[0])
	f.Add(templates[0][:59])
	f.Fuzz(func(t *testing.T, b []byte) {
		checker, err := NewChecker(frames)
		if err != nil {
			t.Fatal(err)
		}
		if !checker.Check(b) {
			return
		}
		var seq uint64
		for _, octet := range b[offSeq:offHash] {
			seq = seq<<8 | uint64(octet)
		}
		if want := made(t, frames, 0, seq); !bytes.Equal(b, want) {
			t.Errorf("%x delivered, sent was %x", b, want)
		}
	})
}

func TestCheckDoesNotAllocate(t *testing.T) {
	f := DefaultFrames()
	checker, err := NewChecker(f)
	if err != nil {
		t.Fatal(err)
	}
	frame := made(t, f, 0, 0)
	seq := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		stamp(frame, 0, seq)
		checker.Check(frame)
		seq++
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	f := DefaultFrames()
	checker, err := NewChecker(f)
	if err != nil {
		b.Fatal(err)
	}
	frame := append([]byte(nil), checker.templates[0]...)
	seq := uint64(0)
	for b.Loop() {
		stamp(frame, 0, seq)
		checker.Check(frame)
		seq++
	}
}
