package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"heddle/dataplane/wire"
)

const (
	testMTU = 1500
	testGap = 8 // Between two frames, as a VXLAN header is.
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

func TestCoalesceGolden(t *testing.T) {
	const head = "02 00 00 00 00 02  02 00 00 00 00 01  08 00\n"
	in := [][]byte{
		golden(t, head+`45 00 00 30  ff ff 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02
		9c 40 00 50  ff ff ff f8  00 00 00 09  50 90 fa f0  7f 91 00 00   # CWR ACK, seq 2³²-8
		00 01 02 03 04 05 06 07`),
		golden(t, head+`45 00 00 30  00 00 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02   # id wraps
		9c 40 00 50  00 00 00 00  00 00 00 09  50 10 fa f0  5f ea 00 00   # seq 0, ACK
		08 09 0a 0b 0c 0d 0e 0f`),
		golden(t, head+`45 00 00 2c  00 01 40 00  40 06 ae a3  c6 12 00 01  c6 12 00 02   # shorter
		9c 40 00 50  00 00 00 08  00 00 00 09  50 18 fa f0  69 ea 00 00   # seq 8, ACK PSH
		10 11 12 13`),
	}
	want := golden(t, head+`45 00 00 3c  ff ff 40 00  40 06 ae 94  c6 12 00 01  c6 12 00 02
		9c 40 00 50  ff ff ff f8  00 00 00 09  50 98 fa f0  8c 56 00 00   # CWR ACK PSH, partial
		00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  10 11 12 13`)
	owes := wire.VNetHdr{
		Flags: wire.VNetNeedsCsum, GSOType: wire.VNetGSOTCP4 | wire.VNetGSOECN,
		HdrLen: 54, GSOSize: 8, CsumStart: 34, CsumOffset: wire.TCPCsumOff,
	}
	out := coalesce(t, in, testMTU)
	if len(out) != 1 || out[0].owes != owes || !bytes.Equal(out[0].frame, want) {
		t.Fatalf("got %d frames, the first owes %+v:\n% x\nwant\n% x", len(out), out[0].owes, out[0].frame, want)
	}
	checkRestores(t, in, out, testMTU)
}

// TestCoalesceRules changes the second of three segments, or all, and says how
// many frames come out.
func TestCoalesceRules(t *testing.T) {
	v4 := super{tcpOpts: 12, payload: 3000, size: 1000, id: 7, seq: 99, flags: wire.TCPAck}
	v6 := v4
	v6.v6 = true
	with := func(s super, f func(*super)) super { f(&s); return s }
	at := func(i int, v byte) func([][]byte) { return func(f [][]byte) { f[1][i] ^= v; right(f[1]) } }
	for _, c := range []struct {
		name   string
		from   super
		change func(frames [][]byte)
		want   int
	}{
		{"IPv4", v4, nil, 1},
		{"IPv6", v6, nil, 1},
		{"two tags", with(v4, func(s *super) { s.tags = 2 }), nil, 1},
		{"the last is shorter", with(v4, func(s *super) { s.payload = 2500 }), nil, 1},
		{"PSH in the last", with(v4, func(s *super) { s.flags |= wire.TCPPsh }), nil, 1},
		{"CWR in the first", with(v6, func(s *super) { s.flags |= wire.TCPCwr | wire.TCPEce }), nil, 1},
		{"sequence number wraps", with(v4, func(s *super) { s.seq = 0xfffffc00 }), nil, 1},
		{"identification wraps", with(v4, func(s *super) { s.id = 0xffff }), nil, 1},
		{"partial checksums", v4, func(f [][]byte) { partial(f...) }, 1},
		{"one partial checksum", v6, func(f [][]byte) { partial(f[1]) }, 1},
		{"DF and one identification", v4, func(f [][]byte) { setID(7, 0x4000, f...) }, 1},

		{"no DF and one identification", v4, func(f [][]byte) { setID(7, 0, f...) }, 3},
		{"identification jumps", v4, func(f [][]byte) { setID(20, 0x4000, f[1]) }, 3},
		{"identification stays, then counts", v4, func(f [][]byte) { setID(7, 0x4000, f[1]); setID(8, 0x4000, f[2]) }, 2},
		{"lost", v4, func(f [][]byte) { f[1] = f[2] }, 3},
		{"repeated", v4, func(f [][]byte) { f[1] = f[0] }, 3},
		{"swapped", v4, func(f [][]byte) { f[1], f[2] = f[2], f[1] }, 3},
		{"PSH in the second", v4, at(47, wire.TCPPsh), 2},
		{"CWR in the second", v4, at(47, wire.TCPCwr), 2},
		{"ECE in the second", v4, at(47, wire.TCPEce), 3},
		{"FIN", v4, at(47, wire.TCPFin), 3},
		{"SYN", v4, at(47, wire.TCPSyn), 3},
		{"RST", v4, at(47, wire.TCPRst), 3},
		{"URG", v4, at(47, wire.TCPUrg), 3},
		{"no ACK", v4, at(47, wire.TCPAck), 3},
		{"urgent pointer", v4, at(53, 1), 3},
		{"acknowledgment", v4, at(45, 1), 3},
		{"window", v4, at(49, 1), 3},
		{"option", v4, at(54, 0xff), 3},
		{"port", v4, at(35, 1), 3},
		{"TOS", v4, at(15, 3), 3},
		{"TTL", v4, at(22, 1), 3},
		{"source", v4, at(29, 1), 3},
		{"MAC", v4, at(11, 1), 3},
		{"flow label", v6, at(17, 1), 3},
		{"hop limit", v6, at(21, 1), 3},
		{"tag", with(v4, func(s *super) { s.tags = 1 }), at(15, 1), 3},
		{"IPv4 options", with(v4, func(s *super) { s.ipOpts = 4 }), nil, 3},
		{"extension header", with(v6, func(s *super) { s.exts = 1 }), nil, 3},
		{"UDP", with(v4, func(s *super) { s.udp = true }), nil, 3},
		{"longer than the MTU", with(v4, func(s *super) { s.size, s.payload = 1500, 4500 }), nil, 3},
		{"too short to cut again", with(v4, func(s *super) { s.size, s.payload = 8, 24 }), func(f [][]byte) {
			for i := range f {
				f[i] = f[i][:len(f[i])-1]
			}
		}, 3},
		{"wrong TCP checksum", v4, func(f [][]byte) { f[1][len(f[1])-1] ^= 1 }, 3},
		{"wrong IPv4 checksum", v4, func(f [][]byte) { f[1][25] ^= 1 }, 3},
		{"padded", v4, func(f [][]byte) { f[1] = append(f[1], 0) }, 3},
		{"cut short", v4, func(f [][]byte) { f[1] = f[1][:len(f[1])-1] }, 3},
		{"IP length too short", v6, func(f [][]byte) { f[1][19]-- }, 3},
		{"empty", v4, func(f [][]byte) { f[1] = f[1][:66] }, 3},
		{"fragment", v4, at(20, 0x20), 3},
	} {
		frames := stream(t, c.from, rand.New(rand.NewPCG(20, 20)))
		if c.change != nil {
			c.change(frames)
		}
		out := coalesce(t, frames, testMTU)
		if len(out) != c.want {
			t.Errorf("%s: %d frames come out, want %d", c.name, len(out), c.want)
		}
		checkRestores(t, frames, out, testMTU)
	}
}

// right makes the checksums of a TCP frame right.
func right(frame []byte) {
	var l wire.Layers
	if !l.Parse(frame) || l.Proto != wire.ProtoTCP {
		return
	}
	if !l.V6 {
		csum, _ := wire.IPv4Checksum(frame, l.L3)
		binary.BigEndian.PutUint16(frame[l.L3+10:], csum)
	}
	frame[l.L4+16], frame[l.L4+17] = 0, 0
	sum := ^modelSum(frame[l.L4:l.End], modelPseudo(frame, l.L3, l.V6, l.Proto, l.End-l.L4))
	binary.BigEndian.PutUint16(frame[l.L4+16:], sum)
}

// partial leaves the TCP or UDP checksums of frames partial.
func partial(frames ...[]byte) {
	for _, f := range frames {
		var l wire.Layers
		if !l.Parse(f) {
			continue
		}
		at := l.L4 + wire.TCPCsumOff
		if l.Proto == wire.ProtoUDP {
			at = l.L4 + wire.UDPCsumOff
		}
		binary.BigEndian.PutUint16(f[at:], modelPseudo(f, l.L3, l.V6, l.Proto, l.End-l.L4))
	}
}

func setID(id, flags uint16, frames ...[]byte) {
	for _, f := range frames {
		binary.BigEndian.PutUint16(f[18:], id)
		binary.BigEndian.PutUint16(f[20:], flags)
		right(f)
	}
}

// TestCoalesceFills: 64 KB become one frame, and what is beyond the next one;
// the room behind the first one is a bound too.
func TestCoalesceFills(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 21))
	one := super{payload: 1000, size: 0, flags: wire.TCPAck, id: 1, seq: 5}
	var frames [][]byte
	for range 70 {
		frames = append(frames, stream(t, one, r)...)
		one.seq, one.id = one.seq+1000, one.id+1
	}
	out := coalesce(t, frames, testMTU)
	if len(out) != 2 || out[0].took != 65 {
		t.Fatalf("%d frames come out, the first of %d segments, want 2 and 65", len(out), out[0].took)
	}
	checkRestores(t, frames, out, testMTU)

	var c Coalescer
	buf := append(bytes.Clone(frames[0]), make([]byte, 1999)...)
	if _, open := c.Begin(buf, 0, len(frames[0]), testMTU); !open || !c.Add(frames[1]) || c.Add(frames[2]) {
		t.Error("the frame grows beyond its buffer, or not up to it")
	}
	if n, _ := c.End(); n != len(frames[0])+1000 {
		t.Errorf("the frame is %d bytes long", n)
	}
	if n, _ := c.End(); n != 0 {
		t.Error("a frame ends twice")
	}
}

