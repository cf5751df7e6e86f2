package tunnel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// TestTooLongIsDroppedAndTheSenderTold: never fragmented, the longest packet
// that fits named, in the destination's name.
func TestTooLongIsDroppedAndTheSenderTold(t *testing.T) {
	for _, c := range []struct {
		what    string
		s       spec
		pathMTU int
		outer6  bool
		mtu     int // Of the tunnel, 0 for the path's.
		told    int // MTU in the answer; 0: no answer.
		fits    bool
	}{
		{"IPv4 that just fits", spec{payload: 1450 - 40}, 1500, false, 0, 0, true},
		{"IPv4 one byte too long", spec{payload: 1451 - 40}, 1500, false, 0, 1450, false},
		{"IPv4 that may be fragmented", spec{payload: 1451 - 40, mayFragment: true}, 1500, false, 0, 1450, false},
		{"over IPv6", spec{payload: 1431 - 40}, 1500, true, 0, 1430, false},
		{"over IPv6 that just fits", spec{payload: 1430 - 40}, 1500, true, 0, 0, true},
		{"IPv6", spec{v6: true, payload: 1451 - 60}, 1500, false, 0, 1450, false},
		{"IPv6 in IPv6", spec{v6: true, payload: 1431 - 60}, 1500, true, 0, 1430, false},
		{"IPv6 that just fits", spec{v6: true, payload: 1450 - 60}, 1500, false, 0, 0, true},
		{"a tag takes 4 bytes", spec{tags: 1, payload: 1447 - 40}, 1500, false, 0, 1446, false},
		{"two tags that just fit", spec{tags: 2, payload: 1442 - 40}, 1500, false, 0, 0, true},
		{"UDP", spec{proto: wire.ProtoUDP, payload: 1500 - 28}, 1500, false, 0, 1450, false},
		{"a super-frame of short segments", spec{payload: 20000, size: 1410}, 1500, false, 0, 0, true},
		{"a super-frame of long segments", spec{payload: 20000, size: 1411}, 1500, false, 0, 1450, false},
		{"a short super-frame of long segments", spec{payload: 1410, size: 1460}, 1500, false, 0, 0, true},
		{"a path of 1,280", spec{payload: 1231 - 40}, 1280, false, 0, 1230, false},
		{"a path that is said to be of 68", spec{payload: 1230 - 40}, 68, false, 0, 0, true},
		{"IPv6 below 1,280, of which nobody may be told", spec{v6: true, payload: 1280 - 60}, 1280, false, 0, 0, false},
		{"the network's MTU is less", spec{payload: 1001 - 40}, 1500, false, 1000, 1000, false},
		{"a tag doesn't count for the network's MTU", spec{tags: 1, payload: 1000 - 40}, 1500, false, 1000, 0, true},
		{"a jumbo path", spec{payload: 8950 - 40}, 9000, false, 0, 0, true},
	} {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partial %v", c.what, partial), func(t *testing.T) {
				fam := families[0]
				if c.outer6 {
					fam = families[1]
				}
				p := newPair(t, fam.a, fam.b)
				p.a.must(p.a.v.SetPathMTU(p.ta.Peer(), c.pathMTU))
				p.a.must(p.ta.SetMTU(c.mtu))
				c.s.partial, c.s.sport, c.s.dport = partial, 7, 9
				f := c.s.frame()
				p.a.send(p.ta, f)
				expect(t, "sent", len(p.a.u.take()) > 0, c.fits)
				want := "exceeds-mtu=1"
				if c.fits {
					want = ""
				}
				expect(t, "drops", drops(p.ta.Counters()), want)
				got := p.netA.take()
				if c.told == 0 {
					expect(t, "answers", len(got), 0)
					return
				}
				if len(got) != 1 {
					t.Fatalf("%d answers", len(got))
				}
				checkTooBig(t, got[0], f.Bytes(), c.told)
				expect(t, "told", p.a.v.Stats().TooBig, 1)
			})
		}
	}
}

