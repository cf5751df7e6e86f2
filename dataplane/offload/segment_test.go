package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

// segments runs a Segmenter over a frame.
func segments(t testing.TB, frame []byte, h *wire.VNetHdr) [][]byte {
	t.Helper()
	var s Segmenter
	if !s.Begin(frame, h) {
		return nil
	}
	count := s.Count()
	buf := make([]byte, SegmentLen(frame, h))
	var all [][]byte
	for n := s.Next(buf); n > 0; n = s.Next(buf) {
		all = append(all, bytes.Clone(buf[:n]))
	}
	if len(all) != count {
		t.Fatalf("%d segments, Count said %d", len(all), count)
	}
	return all
}

// modelSegments cuts a frame the slow way: gopacket decodes it, each segment's
// layers are changed as RFC 791, 768 and 9293 have it and written by gopacket,
// which works out lengths and checksums. IPv6 extension headers are not in it.
func modelSegments(t *testing.T, frame []byte, s super) [][]byte {
	t.Helper()
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if packet.ErrorLayer() != nil {
		t.Fatalf("%+v: %v", s, packet.ErrorLayer().Error())
	}
	payload := frame[len(frame)-s.payload:]
	var all [][]byte
	for at := 0; at < len(payload); at += s.size {
		piece := payload[at:min(at+s.size, len(payload))]
		last := at+s.size >= len(payload)
		var stack []gopacket.SerializableLayer
		var network gopacket.NetworkLayer
		for _, l := range packet.Layers() {
			switch l := l.(type) {
			case *layers.Ethernet:
				stack = append(stack, l)
			case *layers.Dot1Q:
				stack = append(stack, l)
			case *layers.IPv4:
				ip := *l
				ip.Id = s.id + uint16(at/s.size)
				network, stack = &ip, append(stack, &ip)
			case *layers.IPv6:
				network, stack = l, append(stack, l)
			case *layers.TCP:
				tcp := *l
				tcp.Seq = s.seq + uint32(at)
				tcp.FIN, tcp.PSH = l.FIN && last, l.PSH && last
				tcp.CWR = l.CWR && at == 0
				if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
					t.Fatal(err)
				}
				stack = append(stack, &tcp)
			case *layers.UDP:
				udp := *l
				if err := udp.SetNetworkLayerForChecksum(network); err != nil {
					t.Fatal(err)
				}
				stack = append(stack, &udp)
			}
		}
		stack = append(stack, gopacket.Payload(piece))
		out := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		b := out.Bytes()[:len(frame)-s.payload+len(piece)] // gopacket pads to 60 bytes.
		if field := b[len(b)-len(piece)-2 : len(b)-len(piece)]; s.udp {
			if s.noSum && !s.partial {
				field[0], field[1] = 0, 0
			} else if field[0] == 0 && field[1] == 0 {
				field[0], field[1] = 0xff, 0xff
			}
		}
		all = append(all, b)
	}
	return all
}

func TestSegmenterAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 400 {
		s := randomSuper(r)
		s.exts = 0
		frame, h := s.build(r)
		before, owes := bytes.Clone(frame), h
		got, want := segments(t, frame, &h), modelSegments(t, frame, s)
		if !bytes.Equal(frame, before) || h != owes {
			t.Fatalf("%+v: the super-frame was changed", s)
		}
		if len(got) != len(want) {
			t.Fatalf("%+v: %d segments, want %d", s, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%+v: segment %d of %d\n got % x\nwant % x", s, i, len(got), got[i], want[i])
			}
		}
	}
}

