package tunnel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

var families = []struct{ name, a, b string }{
	{"IPv4 outside", "192.0.2.1", "192.0.2.2"},
	{"IPv6 outside", "2001:db8:ffff::1", "2001:db8:ffff::2"},
}

// TestWhatComesOutIsWhatWentIn: whatever a frame owes, the wire frames that it
// stands for are the same at both ends, and a TCP super-frame stays one.
func TestWhatComesOutIsWhatWentIn(t *testing.T) {
	for _, fam := range families {
		for _, v6 := range []bool{false, true} {
			for _, partial := range []bool{false, true} {
				for _, s := range []spec{
					{payload: 0}, {payload: 1}, {payload: 1300}, {payload: 1300, tags: 1}, {payload: 1300, tags: 2},
					{payload: 5000, size: 1300}, {payload: 60000, size: 1300}, {payload: 62000, size: 1348}, {payload: 60000, size: 1300, tags: 2},
					{payload: 1300, size: 1300}, {payload: 65535 - 20 - 40 - 20, size: 1300},
					{payload: 60000, size: 1300, flags: wire.TCPAck | wire.TCPPsh}, {payload: 5000, size: 536, tags: 1},
					{payload: 6000, size: 100},
					{proto: wire.ProtoUDP, payload: 0}, {proto: wire.ProtoUDP, payload: 1300, tags: 1},
					{proto: wire.ProtoUDP, payload: 20000, size: 1200},
				} {
					s.v6, s.partial, s.sport, s.dport = v6, partial, 1000, 2000
					name := fmt.Sprintf("%s/IPv6 inside %v/partial %v/protocol %d, %d bytes in %d, %d tags, flags %d",
						fam.name, v6, partial, s.proto, s.payload, s.size, s.tags, s.flags)
					t.Run(name, func(t *testing.T) {
						p := newPair(t, fam.a, fam.b)
						for _, join := range []bool{true, false} {
							p.b.u.join = join
							f := s.frame()
							want := onWire(t, f.Bytes(), f.Owes)
							p.a.send(p.ta, f)
							p.b.pull()
							got := p.netB.take()
							same(t, got, want)
							// The kernel takes 64 segments as one, and joins as many.
							if s.size > 0 && s.proto == 0 && len(got) > 1 {
								t.Errorf("%d frames of a super-frame", len(got))
							}
						}
						expect(t, "drops", drops(p.ta.Counters())+drops(p.tb.Counters())+drops(p.b.v.Counters()), "")
					})
				}
			}
		}
	}
}

// same holds what was received, as wire frames, against want.
func same(t testing.TB, got []received, want [][]byte) {
	t.Helper()
	var cut [][]byte
	for _, r := range got {
		cut = append(cut, onWire(t, r.data, r.f.Owes)...)
	}
	if len(cut) != len(want) {
		t.Fatalf("%d wire frames came out, %d went in", len(cut), len(want))
	}
	for i := range want {
		if !bytes.Equal(anyID(cut[i]), anyID(bytes.Clone(want[i]))) {
			t.Fatalf("wire frame %d:\ngot  % x\nwant % x", i, head(cut[i]), head(want[i]))
		}
	}
}

func head(b []byte) []byte { return b[:min(len(b), 100)] }

// TestBatchesOfAllSorts sends random frames of several flows in random batches.
// Each flow comes out in its order, whole.
func TestBatchesOfAllSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, fam := range families {
		p := newPair(t, fam.a, fam.b)
		for range 25 {
			want := map[int][][]byte{}
			var frames []dataplane.Frame
			seq := map[int]uint32{}
			for range 1 + r.IntN(dataplane.BatchSize) {
				flow := r.IntN(8) // The highest bit stands for UDP.
				s := spec{sport: uint16(flow), seq: seq[flow], v6: flow%2 == 0, tags: flow % 3, partial: r.IntN(2) == 0, payload: r.IntN(1300)}
				if r.IntN(4) == 0 {
					s.size = 8 + r.IntN(1300)
					s.payload = 1 + r.IntN(min(20*s.size, 30000))
				}
				if flow >= 4 {
					s.proto = wire.ProtoUDP
				}
				seq[flow] += uint32(s.payload)
				f := s.frame()
				want[flow] = append(want[flow], onWire(t, f.Bytes(), f.Owes)...)
				frames = append(frames, f)
			}
			p.b.u.join = r.IntN(2) == 0
			p.a.send(p.ta, frames...)
			p.b.pull()
			got := map[int][]received{}
			for _, g := range p.netB.take() {
				var l wire.Layers
				if !l.Parse(g.data) && !l.ParseGSO(g.data) {
					t.Fatalf("% x", head(g.data))
				}
				flow := int(g.data[l.L4])<<8 | int(g.data[l.L4+1])
				got[flow] = append(got[flow], g)
			}
			for flow := range want {
				same(t, got[flow], want[flow])
			}
		}
		total := p.ta.Counters().Totals()
		expect(t, "drops", drops(p.ta.Counters()), "")
		if total.TxFrames == 0 {
			t.Error("nothing counted")
		}
	}
}

