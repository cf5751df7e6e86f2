package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

// car is a frame that may go into a train.
type car struct {
	frame []byte
	owes  wire.VNetHdr
}

// whole is what came out: a train's head and its payloads in one buffer, or the
// one frame that it has, and how many went in.
type whole struct {
	car
	took int
}

// bigTCP lets a train grow to where the kernel's own limit lies.
var bigTCP = GROMax{IPv4: 512 << 10, IPv6: 512 << 10}

// couple puts cars into trains in their order, each into the last or else into a
// new one.
func couple(t testing.TB, cars []car, longest GROMax) (out []whole) {
	t.Helper()
	var train Train
	var payloads []byte
	end := func() {
		if train.Cars() > 1 {
			head := make([]byte, MaxTrainHead)
			head = head[:train.Head(head)]
			last := &out[len(out)-1]
			last.owes.Decode(head)
			last.frame = slices.Concat(head[wire.VNetHdrLen:], payloads)
			last.took = train.Cars()
		}
	}
	for _, c := range cars {
		before := bytes.Clone(c.frame)
		if train.Carries(c.frame) {
			if at := train.Add(c.frame, &c.owes); at > 0 {
				payloads = append(payloads, c.frame[at:]...)
				continue
			}
		}
		end()
		if !bytes.Equal(before, c.frame) {
			t.Fatal("a frame was changed")
		}
		out = append(out, whole{c, 1})
		at := train.Begin(c.frame, &c.owes, longest)
		payloads = bytes.Clone(c.frame[at:])
	}
	end()
	return out
}

// checkTrains fails the test if cutting what came out doesn't give the segments
// that cutting what went in gives, but for PSH and identifications.
func checkTrains(t testing.TB, in []car, out []whole, longest GROMax) {
	t.Helper()
	for _, w := range out {
		cars := in[:w.took]
		in = in[w.took:]
		if w.took == 1 {
			if !bytes.Equal(w.frame, cars[0].frame) || w.owes != cars[0].owes {
				t.Fatal("a frame that goes alone was changed")
			}
			continue
		}
		_, l3, _ := wire.L3(w.frame)
		checkLength(t, w.frame[l3:], longest)
		if !Check(w.frame, &w.owes) || HeaderLen(w.frame, &w.owes) != int(w.owes.HdrLen) {
			t.Fatalf("what came out contradicts itself: %+v", w.owes)
		}
		var want [][]byte
		var push byte
		for _, c := range cars {
			if c.owes.GSO() {
				want = append(want, segmentsOf(t, c.frame, &c.owes)...)
			} else {
				f := bytes.Clone(c.frame)
				owes := c.owes
				Complete(f, &owes)
				want = append(want, f)
			}
			push |= c.frame[int(c.owes.CsumStart)+tcpFlagsOff+1] & wire.TCPPsh
		}
		got := segmentsOf(t, w.frame, &w.owes)
		if len(got) != len(want) {
			t.Fatalf("a train has %d segments, its frames %d", len(got), len(want))
		}
		l4 := int(w.owes.CsumStart)
		for i := range want {
			p := byte(0)
			if i == len(want)-1 {
				p = push
			}
			want[i][l4+tcpFlagsOff+1] = want[i][l4+tcpFlagsOff+1]&^wire.TCPPsh | p
			if want[i][l3]>>4 == 4 {
				copy(want[i][l3+4:l3+6], got[i][l3+4:])
			}
			right(want[i])
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("segment %d is another\n got % x\nwant % x", i, got[i][:80], want[i][:80])
			}
		}
	}
	if len(in) != 0 {
		t.Fatalf("%d frames are missing", len(in))
	}
}