// checkTooBig holds an ICMP error against the frame that it is about.
func checkTooBig(t *testing.T, got received, orig []byte, mtu int) {
	t.Helper()
	var was, l wire.Layers
	if !was.ParseGSO(orig) || !l.Parse(got.data) || l.End != len(got.data) || !l.V6 && !wire.IPv4Verify(got.data, l.L3) {
		t.Fatalf("answer % x", got.data)
	}
	expect(t, "in", got.in, dataplane.PortID(5))
	expect(t, "to", wire.DstMAC(got.data), mac(1))
	expect(t, "from", wire.SrcMAC(got.data), tunnelMAC|5)
	expect(t, "tags", string(got.data[12:l.L3]), string(orig[12:was.L3]))
	m := got.data[l.L4:]
	var acc uint32
	if l.V6 {
		acc = l.PseudoSum(got.data, len(m))
		expect(t, "type", m[0], wire.ICMPv6PacketTooBig)
		expect(t, "MTU", binary.BigEndian.Uint32(m[4:]), uint32(mtu))
		h, _ := wire.IPv6At(got.data, l.L3)
		o, _ := wire.IPv6At(orig, was.L3)
		expect(t, "addresses", *h.Src() == *o.Dst() && *h.Dst() == *o.Src(), true)
		expect(t, "length", l.End-l.L3 <= 1280, true)
	} else {
		expect(t, "type and code", [2]byte(m), [2]byte{3, 4})
		expect(t, "MTU", binary.BigEndian.Uint32(m[4:]), uint32(mtu))
		h, _ := wire.IPv4At(got.data, l.L3)
		o, _ := wire.IPv4At(orig, was.L3)
		expect(t, "addresses", h.Src() == o.Dst() && h.Dst() == o.Src(), true)
		expect(t, "length", l.End-l.L3 <= 576, true)
	}
	expect(t, "checksum", wire.Fold(wire.Sum(m, acc)), uint16(0xffff))
	quoted := m[wire.ICMPHdrLen:]
	expect(t, "quotes the packet", string(quoted), string(orig[was.L3:was.L3+len(quoted)]))
}

// TestSomePacketsMayNotBeAnswered is RFC 1122 3.2.2 and RFC 4443 2.4.
func TestSomePacketsMayNotBeAnswered(t *testing.T) {
	change := func(s spec, f func(b []byte)) dataplane.Frame {
		s.proto, s.payload = wire.ProtoUDP, 1460
		frame := s.frame()
		f(frame.Bytes())
		return frame
	}
	for what, f := range map[string]dataplane.Frame{
		"a broadcast frame":      change(spec{}, func(b []byte) { wire.Broadcast.Put(b) }),
		"a multicast IPv6 frame": change(spec{v6: true}, func(b []byte) { wire.MAC(0x333300000001).Put(b) }),
		"to a multicast address": change(spec{}, func(b []byte) { b[30] = 224 }),
		"from nobody":            change(spec{}, func(b []byte) { clear(b[26:30]) }),
		"from ::":                change(spec{v6: true}, func(b []byte) { clear(b[22:38]) }),
		"a later fragment":       change(spec{}, func(b []byte) { b[21] = 5 }),
		"an ICMP error":          change(spec{}, func(b []byte) { b[23], b[34] = wire.ProtoICMP, wire.ICMPUnreachable }),
		"an ICMPv6 error":        change(spec{v6: true}, func(b []byte) { b[20], b[54] = wire.ProtoICMPv6, wire.ICMPv6PacketTooBig }),
		"no IP":                  change(spec{}, func(b []byte) { b[12] = 0x88 }),
		"a bad IP header":        change(spec{}, func(b []byte) { b[14] = 0x42 }),
	} {
		t.Run(what, func(t *testing.T) {
			p := newPair(t, "192.0.2.1", "192.0.2.2")
			p.a.send(p.ta, f)
			expect(t, "answers", len(p.netA.take()), 0)
			expect(t, "drops", drops(p.ta.Counters()), "exceeds-mtu=1")
		})
	}
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.send(p.ta, change(spec{}, func(b []byte) { b[23], b[34] = wire.ProtoICMP, wire.ICMPEcho }))
	expect(t, "an echo request is told", len(p.netA.take()), 1)
}

func TestFewSendersAreToldInASecond(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	long := spec{payload: 1460}
	for range 10 {
		for range toldPerSecond {
			p.a.send(p.ta, long.frame())
		}
	}
	expect(t, "in the first second", len(p.netA.take()), toldPerSecond)
	expect(t, "drops", drops(p.ta.Counters()), fmt.Sprintf("exceeds-mtu=%d", 10*toldPerSecond))
	p.a.now += 1e9
	p.a.send(p.ta, long.frame())
	expect(t, "in the next", len(p.netA.take()), 1)
}

// TestRubbishThatIsTooLong: random bytes are dropped and harm nobody.
func TestRubbishThatIsTooLong(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	for range 2000 {
		b := spec{v6: r.IntN(2) == 0, tags: r.IntN(3), payload: 1460}.frame()
		for range r.IntN(20) {
			b.Bytes()[12+r.IntN(60)] = byte(r.Uint32())
		}
		p.a.send(p.ta, b)
	}
	expect(t, "sent", len(p.a.u.take()), 0)
}