// FuzzIdentity: any frame that owes nothing and fits comes out as it went in,
// but for what this end says to do: the MSS of a SYN, ECN.
func FuzzIdentity(f *testing.F) {
	f.Add(golden.Bytes(f, arpRequest), golden.Bytes(f, taggedUDP))
	s1, s2 := spec{payload: 100}.frame(), spec{payload: 100, seq: 100, v6: true}.frame()
	f.Add(s1.Bytes(), s2.Bytes())
	s1, s2 = spec{payload: 100}.frame(), spec{payload: 100, seq: 100}.frame()
	f.Add(s1.Bytes(), s2.Bytes())
	p := newPair(f, "192.0.2.1", "192.0.2.2")
	f.Fuzz(func(t *testing.T, one, two []byte) {
		p.a.t, p.b.t = t, t
		var want [][]byte
		var in []dataplane.Frame
		for _, data := range [][]byte{one, two} {
			var look inner
			if len(data) < wire.EthHdrLen || len(data) > 1464 {
				continue
			}
			if look.look(data); look.l4 != 0 || look.short {
				continue
			}
			// What was left half done elsewhere is known and completed here.
			want = append(want, anyID(onWire(t, data, offload.Adopt(data, p.tb.MTU(), 0))[0]))
			in = append(in, frameOf(data))
		}
		p.a.send(p.ta, in...)
		p.b.pull()
		count := 0
		for _, g := range p.netB.take() {
			for _, w := range onWire(t, g.data, g.f.Owes) {
				w = anyID(w)
				if !slices.ContainsFunc(want, func(o []byte) bool { return bytes.Equal(o, w) }) {
					t.Fatalf("% x came out of\n% x", w, want)
				}
				count++
			}
		}
		if count != len(in) {
			t.Fatalf("%d frames came out of %d", count, len(in))
		}
	})
}

// anyID clears the identification of an IPv4 packet that must not be cut, which
// means nothing there (RFC 6864 4.1) and is not kept when segments are joined.
func anyID(frame []byte) []byte {
	var l wire.Layers
	if l.Parse(frame) && !l.V6 {
		if h, _ := wire.IPv4At(frame, l.L3); h.FlagsFrag() == wire.IPv4DontFragment {
			h.SetID(0)
			h.SetChecksum(0)
		}
	}
	return frame
}

// FuzzReceive: no datagram harms the VTEP, and each is counted once.
func FuzzReceive(f *testing.F) {
	f.Add(golden.Bytes(f, "08 00 00 00 00 00 2a 00"+arpRequest), 0, uint8(3))
	two := golden.Bytes(f, "08 00 00 00 00 00 2a 00"+taggedUDP)
	f.Add(append(two, two...), len(two), uint8(1))
	p := newPair(f, "192.0.2.1", "192.0.2.2")
	dropped := func() (n uint64) {
		for _, c := range []*dataplane.Counters{p.a.v.Counters(), p.ta.Counters()} {
			for _, d := range c.Totals().Drops {
				n += d
			}
		}
		return n
	}
	f.Fuzz(func(t *testing.T, data []byte, size int, tos uint8) {
		p.a.t = t
		if len(data) == 0 || len(data) > 65507 {
			return
		}
		if size < 1 || size > len(data) {
			size = len(data)
		}
		before := dropped()
		p.a.u.receive(0, packet{data, size, underlay.AddrOf(netip.MustParseAddrPort("192.0.2.2:50000")), tos})
		p.a.pull()
		segments := 0
		for _, g := range p.netA.take() {
			segments += len(onWire(t, g.data, g.f.Owes))
		}
		// A longer frame may be a super-frame that a kernel left uncut, and what
		// looks like several may be one.
		n := (len(data) + size - 1) / size
		if size > p.ta.MTU() || len(data) > wire.VXLANHdrLen && offload.Whole(data[wire.VXLANHdrLen:]) {
			return
		}
		if n != segments+int(dropped()-before) {
			t.Fatalf("%d datagrams, %d frames, %d drops", n, segments, dropped()-before)
		}
	})
}
