package offload

import (
	"math/rand/v2"
	"testing"

	"heddle/dataplane/wire"
)

func TestCheck(t *testing.T) {
	const l4 = 34
	tcp := super{payload: 3000, size: 1448, partial: true}
	tcp6 := super{v6: true, payload: 3000, size: 1428, partial: true}
	udp := super{udp: true, payload: 3000, size: 1472, partial: true}
	for _, c := range []struct {
		name   string
		from   super
		change func(frame []byte, h *wire.VNetHdr) []byte // nil leaves all as built.
		want   bool
	}{
		{"tcp4", tcp, nil, true},
		{"tcp6", tcp6, nil, true},
		{"udp", udp, nil, true},
		{"complete checksum", super{payload: 3000, size: 1448}, nil, true},
		{"two tags", super{tags: 2, v6: true, exts: 2, payload: 3000, size: 1428, partial: true}, nil, true},
		{"ECN", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType |= wire.VNetGSOECN; return f }, true},
		{"owes nothing", tcp, func(_ []byte, h *wire.VNetHdr) []byte { *h = wire.VNetHdr{}; return nil }, true},
		{"partial only, last two bytes", tcp, func(f []byte, h *wire.VNetHdr) []byte {
			*h = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: l4, CsumOffset: 16}
			return f[:l4+18]
		}, true},

		{"partial only, one byte outside", tcp, func(f []byte, h *wire.VNetHdr) []byte {
			*h = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: l4, CsumOffset: 16}
			return f[:l4+17]
		}, false},
		{"partial in the Ethernet header", tcp, func(f []byte, h *wire.VNetHdr) []byte {
			*h = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 13, CsumOffset: 16}
			return f
		}, false},
		{"offset overflows", tcp, func(f []byte, h *wire.VNetHdr) []byte {
			*h = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff}
			return f
		}, false},
		{"UFO", udp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOUDP; return f }, false},
		{"unknown type", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = 2; return f }, false},
		{"ECN alone", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOECN; return f }, false},
		{"ECN with UDP", udp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType |= wire.VNetGSOECN; return f }, false},
		{"size 0", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOSize = 0; return f }, false},
		{"size 0, UDP", udp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOSize = 0; return f }, false},
		{"size below TCP's least", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOSize = 7; return f }, false},
		{"too many datagrams", udp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOSize = 23; return f }, false},
		{"TCP6 of IPv4", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOTCP6; return f }, false},
		{"TCP4 of IPv6", tcp6, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOTCP4; return f }, false},
		{"UDP of TCP", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOUDPL4; return f }, false},
		{"TCP of UDP", udp, func(f []byte, h *wire.VNetHdr) []byte { h.GSOType = wire.VNetGSOTCP4; return f }, false},
		{"csum_start beside L4", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.CsumStart++; return f }, false},
		{"csum_offset of UDP", tcp, func(f []byte, h *wire.VNetHdr) []byte { h.CsumOffset = 6; return f }, false},
		{"data offset 4", tcp, func(f []byte, _ *wire.VNetHdr) []byte { f[l4+12] = 0x40; return f }, false},
		{"header cut", tcp, func(f []byte, _ *wire.VNetHdr) []byte { return f[:l4+19] }, false},
		{"UDP header cut", udp, func(f []byte, _ *wire.VNetHdr) []byte { return f[:l4+7] }, false},
		{"fragment", tcp, func(f []byte, _ *wire.VNetHdr) []byte { f[20] |= 0x20; return f }, false},
		{"empty", tcp, func([]byte, *wire.VNetHdr) []byte { return nil }, false},
	} {
		frame, h := c.from.build(rand.New(rand.NewPCG(1, 1)))
		if c.change != nil {
			frame = c.change(frame, &h)
		}
		if got := Check(frame, &h); got != c.want {
			t.Errorf("%s: Check = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestCheckRefusesSegmentsLongerThanIP(t *testing.T) {
	frame := make([]byte, 14+65535+1)
	head, h := super{payload: 1, size: 1448}.build(rand.New(rand.NewPCG(1, 1)))
	copy(frame, head)
	if !Check(frame, &h) {
		t.Error("a long frame in short segments is refused")
	}
	h.GSOSize = 0xffff
	if Check(frame, &h) {
		t.Error("a segment of 65,536 bytes of IP passes")
	}
}

func TestHeaderLenAndSegmentLen(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		s := randomSuper(r)
		frame, h := s.build(r)
		want := len(frame) - s.payload
		if got := HeaderLen(frame, &h); got != want {
			t.Fatalf("%+v: HeaderLen = %d, want %d", s, got, want)
		}
		if got := SegmentLen(frame, &h); got != want+min(s.size, s.payload) {
			t.Fatalf("%+v: SegmentLen = %d, want %d", s, got, want+min(s.size, s.payload))
		}
		h.GSOType = wire.VNetGSONone
		if HeaderLen(frame, &h) != 0 || SegmentLen(frame, &h) != len(frame) {
			t.Fatalf("%+v without GSO: %d, %d", s, HeaderLen(frame, &h), SegmentLen(frame, &h))
		}
	}
}

func TestComplete(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 500 {
		s := randomSuper(r)
		s.size, s.partial, s.noSum, s.payload = 0, true, false, r.IntN(1500)
		frame, h := s.build(r)
		s.partial = false
		h.Flags |= wire.VNetDataValid
		if !Check(frame, &h) || !Complete(frame, &h) || h != (wire.VNetHdr{Flags: wire.VNetDataValid}) {
			t.Fatalf("%+v: not completed, owes %+v", s, h)
		}
		if !checksumsRight(frame) {
			t.Fatalf("%+v: checksum wrong: % x", s, frame)
		}
		before := string(frame)
		if !Complete(frame, &h) || string(frame) != before {
			t.Fatalf("%+v: completed twice", s)
		}
	}
}

// TestCompleteZero: what sums to 0 is sent as 0xffff by UDP and 0 by TCP.
func TestCompleteZero(t *testing.T) {
	for _, c := range []struct {
		name string
		from super
		want [2]byte
	}{
		{"udp", super{udp: true, payload: 2, partial: true}, [2]byte{0xff, 0xff}},
		{"tcp", super{payload: 2, partial: true}, [2]byte{0, 0}},
	} {
		frame, h := c.from.build(rand.New(rand.NewPCG(4, 4)))
		n := len(frame)
		frame[n-2], frame[n-1] = 0, 0
		rest := ^modelSum(frame[h.CsumStart:], 0) // A payload that makes the sum all ones.
		frame[n-2], frame[n-1] = byte(rest>>8), byte(rest)
		at := int(h.CsumStart + h.CsumOffset)
		if !Complete(frame, &h) || [2]byte(frame[at:]) != c.want {
			t.Errorf("%s: checksum % x, want % x", c.name, frame[at:at+2], c.want)
		}
	}
}

func TestCompleteRefuses(t *testing.T) {
	frame, h := super{payload: 3000, size: 1448, partial: true}.build(rand.New(rand.NewPCG(5, 5)))
	before, owes := string(frame), h
	if Complete(frame, &h) || string(frame) != before || h != owes {
		t.Error("a GSO frame is completed or changed")
	}
	h = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 34, CsumOffset: 60000}
	if Complete(frame, &h) || string(frame) != before {
		t.Error("a field outside the frame is written")
	}
}
