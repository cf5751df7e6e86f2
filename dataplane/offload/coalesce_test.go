package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

const (
	testMTU = 1500
	testGap = 8 // Between two frames, as a VXLAN header is.
)

func TestCoalesceGolden(t *testing.T) {
	const head = "02 00 00 00 00 02  02 00 00 00 00 01  08 00\n"
	in := [][]byte{
		golden.Bytes(t, head+`45 00 00 30  ff ff 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02
		9c 40 00 50  ff ff ff f8  00 00 00 09  50 90 fa f0  7f 91 00 00   # CWR ACK, seq 2³²-8
		00 01 02 03 04 05 06 07`),
		golden.Bytes(t, head+`45 00 00 30  00 00 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02   # id wraps
		9c 40 00 50  00 00 00 00  00 00 00 09  50 10 fa f0  5f ea 00 00   # seq 0, ACK
		08 09 0a 0b 0c 0d 0e 0f`),
		golden.Bytes(t, head+`45 00 00 2c  00 01 40 00  40 06 ae a3  c6 12 00 01  c6 12 00 02   # shorter
		9c 40 00 50  00 00 00 08  00 00 00 09  50 18 fa f0  69 ea 00 00   # seq 8, ACK PSH
		10 11 12 13`),
	}
	want := golden.Bytes(t, head+`45 00 00 3c  ff ff 40 00  40 06 ae 94  c6 12 00 01  c6 12 00 02
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
	check := func(name string, from super, change func([][]byte), want int) {
		frames := stream(t, from, rand.New(rand.NewPCG(20, 20)))
		if change != nil {
			change(frames)
		}
		out := coalesce(t, frames, testMTU)
		if len(out) != want {
			t.Errorf("%s: %d frames come out, want %d", name, len(out), want)
		}
		checkRestores(t, frames, out, testMTU)
	}
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
		check(c.name, c.from, c.change, c.want)
	}
	for _, h := range otherHeaders {
		check(h.name, map[bool]super{false: v4, true: v6}[h.v6], at(h.at, h.bits), 3)
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
