package offload

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

func TestInsertVLANGolden(t *testing.T) {
	buf := golden.Bytes(t, `
		de ad be ef                                # headroom
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 1c`)
	h := wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 34, CsumOffset: 6}
	want := golden.Bytes(t, `
		02 00 00 00 00 02  02 00 00 00 00 01
		81 00 60 0a                                # 802.1Q, priority 3, VLAN 10
		08 00  45 00 00 1c`)
	if !InsertVLAN(buf, 0x600a, wire.EtherTypeVLAN, &h) || !bytes.Equal(buf, want) {
		t.Errorf("got % x, want % x", buf, want)
	}
	if h.CsumStart != 38 || h.CsumOffset != 6 {
		t.Errorf("owes %+v, want CsumStart 38", h)
	}
}

// TestVLANInsertRemove: what is inserted and taken out again leaves the frame,
// and what stands between is a tagged frame that segments and completes.
func TestVLANInsertRemove(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	for range 200 {
		s := randomSuper(r)
		s.tags = r.IntN(2)
		frame, h := s.build(r)
		owes := h
		buf := slices.Concat(make([]byte, wire.VLANTagLen), frame)
		if !InsertVLAN(buf, 0x2005, wire.EtherTypeQinQ, &h) || !Check(buf, &h) {
			t.Fatalf("%+v: not inserted, or Check refuses it: %+v", s, h)
		}
		if tags, n := wire.VLANTags(buf); n != s.tags+1 || tags[0] != (wire.VLANTag{Proto: wire.EtherTypeQinQ, TCI: 0x2005}) {
			t.Fatalf("%+v: tags %+v, %d", s, tags, n)
		}
		checkSegments(t, buf, &h, segments(t, buf, &h))
		tag, ok := RemoveVLAN(buf, &h)
		if !ok || tag.ID() != 5 || !bytes.Equal(buf[wire.VLANTagLen:], frame) || h != owes {
			t.Fatalf("%+v: not restored: %+v, %v, owes %+v", s, tag, ok, h)
		}
	}
}

func TestVLANRefuses(t *testing.T) {
	h := wire.VNetHdr{}
	if InsertVLAN(make([]byte, 17), 1, wire.EtherTypeVLAN, &h) {
		t.Error("a tag is inserted into 13 bytes")
	}
	far := wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 0xfffc}
	if InsertVLAN(make([]byte, 100), 1, wire.EtherTypeVLAN, &far) || far.CsumStart != 0xfffc {
		t.Error("CsumStart wraps")
	}
	frame, _ := super{tags: 1, payload: 1}.build(rand.New(rand.NewPCG(12, 12)))
	near := wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 14}
	if _, ok := RemoveVLAN(frame, &near); ok {
		t.Error("a tag that CsumStart is in front of is removed")
	}
	if _, ok := RemoveVLAN(frame[:17], &h); ok {
		t.Error("a tag of a frame without EtherType is removed")
	}
	plain, _ := super{payload: 1}.build(rand.New(rand.NewPCG(12, 12)))
	if _, ok := RemoveVLAN(plain, &h); ok {
		t.Error("an untagged frame loses a tag")
	}
}