// checkLength fails the test if an IP header doesn't tell the packet's length, or
// that IPv4 can't, or if the packet isn't shorter than it may be.
func checkLength(t testing.TB, packet []byte, limit GROMax) {
	t.Helper()
	var said, most int
	if ip, ok := wire.IPv4At(packet, 0); ok {
		said, most = ip.TotalLen(), limit.IPv4
		if said == 0 && len(packet) > maxIPLen {
			said = len(packet)
		}
	} else if ip, ok := wire.IPv6At(packet, 0); ok {
		said, most = wire.IPv6HdrLen+ip.PayloadLen(), limit.IPv6
	}
	if said != len(packet) || len(packet) >= most {
		t.Fatalf("a packet of %d bytes, shorter than %d, says it has %d", len(packet), most, said)
	}
}

// run builds n frames of one connection that follow each other, as a TAP gives
// them: each the next one's payload.
func run(s super, n int, r *rand.Rand) (cars []car) {
	for range n {
		f, owes := s.build(r)
		cars = append(cars, car{f, owes})
		s.seq += uint32(s.payload)
		s.id += 7
	}
	return cars
}

func TestTrainGolden(t *testing.T) {
	r := rand.New(rand.NewPCG(30, 30))
	for _, c := range []struct {
		name string
		of   super
		want string // The head, virtio-net header included.
	}{
		{"IPv4", super{payload: 1200, size: 600, partial: true, flags: wire.TCPAck | wire.TCPPsh, id: 7, seq: 99}, `
			01 01 36 00 58 02 22 00 10 00                                       # partial, GSO of 600 B
			02 00 00 00 00 02  02 00 00 00 00 01  08 00
			45 00 09 88  00 07 40 00  40 06 a5 41  c6 12 00 01  c6 12 00 02     # 2,440 B
			9c 40 00 50  00 00 00 63  00 00 00 09  50 18 fa f0  95 a2 00 00`},
		{"IPv4, beyond what its header can tell", super{payload: 60000, size: 600, partial: true, flags: wire.TCPAck, id: 7, seq: 99}, `
			01 01 36 00 58 02 22 00 10 00
			02 00 00 00 00 02  02 00 00 00 00 01  08 00
			45 00 00 00  00 07 40 00  40 06 ae c9  c6 12 00 01  c6 12 00 02     # 0
			9c 40 00 50  00 00 00 63  00 00 00 09  50 10 fa f0  61 04 00 00`},
		{"IPv6", super{v6: true, payload: 1200, size: 600, partial: true, flags: wire.TCPAck, seq: 99}, `
			01 04 4a 00 58 02 36 00 10 00
			02 00 00 00 00 02  02 00 00 00 00 01  86 dd
			60 00 00 00  09 74 06 40                                            # 2,420 B follow
			20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
			20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
			9c 40 00 50  00 00 00 63  00 00 00 09  50 10 fa f0  64 ef 00 00`},
	} {
		cars := run(c.of, 2, r)
		out := couple(t, cars, bigTCP)
		if len(out) != 1 {
			t.Errorf("%s: %d frames come out, want 1", c.name, len(out))
			continue
		}
		checkTrains(t, cars, out, bigTCP)
		var train Train
		train.Begin(cars[0].frame, &cars[0].owes, bigTCP)
		train.Add(cars[1].frame, &cars[1].owes)
		head := make([]byte, MaxTrainHead)
		head = head[:train.Head(head)]
		if want := golden.Bytes(t, c.want); !bytes.Equal(head, want) {
			t.Errorf("%s:\n got % x\nwant % x", c.name, head, want)
		}
	}
}