// TestCoalesceMixed: flows in any order, with other frames between and some
// damaged ones, go in, and nothing but joined ones come out.
func TestCoalesceMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 22))
	joined := 0
	for range 300 {
		var frames [][]byte
		for range 1 + r.IntN(6) {
			s := randomSuper(r)
			s.size = min(s.size, 1300)
			s.payload = min(s.payload, s.size*12)
			s.noSum = false
			if r.IntN(2) == 0 {
				s.flags, s.udp, s.exts, s.ipOpts = wire.TCPAck, false, 0, 0
			}
			frames = append(frames, stream(t, s, r)...)
		}
		for range r.IntN(4) {
			i := r.IntN(len(frames))
			switch f := frames[i]; r.IntN(4) {
			case 0:
				f[r.IntN(len(f))] ^= byte(r.Uint32())
			case 1:
				frames[i] = f[:r.IntN(len(f)+1)]
			case 2:
				partial(f)
			case 3:
				f[r.IntN(len(f))] ^= 1 << r.IntN(8)
				right(f)
			}
		}
		out := coalesce(t, frames, testMTU)
		joined += len(frames) - len(out)
		checkRestores(t, frames, out, testMTU)
	}
	if joined < 1000 {
		t.Errorf("only %d frames were joined", joined)
	}
}

