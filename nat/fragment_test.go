package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// cut makes fragments of a packet, with size bytes of L4 each.
func cut(p pkt, id uint16, size int) (fs []pkt) {
	b, _ := p.l4()
	for off := 0; off < len(b); off += size {
		f := p
		f.raw, f.id, f.fragOff = b[off:min(off+size, len(b))], id, off
		f.more = off+size < len(b)
		fs = append(fs, f)
	}
	return fs
}

func TestRFC4787REQ14FragmentsInAnyOrder(t *testing.T) {
	for _, x := range []struct{ src, dst, ext netip.Addr }{{hostA, far4, ext4}, {hostA6, far6, ext6}} {
		for seed := range uint64(20) {
			l := newLab(t, options{})
			l.outOne(udpPkt(hostB, 5000, far4, 99))
			p := udpPkt(x.src, 5000, x.dst, 80)
			p.payload = make([]byte, 5000)
			for i := range p.payload {
				p.payload[i] = byte(i * 7)
			}
			fs := cut(p, 77, 1000)
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
			whole := make([]byte, 5008)
			n := 0
			var got pkt
			for _, f := range fs {
				w, _ := l.out(f)
				for _, g := range w {
					n += copy(whole[g.fragOff:], g.raw)
					expect(t, "source", g.src, x.ext)
					expect(t, "destination", g.dst, x.dst)
					expect(t, "TTL", g.ttl, 63)
					got = g
				}
			}
			expect(t, "bytes", n, 5008)
			if sum := wire.Fold(wire.Sum(whole, got.pseudo(len(whole)))); sum != 0xffff {
				t.Errorf("checksum of the whole is wrong: %#x", sum)
			}
			l.drops()
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

func TestFragmentsInwardAndHairpin(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(5353), hostB, 53)
	p := udpPkt(far4, 9, ext4, 5353)
	p.payload = make([]byte, 2500)
	fs := cut(p, 1, 1000)
	_, in := l.back(fs[2])
	expect(t, "before the first", len(in), 0)
	_, in = l.back(fs[0])
	expect(t, "with the first", len(in), 2)
	_, in = l.back(fs[1])
	expect(t, "after the first", must1(t, in).dst, hostB)

	p = udpPkt(hostA, 9, ext4, 5353)
	p.payload = make([]byte, 2500)
	for i, f := range cut(p, 2, 1000) {
		w, in := l.out(f)
		expect(t, "on the wire", len(w), 0)
		g := must1(t, in)
		expect(t, "hairpin's source", g.src, ext4)
		expect(t, "hairpin's destination", g.dst, hostB)
		expect(t, "offset", g.fragOff, i*1000)
	}
	l.drops()
}

func TestFragmentsThatOverlapAreDropped(t *testing.T) {
	l := newLab(t, options{})
	p := udpPkt(hostA, 5000, far4, 80)
	p.payload = make([]byte, 2992)
	fs := cut(p, 1, 1000)
	l.outOne(fs[0])
	l.outOne(fs[2])
	l.none(l.out(fs[0]))
	evil := fs[1]
	evil.fragOff = 1992
	l.none(l.out(evil))
	l.drops(dataplane.FragmentOverlap, dataplane.FragmentOverlap)
	l.outOne(fs[1])
	evil.fragOff = 65528
	l.none(l.out(evil))
	evil.fragOff, evil.raw = 4000, evil.raw[:999]
	l.none(l.out(evil))
	l.drops(dataplane.BadPacket, dataplane.BadPacket)
}

func TestFragmentsThatWaitAreBounded(t *testing.T) {
	l := newLab(t, options{})
	p := udpPkt(hostA, 5000, far4, 80)
	p.payload = make([]byte, 1992)
	for id := range uint16(maxFragmented + 100) {
		l.none(l.out(cut(p, id, 1000)[1]))
	}
	expect(t, "packets", l.n.Stats().Fragmented, maxFragmented)
	expect(t, "lost", l.gw.counters.Totals().Drops[dataplane.FragmentLost], 100)
	// The oldest went: of 99 only the first goes on, of 100 both.
	w, _ := l.out(cut(p, 99, 1000)[0])
	expect(t, "frames of a lost one", len(w), 1)
	w, _ = l.out(cut(p, 1099, 1000)[0])
	expect(t, "frames of one that waited", len(w), 2)
	l.now += 16 * time.Second
	w, _ = l.out(cut(p, 1098, 1000)[0])
	expect(t, "frames after 15 s", len(w), 1)
	expect(t, "packets after 15 s", l.n.Stats().Fragmented, 1)
}

func TestRFC1812PacketsThatMayBeSplit(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.MTU = 700 }})
	p := udpPkt(hostA, 5000, far4, 80)
	p.payload, p.partial = make([]byte, 1400), true
	for i := range p.payload {
		p.payload[i] = byte(i)
	}
	w, in := l.out(p)
	expect(t, "pieces", len(w), 3)
	expect(t, "errors", len(in), 0)
	whole := make([]byte, 1408)
	n := 0
	for _, g := range w {
		n += copy(whole[g.fragOff:], g.raw)
		expect(t, "source", g.src, ext4)
		expect(t, "MAC", g.dstMAC, macRouter)
		if len(g.raw) > 680 {
			t.Errorf("a piece of %d bytes", len(g.raw))
		}
	}
	expect(t, "bytes", n, 1408)
	expect(t, "more behind the last", w[2].more, false)
	if sum := wire.Fold(wire.Sum(whole, w[0].pseudo(len(whole)))); sum != 0xffff {
		t.Errorf("checksum of the whole is wrong: %#x", sum)
	}
	// Fragments are split on, and fit together, also those that waited.
	p.partial = false
	total := map[int]int{}
	fs := cut(p, 9, 704)
	fs[0], fs[1] = fs[1], fs[0]
	for _, f := range fs {
		w, _ := l.out(f)
		for _, g := range w {
			total[g.fragOff] = len(g.raw)
			expect(t, "more", g.more, g.fragOff+len(g.raw) < 1408)
		}
	}
	at := 0
	for total[at] > 0 {
		at += total[at]
	}
	expect(t, "bytes of all pieces", at, 1408)
	l.drops()
}