// TestTrainRules changes the second of three frames, or all, and says how many
// come out.
func TestTrainRules(t *testing.T) {
	v4 := super{tcpOpts: 12, payload: 6000, size: 1000, id: 7, seq: 99, flags: wire.TCPAck, partial: true}
	v6 := v4
	v6.v6 = true
	with := func(s super, f func(*super)) super { f(&s); return s }
	at := func(i int, v byte) func([]car) {
		return func(c []car) { c[1].frame[i] ^= v; right(c[1].frame); partial(c[1].frame) }
	}
	check := func(name string, of super, change func([]car), want int) {
		cars := run(of, 3, rand.New(rand.NewPCG(31, 31)))
		if change != nil {
			change(cars)
		}
		out := couple(t, cars, bigTCP)
		if len(out) != want {
			t.Errorf("%s: %d frames come out, want %d", name, len(out), want)
		}
		checkTrains(t, cars, out, bigTCP)
	}
	for _, c := range []struct {
		name   string
		of     super
		change func(cars []car)
		want   int
	}{
		{"IPv4", v4, nil, 1},
		{"IPv6", v6, nil, 1},
		{"two tags", with(v6, func(s *super) { s.tags = 2 }), nil, 1},
		{"PSH in each", with(v4, func(s *super) { s.flags |= wire.TCPPsh }), nil, 1},
		{"PSH in the second", v4, at(47, wire.TCPPsh), 1},
		{"sequence number wraps", with(v4, func(s *super) { s.seq = 0xfffff000 }), nil, 1},
		{"identification jumps", v4, at(19, 0x55), 1},
		{"the last is one short segment", v4, func(c []car) { shorten(&c[2], 700) }, 1},
		{"the last ends in a short segment", v6, func(c []car) { shorten(&c[2], 2700) }, 1},

		{"the second is one short segment", v4, func(c []car) { shorten(&c[1], 700) }, 2},
		{"the first ends in a short segment", v4, func(c []car) { shorten(&c[0], 2700) }, 2},
		{"the first is one segment", v4, func(c []car) { shorten(&c[0], 1000) }, 2},
		{"repeated", v4, func(c []car) { c[1] = c[0] }, 3},
		{"swapped", v4, func(c []car) { c[1], c[2] = c[2], c[1] }, 3},
		{"another size", v4, func(c []car) { c[1].owes.GSOSize = 1001 }, 3},
		{"small segments", with(v4, func(s *super) { s.size, s.payload = 500, 6000 }), nil, 3},
		{"complete checksums", with(v4, func(s *super) { s.partial = false }), nil, 3},
		{"one complete checksum", v4, func(c []car) { c[1].owes.Flags = 0; right(c[1].frame) }, 3},
		{"CWR", with(v4, func(s *super) { s.flags |= wire.TCPCwr }), func(c []car) {
			for i := range c {
				c[i].owes.GSOType |= wire.VNetGSOECN
			}
		}, 3},
		{"no DF", v4, at(20, 0x40), 3},
		{"IPv4 options", with(v4, func(s *super) { s.ipOpts = 4 }), nil, 3},
		{"extension header", with(v6, func(s *super) { s.exts = 1 }), nil, 3},
		{"UDP", with(v4, func(s *super) { s.udp = true }), nil, 3},
		{"wrong IPv4 checksum", v4, func(c []car) { c[1].frame[25] ^= 1 }, 3},
		{"wrong partial checksum", v6, func(c []car) { c[1].frame[71] ^= 1 }, 3},
		{"wrong length", v4, func(c []car) { c[1].frame[17] ^= 1; right4(c[1].frame) }, 3},
	} {
		check(c.name, c.of, c.change, c.want)
	}
	for _, h := range otherHeaders {
		check(h.name, map[bool]super{false: v4, true: v6}[h.v6], at(h.at, h.bits), 3)
	}
}

// shorten leaves n bytes of a frame's payload: a GSO frame if that is more than a
// segment.
func shorten(c *car, n int) {
	hdr := HeaderLen(c.frame, &c.owes)
	c.frame = c.frame[:hdr+n]
	if n <= int(c.owes.GSOSize) {
		c.owes.GSOType, c.owes.GSOSize = wire.VNetGSONone, 0
	}
	_, l3, _ := wire.L3(c.frame)
	if ip, ok := wire.IPv6At(c.frame, l3); ok {
		ip.SetPayloadLen(uint16(len(c.frame) - l3 - wire.IPv6HdrLen))
	} else if ip, ok := wire.IPv4At(c.frame, l3); ok {
		ip.SetTotalLen(uint16(len(c.frame) - l3))
		right4(c.frame)
	}
	partial(c.frame)
}