func TestAdopt(t *testing.T) {
	for _, c := range []struct {
		name      string
		from      super
		complete  bool
		mtu, size int
		want      wire.VNetHdr
	}{
		{"complete", super{payload: 100}, true, 1450, 0, wire.VNetHdr{}},
		{"partial", super{payload: 100}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
		{"partial UDP", super{udp: true, payload: 100}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 6}},
		{"as long as the MTU", super{payload: 1410}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
		{"TCP4 GSO", super{tcpOpts: 12, payload: 9000}, false, 1450, 0,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOTCP4, HdrLen: 66, GSOSize: 1398, CsumStart: 34, CsumOffset: 16}},
		{"TCP6 GSO, CWR", super{v6: true, flags: wire.TCPCwr, payload: 9000}, false, 1450, 0,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOTCP6 | wire.VNetGSOECN, HdrLen: 74, GSOSize: 1390, CsumStart: 54, CsumOffset: 16}},
		{"UDP GSO", super{udp: true, payload: 9000}, false, 1450, 1400,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOUDPL4, HdrLen: 42, GSOSize: 1400, CsumStart: 34, CsumOffset: 6}},
		{"UDP of unknown size", super{udp: true, payload: 9000}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 6}},
		{"longer than the MTU, but complete", super{payload: 9000}, true, 1450, 0, wire.VNetHdr{}},
		{"no MTU", super{payload: 9000}, false, 0, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
	} {
		c.from.partial = !c.complete
		frame, _ := c.from.build(rand.New(rand.NewPCG(23, 23)))
		if got := Adopt(frame, c.mtu, c.size); got != c.want {
			t.Errorf("%s: owes %+v, want %+v", c.name, got, c.want)
		}
		if c.complete {
			continue
		}
		for _, bad := range [][]byte{append(bytes.Clone(frame), 0), frame[:len(frame)-1], frame[:40], nil} {
			if got := Adopt(bad, c.mtu, c.size); got != (wire.VNetHdr{}) {
				t.Errorf("%s: padded or cut to %d bytes, it owes %+v", c.name, len(bad), got)
			}
		}
	}
}

func FuzzCoalesce(f *testing.F) {
	r := rand.New(rand.NewPCG(24, 24))
	for range 30 {
		s := randomSuper(r)
		s.size = min(s.size, 60)
		s.payload = min(s.payload, 300)
		s.flags &= wire.TCPAck | wire.TCPPsh | wire.TCPCwr
		s.flags |= wire.TCPAck
		var all []byte
		for _, b := range stream(f, s, r) {
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(b))), b...)
		}
		f.Add(all, uint16(1500), true)
	}
	f.Fuzz(func(t *testing.T, all []byte, mtu uint16, fix bool) {
		var frames [][]byte
		for len(all) >= 2 && len(frames) < 100 {
			n := min(int(binary.BigEndian.Uint16(all)), len(all)-2)
			frame := all[2 : 2+n : 2+n]
			if fix {
				right(frame)
			}
			frames, all = append(frames, frame), all[2+n:]
		}
		checkRestores(t, frames, coalesce(t, frames, int(mtu)), int(mtu))
	})
}
