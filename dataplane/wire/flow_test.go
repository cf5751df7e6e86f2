package wire

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"unsafe"

	"heddle/bench/golden"
)

func parseFlow(frame []byte) (f Flow, fragment, ok bool) {
	fragment, ok = ParseFlow(frame, &f)
	return f, fragment, ok
}

func TestParseFlow(t *testing.T) {
	for _, c := range []struct {
		name, hex        string
		proto            uint8
		src, dst         string
		srcPort, dstPort uint16
		fragment         bool
	}{
		{"tcp4", tcpSYN4, ProtoTCP, "198.18.0.1", "198.18.0.2", 40000, 80, false},
		{"udp in QinQ", udpQinQ, ProtoUDP, "198.18.0.1", "198.18.0.2", 40000, 80, false},
		{"echo6 behind options", echo6Ext, ProtoICMPv6, "2001:db8::1", "2001:db8::2", 7, 7, false},
		{"first fragment", udpFrag4First, ProtoUDP, "198.18.0.1", "198.18.0.2", 0, 0, true},
		{"later fragment", udpFrag4Later, ProtoUDP, "198.18.0.1", "198.18.0.2", 0, 0, true},
		{"later fragment v6", udpFrag6Later, ProtoUDP, "2001:db8::1", "2001:db8::2", 0, 0, true},
	} {
		f, fragment, ok := parseFlow(golden.Bytes(t, c.hex))
		if !ok || fragment != c.fragment || f.Proto() != c.proto || f.SrcAddr().String() != c.src ||
			f.DstAddr().String() != c.dst || f.SrcPort != c.srcPort || f.DstPort != c.dstPort || f.VNI() != 0 {
			t.Errorf("%s: %+v, fragment %v, ok %v", c.name, f, fragment, ok)
		}
		if f.Is4() != f.SrcAddr().Is4() {
			t.Errorf("%s: Is4 = %v", c.name, f.Is4())
		}
	}
}

func TestParseFlowEchoReplyIsReverse(t *testing.T) {
	request := golden.Bytes(t, echo6Ext)
	reply := golden.Bytes(t, echo6Ext)
	copy(reply[22:38], request[38:54])
	copy(reply[38:54], request[22:38])
	reply[62] = ICMPv6EchoReply
	f, _, _ := parseFlow(request)
	g, _, ok := parseFlow(reply)
	if !ok || g != f.Reverse() {
		t.Errorf("reply %+v, want %+v", g, f.Reverse())
	}
	reply[62] = ICMPv6PacketTooBig
	if g, _, ok := parseFlow(reply); ok {
		t.Errorf("an ICMP error has a flow: %+v", g)
	}
}

func TestParseFlowRefusesMapped(t *testing.T) {
	frame := golden.Bytes(t, echo6Ext)
	copy(frame[22:38], []byte{10: 0xff, 11: 0xff, 12: 198, 13: 18, 14: 0, 15: 1})
	if f, _, ok := parseFlow(frame); ok {
		t.Errorf("IPv6 from an IPv4-mapped address has a flow: %+v", f)
	}
}

func TestFlowFields(t *testing.T) {
	f, _, _ := parseFlow(golden.Bytes(t, tcpSYN4))
	g := f
	g.SetVNI(0xabcdef)
	if g.VNI() != 0xabcdef || g.Proto() != ProtoTCP || g == f {
		t.Errorf("SetVNI: %+v", g)
	}
	g.SetProto(ProtoUDP)
	if g.VNI() != 0xabcdef || g.Proto() != ProtoUDP {
		t.Errorf("SetProto: %+v", g)
	}
	if f.Src4() != 0xc6120001 || f.Dst4() != 0xc6120002 {
		t.Errorf("Src4 %#x, Dst4 %#x", f.Src4(), f.Dst4())
	}
	if n := unsafe.Sizeof(f); n != 40 {
		t.Errorf("a flow takes %d bytes, want 40", n)
	}
}

// TestFlowHash: every bit of the flow turns about half of the hash's bits, and
// the low bits, which a table takes, spread like random ones.
func TestFlowHash(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var turned, pairs int
	for range 200 {
		words := [5]uint64{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}
		h := (*Flow)(unsafe.Pointer(&words)).Hash(1)
		for bit := range 320 {
			w := words
			w[bit/64] ^= 1 << (bit % 64)
			d := bits.OnesCount64(h ^ (*Flow)(unsafe.Pointer(&w)).Hash(1))
			if d < 8 {
				t.Fatalf("bit %d turns only %d bits of the hash", bit, d)
			}
			turned += d
			pairs++
		}
	}
	if mean := float64(turned) / float64(pairs); mean < 31.5 || mean > 32.5 {
		t.Errorf("a bit turns %.2f bits of the hash on average, want about 32", mean)
	}

	// 64 Ki flows that differ in little, in as many slots: a random function
	// leaves 36.8% of the slots empty.
	f, _, _ := parseFlow(golden.Bytes(t, tcpSYN4))
	used := make([]bool, 1<<16)
	filled := 0
	for i := range 1 << 16 {
		f.SrcPort, f.DstLo = uint16(i&0xff), mapped|uint64(i>>8)
		if s := &used[f.Hash(0)&0xffff]; !*s {
			*s = true
			filled++
		}
	}
	if share := float64(filled) / (1 << 16); share < 0.62 || share > 0.645 {
		t.Errorf("%.3f of the slots are used, want 0.632", share)
	}
	back := f.Reverse()
	if f.Hash(0) == f.Hash(1) || f.Hash(0) == back.Hash(0) {
		t.Error("the hash depends on neither seed nor direction")
	}
}

func BenchmarkParseFlow(b *testing.B) {
	for _, g := range goldenFrames[:3] {
		frame := golden.Bytes(b, g.hex)
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var f Flow
				ParseFlow(frame, &f)
				sink += uint32(f.SrcPort)
			}
		})
	}
}

func BenchmarkFlowHash(b *testing.B) {
	f, _, _ := parseFlow(golden.Bytes(b, tcpSYN4))
	for b.Loop() {
		f.SrcPort++
		sink += uint32(f.Hash(1))
	}
}