// TestSegmenterGolden: three segments each, the last one short.
func TestSegmenterGolden(t *testing.T) {
	for _, c := range []struct {
		description, in string
		owes            wire.VNetHdr
		out             []string
	}{{
		"TCP: FIN and PSH in the last, CWR in the first, sequence number and identification wrap", `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 3c  ff ff 40 00  40 06 ae 94         # 60 bytes, id 0xffff, DF
		c6 12 00 01  c6 12 00 02
		9c 40 00 50  ff ff ff f8  00 00 00 09         # 40000 to 80, seq 2³²-8, ack 9
		50 99 fa f0  8c 56 00 00                      # CWR ACK PSH FIN, pseudo-header sum
		00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  10 11 12 13`,
		wire.VNetHdr{
			Flags: wire.VNetNeedsCsum, GSOType: wire.VNetGSOTCP4 | wire.VNetGSOECN,
			GSOSize: 8, CsumStart: 34, CsumOffset: wire.TCPCsumOff,
		},
		[]string{`
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 30  ff ff 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02
		9c 40 00 50  ff ff ff f8  00 00 00 09  50 90 fa f0  7f 91 00 00   # CWR ACK
		00 01 02 03 04 05 06 07`, `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 30  00 00 40 00  40 06 ae a0  c6 12 00 01  c6 12 00 02   # id 0
		9c 40 00 50  00 00 00 00  00 00 00 09  50 10 fa f0  5f ea 00 00   # seq 0, ACK
		08 09 0a 0b 0c 0d 0e 0f`, `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 2c  00 01 40 00  40 06 ae a3  c6 12 00 01  c6 12 00 02   # 44 bytes, id 1
		9c 40 00 50  00 00 00 08  00 00 00 09  50 19 fa f0  69 e9 00 00   # seq 8, ACK PSH FIN
		10 11 12 13`},
	}, {
		"UDP over IPv6 in a VLAN behind a destination option", `
		02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  86 dd
		60 00 00 00  00 24 3c 40                      # 36 bytes, next: destination options
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		11 00 01 04 00 00 00 00                       # next: UDP
		9c 40 00 50  00 1c 5b a2                      # 28 bytes, pseudo-header sum
		00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  10 11 12 13`,
		wire.VNetHdr{
			Flags: wire.VNetNeedsCsum, GSOType: wire.VNetGSOUDPL4,
			GSOSize: 8, CsumStart: 66, CsumOffset: wire.UDPCsumOff,
		},
		[]string{`
		02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  86 dd
		60 00 00 00  00 18 3c 40
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		11 00 01 04 00 00 00 00
		9c 40 00 50  00 10 fb b8  00 01 02 03 04 05 06 07`, `
		02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  86 dd
		60 00 00 00  00 18 3c 40
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		11 00 01 04 00 00 00 00
		9c 40 00 50  00 10 db 98  08 09 0a 0b 0c 0d 0e 0f`, `
		02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  86 dd
		60 00 00 00  00 14 3c 40
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		11 00 01 04 00 00 00 00
		9c 40 00 50  00 0c e5 ac  10 11 12 13`},
	}} {
		got := segments(t, golden.Bytes(t, c.in), &c.owes)
		if len(got) != len(c.out) {
			t.Errorf("%s: %d segments, want %d", c.description, len(got), len(c.out))
			continue
		}
		for i := range got {
			if want := golden.Bytes(t, c.out[i]); !bytes.Equal(got[i], want) {
				t.Errorf("%s: segment %d\n got % x\nwant % x", c.description, i, got[i], want)
			}
		}
	}
}

// checkSegments holds the invariants that need no model.
func checkSegments(t *testing.T, frame []byte, h *wire.VNetHdr, got [][]byte) {
	t.Helper()
	hdr, longest := HeaderLen(frame, h), SegmentLen(frame, h)
	var l wire.Layers
	l.ParseGSO(frame)
	var payload []byte
	for i, b := range got {
		if len(b) > longest || i < len(got)-1 && len(b) != longest {
			t.Fatalf("segment %d of %d is %d bytes long, want %d", i, len(got), len(b), longest)
		}
		if !checksumsRight(b) {
			t.Fatalf("segment %d of %d: a length or checksum is wrong: % x", i, len(got), b)
		}
		if !bytes.Equal(b[:l.L3], frame[:l.L3]) {
			t.Fatalf("segment %d: L2 is % x, want % x", i, b[:l.L3], frame[:l.L3])
		}
		if l.V6 && !bytes.Equal(b[l.L3+6:l.L4], frame[l.L3+6:l.L4]) {
			t.Fatalf("segment %d: the IPv6 header or an extension changed", i)
		}
		if l.Proto == wire.ProtoTCP {
			whole, _ := wire.TCPAt(frame, l.L4)
			if tcp, ok := wire.TCPAt(b, l.L4); !ok || tcp.Seq() != whole.Seq()+uint32(len(payload)) {
				t.Fatalf("segment %d: sequence number %d", i, tcp.Seq())
			}
		}
		payload = append(payload, b[hdr:]...)
	}
	if !bytes.Equal(payload, frame[hdr:]) {
		t.Fatalf("the segments carry %d bytes, want the frame's %d", len(payload), len(frame)-hdr)
	}
}

func TestSegmenterProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 400 {
		s := randomSuper(r)
		frame, h := s.build(r)
		got := segments(t, frame, &h)
		if len(got) != (s.payload+s.size-1)/s.size {
			t.Fatalf("%+v: %d segments", s, len(got))
		}
		checkSegments(t, frame, &h, got)
	}
}

// TestSegmenterRoutingHeader: a frame on its way to an intermediate hop keeps
// checksums that are right for its last one.
func TestSegmenterRoutingHeader(t *testing.T) {
	for _, s := range []super{
		{v6: true, exts: 1, payload: 3000, size: 1000, partial: true},
		{v6: true, exts: 1, payload: 3000, size: 1000},
		{v6: true, exts: 2, udp: true, payload: 3000, size: 1000, partial: true},
		{v6: true, exts: 2, udp: true, payload: 3000, size: 1000},
	} {
		frame, h := s.build(rand.New(rand.NewPCG(10, 10)))
		last := bytes.Clone(frame[38:54])
		frame[53] = 0x99
		for i, b := range segments(t, frame, &h) {
			if b[53] != 0x99 {
				t.Errorf("%+v: segment %d goes elsewhere", s, i)
			}
			copy(b[38:54], last)
			if !checksumsRight(b) {
				t.Errorf("%+v: segment %d: checksum wrong for the last hop", s, i)
			}
		}
	}
}

func TestSegmenterRefuses(t *testing.T) {
	frame, h := super{payload: 3000, size: 1448, partial: true}.build(rand.New(rand.NewPCG(8, 8)))
	var s Segmenter
	buf := make([]byte, 2000)
	if s.Next(buf) != 0 || s.Count() != 0 {
		t.Error("the zero Segmenter has segments")
	}
	if !s.Begin(frame, &h) {
		t.Fatal("a good frame is refused")
	}
	if n := s.Next(buf[:1501]); n != 0 {
		t.Errorf("%d bytes were written to a buffer of 1,501", n)
	}
	if n := s.Next(buf); n != 1502 {
		t.Errorf("the first segment is %d bytes long, want 1,502", n)
	}
	plain := wire.VNetHdr{}
	if s.Begin(frame, &plain) || s.Next(buf) != 0 || s.Count() != 0 {
		t.Error("a frame that is no GSO frame is cut")
	}
	h.GSOType = wire.VNetGSOUDP
	if s.Begin(frame, &h) || s.Next(buf) != 0 {
		t.Error("UFO is cut")
	}
}

func FuzzSegmenter(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 40 {
		s := randomSuper(r)
		s.payload = min(s.payload, 400)
		s.size = min(s.size, 100)
		frame, h := s.build(r)
		var hdr [wire.VNetHdrLen]byte
		h.Encode(hdr[:])
		f.Add(hdr[:], frame)
	}
	f.Fuzz(func(t *testing.T, hdr, frame []byte) {
		var h wire.VNetHdr
		if len(hdr) < wire.VNetHdrLen {
			return
		}
		h.Decode(hdr)
		ok := Check(frame, &h)
		SegmentLen(frame, &h)
		var s Segmenter
		if s.Begin(frame, &h) && !ok {
			t.Fatal("Begin takes what Check refuses")
		}
		if ok && h.GSO() {
			var l wire.Layers
			l.ParseGSO(frame)
			got := segments(t, frame, &h)
			if got == nil {
				t.Fatal("Begin refuses what Check takes")
			}
			if l.V6 && l.L4 > l.L3+wire.IPv6HdrLen {
				return // The L4 checksum is then as right as the frame's was.
			}
			checkSegments(t, frame, &h, got)
			return
		}
		before := bytes.Clone(frame)
		owed := h
		if done := Complete(frame, &h); ok && !done {
			t.Fatal("Complete refuses what Check takes")
		} else if !done && !bytes.Equal(frame, before) {
			t.Fatal("Complete has changed what it refuses")
		} else if done && owed.Partial() && owed.CsumOffset != wire.UDPCsumOff {
			at := int(owed.CsumStart) + int(owed.CsumOffset)
			seed := binary.BigEndian.Uint16(before[at:])
			if at%2 == int(owed.CsumStart)%2 && modelSum(frame[owed.CsumStart:], seed) != 0xffff {
				t.Fatal("the completed sum is not all ones")
			}
		}
	})
}