// right4 makes an IPv4 header's checksum right.
func right4(frame []byte) {
	csum, _ := wire.IPv4Checksum(frame, 14)
	binary.BigEndian.PutUint16(frame[24:], csum)
}

// TestTrainFills: a train is shorter than the device's limit, by one byte if
// need be, and each family has its own.
func TestTrainFills(t *testing.T) {
	r := rand.New(rand.NewPCG(32, 32))
	of := super{payload: 20000, size: 1000, partial: true, flags: wire.TCPAck}
	for _, c := range []struct {
		v6    bool
		limit GROMax
		took  int
	}{
		{false, GROMax{IPv4: 60041}, 3},
		{false, GROMax{IPv4: 60040, IPv6: 1 << 20}, 2},
		{false, GROMax{IPv4: 65536}, 3},
		{false, GROMax{IPv4: 1 << 20}, 10},
		{false, GROMax{IPv6: 1 << 20}, 1},
		{true, GROMax{IPv6: 60061}, 3},
		{true, GROMax{IPv6: 60060, IPv4: 1 << 20}, 2},
		{true, GROMax{IPv6: 1 << 20}, 3}, // No more than its header can tell.
	} {
		of.v6 = c.v6
		cars := run(of, 10, r)
		out := couple(t, cars, c.limit)
		if out[0].took != c.took {
			t.Errorf("%+v: the first train has %d frames, want %d", c, out[0].took, c.took)
		}
		checkTrains(t, cars, out, c.limit)
	}
}

// TestTrainMixed: connections in any order, with damaged frames between, go in,
// and the segments that come out are theirs.
func TestTrainMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 33))
	joined := 0
	for range 200 {
		var cars []car
		for range 1 + r.IntN(5) {
			s := randomSuper(r)
			if r.IntN(4) > 0 {
				s.flags, s.udp, s.exts, s.ipOpts, s.partial = wire.TCPAck|s.flags&wire.TCPPsh, false, 0, 0, true
				s.size = minTrainSegment + r.IntN(900)
				s.payload = s.size * (2 + r.IntN(40))
			}
			cars = append(cars, run(s, 1+r.IntN(6), r)...)
		}
		for range r.IntN(3) {
			c := &cars[r.IntN(len(cars))]
			c.frame[r.IntN(80)] ^= 1 << r.IntN(8)
		}
		cars = passing(cars)
		out := couple(t, cars, bigTCP)
		joined += len(cars) - len(out)
		checkTrains(t, cars, out, bigTCP)
	}
	if joined < 500 {
		t.Errorf("only %d frames were joined", joined)
	}
}

// passing returns the cars that pass Check, as those that a port gives have.
func passing(cars []car) (out []car) {
	for _, c := range cars {
		if Check(c.frame, &c.owes) {
			out = append(out, c)
		}
	}
	return out
}

func FuzzTrain(f *testing.F) {
	r := rand.New(rand.NewPCG(34, 34))
	for range 20 {
		s := randomSuper(r)
		s.flags, s.udp, s.size, s.payload, s.partial = wire.TCPAck, false, 600, 1200, true
		var all []byte
		for _, c := range run(s, 3, r) {
			hdr := make([]byte, wire.VNetHdrLen)
			c.owes.Encode(hdr)
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(c.frame))), hdr...)
			all = append(all, c.frame...)
		}
		f.Add(all, uint32(65536))
	}
	f.Fuzz(func(t *testing.T, all []byte, longest uint32) {
		var cars []car
		for len(all) >= 2+wire.VNetHdrLen && len(cars) < 50 {
			n := int(binary.BigEndian.Uint16(all))
			var c car
			c.owes.Decode(all[2:])
			all = all[2+wire.VNetHdrLen:]
			n = min(n, len(all))
			c.frame, all = all[:n:n], all[n:]
			cars = append(cars, c)
		}
		cars = passing(cars)
		limit := GROMax{int(longest), int(longest)}
		checkTrains(t, cars, couple(t, cars, limit), limit)
	})
}
