package offload

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"heddle/dataplane/wire"
)

// grown is what came out of a Coalescer.
type grown struct {
	frame []byte
	owes  wire.VNetHdr
	took  int // How many frames went in.
}

// coalesce puts the frames into one buffer, behind each other, and joins what
// can be joined there in place, as a tunnel does. It checks that a frame that
// was not joined is as it was, and that nothing is written beyond the frames.
func coalesce(t testing.TB, frames [][]byte, mtu int) (out []grown) {
	t.Helper()
	total := 0
	for _, f := range frames {
		total += testGap + len(f)
	}
	const guard = 64
	buf := make([]byte, total, total+guard)
	at := make([]int, len(frames))
	n := 0
	for i, f := range frames {
		at[i] = n + testGap
		n += testGap + copy(buf[at[i]:], f)
	}
	var c Coalescer
	open, head := false, 0
	for i, f := range frames {
		place := buf[at[i] : at[i]+len(f)]
		if !bytes.Equal(place, f) {
			t.Fatalf("frame %d was changed before its turn", i)
		}
		if open && c.Add(place) {
			out[len(out)-1].took++
			continue
		}
		if open && !bytes.Equal(place, f) {
			t.Fatalf("frame %d was changed and not joined", i)
		}
		finish(t, &c, buf, head, open, out)
		var owes wire.VNetHdr
		owes, open = c.Begin(buf, at[i], len(f), mtu)
		head = at[i]
		out = append(out, grown{bytes.Clone(place), owes, 1})
	}
	finish(t, &c, buf, head, open, out)
	if !bytes.Equal(buf[total:total+guard], make([]byte, guard)) {
		t.Fatal("something was written behind the buffer")
	}
	return out
}

// finish ends the last frame of out, whose first byte is buf[head], if it is
// open.
func finish(t testing.TB, c *Coalescer, buf []byte, head int, open bool, out []grown) {
	t.Helper()
	n, owes := c.End()
	if !open {
		if n != 0 {
			t.Fatal("a frame ended that was not open")
		}
		return
	}
	last := &out[len(out)-1]
	if last.took == 1 && (!bytes.Equal(buf[head:head+n], last.frame) || owes != last.owes) {
		t.Fatal("a frame that nothing was joined to was changed")
	}
	last.frame, last.owes = bytes.Clone(buf[head:head+n]), owes
}

// checkRestores fails the test if cutting what came out does not give what went
// in, with complete checksums.
func checkRestores(t testing.TB, in [][]byte, out []grown, mtu int) {
	t.Helper()
	for _, g := range out {
		want := in[:g.took]
		in = in[g.took:]
		if !Check(g.frame, &g.owes) {
			t.Fatalf("what came out contradicts itself: %+v", g.owes)
		}
		if g.took == 1 {
			if !bytes.Equal(g.frame, want[0]) {
				t.Fatal("a frame was changed")
			}
			continue
		}
		if !g.owes.Partial() || int(g.owes.HdrLen) != HeaderLen(g.frame, &g.owes) {
			t.Fatalf("a joined frame owes %+v", g.owes)
		}
		got := segmentsOf(t, g.frame, &g.owes)
		if len(got) != len(want) {
			t.Fatalf("%d frames were joined and %d cut", len(want), len(got))
		}
		for i, w := range want {
			w = bytes.Clone(w)
			owes := Adopt(w, mtu, 0)
			if !Complete(w, &owes) {
				t.Fatal("a frame was joined that can't be completed")
			}
			sameButID(t, got[i], w, i)
		}
	}
	if len(in) != 0 {
		t.Fatalf("%d frames are missing", len(in))
	}
}

// sameButID compares a cut segment with the original, which may have the first
// one's identification if it has DF.
func sameButID(t testing.TB, got, want []byte, i int) {
	t.Helper()
	if _, l3, ok := wire.L3(want); ok && want[l3]>>4 == 4 {
		a, _ := wire.IPv4At(got, l3)
		b, _ := wire.IPv4At(want, l3)
		if b.FlagsFrag()&wire.IPv4DontFragment != 0 && a.ID() == b.ID()+uint16(i) {
			b.SetID(a.ID())
			csum, _ := wire.IPv4Checksum(want, l3)
			b.SetChecksum(csum)
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("segment %d is not what went in\n got % x\nwant % x", i, got[:min(len(got), 80)], want[:min(len(want), 80)])
	}
}

// segmentsOf cuts a frame.
func segmentsOf(t testing.TB, frame []byte, h *wire.VNetHdr) (out [][]byte) {
	t.Helper()
	var s Segmenter
	if !s.Begin(frame, h) {
		t.Fatalf("a joined frame can't be cut: %+v", *h)
	}
	for range s.Count() {
		b := make([]byte, 65536)
		out = append(out, b[:s.Next(b)])
	}
	return out
}

// stream is a super-frame as its segments, as they arrive.
func stream(t testing.TB, s super, r *rand.Rand) [][]byte {
	t.Helper()
	frame, h := s.build(r)
	if s.size == 0 {
		return [][]byte{frame}
	}
	return segmentsOf(t, frame, &h)
}
