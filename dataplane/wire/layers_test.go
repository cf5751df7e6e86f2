package wire

import (
	"slices"
	"testing"

	"heddle/bench/golden"
)

func parse(frame []byte) (l Layers, ok bool) {
	ok = l.Parse(frame)
	return l, ok
}

func TestLayers(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      Layers
	}{
		{"tcp4", tcpSYN4, Layers{L3: 14, L4: 34, End: 58, Proto: ProtoTCP}},
		{"udp in QinQ", udpQinQ, Layers{L3: 22, L4: 42, End: 50, Proto: ProtoUDP}},
		{"echo6 behind options", echo6Ext, Layers{L3: 14, L4: 62, End: 70, V6: true, Proto: ProtoICMPv6}},
		{"first fragment", udpFrag4First, Layers{L3: 14, L4: 34, End: 50, MoreFrags: true, Proto: ProtoUDP}},
		{"later fragment", udpFrag4Later, Layers{L3: 14, L4: 34, End: 42, FragOff: 16, Proto: ProtoUDP}},
		{"later fragment v6", udpFrag6Later,
			Layers{L3: 14, L4: 62, End: 70, FragOff: 16, MoreFrags: true, V6: true, Proto: ProtoUDP}},
	} {
		frame := golden.Bytes(t, c.hex)
		got, ok := parse(frame)
		if !ok || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, ok, c.want)
		}
		padded := slices.Concat(frame, make([]byte, 20))
		if got, ok := parse(padded); !ok || got != c.want {
			t.Errorf("%s padded: %+v, %v; want %+v", c.name, got, ok, c.want)
		}
		for n := range frame {
			if l, ok := parse(frame[:n:n]); ok {
				t.Errorf("%s cut to %d bytes passes: %+v", c.name, n, l)
			}
		}
	}
}

func TestLayersRefuse(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		at        int
		b         byte
	}{
		{"version 5", tcpSYN4, 14, 0x55},
		{"IHL 4", tcpSYN4, 14, 0x44},
		{"IHL past the end", tcpSYN4, 14, 0x4f},
		{"total length past the end", tcpSYN4, 17, 0x2d},
		{"total length within the header", tcpSYN4, 17, 0x13},
		{"IPv6 version 4", echo6Ext, 14, 0x40},
		{"payload length past the end", echo6Ext, 19, 0x11},
		{"options past the end", echo6Ext, 55, 0x02},
		{"ARP", tcpSYN4, 13, 0x06},
	} {
		frame := golden.Bytes(t, c.hex)
		frame[c.at] = c.b
		if l, ok := parse(frame); ok {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
}

// TestIPv6WalkIsBounded: IPv6MaxExt headers are walked, one more is not.
func TestIPv6WalkIsBounded(t *testing.T) {
	for n := range IPv6MaxExt + 3 {
		b := make([]byte, IPv6HdrLen+8*n)
		b[0], b[6] = 0x60, ipv6DestOptions
		if n == 0 {
			b[6] = ProtoTCP
		}
		for i := range n {
			b[IPv6HdrLen+8*i] = ipv6DestOptions
		}
		if n > 0 {
			b[IPv6HdrLen+8*(n-1)] = ProtoTCP
		}
		u, ok := IPv6Walk(b, 0)
		if ok != (n <= IPv6MaxExt) {
			t.Errorf("%d extension headers: ok = %v", n, ok)
		}
		if ok && (u.Proto != ProtoTCP || u.Off != len(b)) {
			t.Errorf("%d extension headers: %+v", n, u)
		}
	}
}

func TestIPv6WalkAH(t *testing.T) {
	b := make([]byte, IPv6HdrLen+24)
	b[0], b[6] = 0x60, ipv6AH
	b[IPv6HdrLen], b[IPv6HdrLen+1] = ProtoUDP, 4 // 4 + 2 words of 4 bytes.
	if u, ok := IPv6Walk(b, 0); !ok || u.Proto != ProtoUDP || u.Off != IPv6HdrLen+24 {
		t.Errorf("IPv6Walk = %+v, %v", u, ok)
	}
}

func TestIPv4Checksum(t *testing.T) {
	for _, s := range []string{tcpSYN4, udpQinQ} {
		frame := golden.Bytes(t, s)
		_, off, _ := L3(frame)
		h, _ := IPv4At(frame, off)
		if csum, ok := IPv4Checksum(frame, off); !ok || csum != h.Checksum() || !IPv4Verify(frame, off) {
			t.Errorf("IPv4Checksum = %#04x, %v; the frame has %#04x", csum, ok, h.Checksum())
		}
		h.SetTTL(h.TTL() - 1)
		if IPv4Verify(frame, off) {
			t.Error("a changed header verifies")
		}
	}
}

// TestL4Checksums: the pseudo-header sum and the packet's sum make all ones.
func TestL4Checksums(t *testing.T) {
	for _, s := range []string{tcpSYN4, udpQinQ, echo6Ext} {
		frame := golden.Bytes(t, s)
		l, ok := parse(frame)
		if !ok {
			t.Fatal("not parsed")
		}
		if got := Fold(Sum(frame[l.L4:l.End], l.PseudoSum(frame, l.End-l.L4))); got != 0xffff {
			t.Errorf("protocol %d: sum %#04x, want 0xffff", l.Proto, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range goldenFrames {
		f.Add(golden.Bytes(f, g.hex), 0)
	}
	f.Fuzz(func(t *testing.T, frame []byte, off int) {
		// Offsets from anywhere: none may panic.
		ARPAt(frame, off)
		IPv4At(frame, off)
		IPv4Checksum(frame, off)
		IPv6At(frame, off)
		TCPAt(frame, off)
		UDPAt(frame, off)
		ICMPAt(frame, off)
		VLANTags(frame)
		if u, ok := IPv6Walk(frame, off); ok && (u.Off < off+IPv6HdrLen || u.Off > len(frame)) {
			t.Fatalf("IPv6Walk(%d) = %+v of %d bytes", off, u, len(frame))
		}
		l, ok := parse(frame)
		if ok && (l.L3 < EthHdrLen || l.L4 < l.L3+IPv4MinHdrLen || l.End < l.L4 || l.End > len(frame)) {
			t.Fatalf("layers %+v of %d bytes", l, len(frame))
		}
		var flow Flow
		fragment, flowOK := ParseFlow(frame, &flow)
		if flowOK && !ok {
			t.Fatal("a flow without layers")
		}
		if flowOK && (fragment != l.IsFragment() || flow.Is4() == l.V6 || flow.Proto() != l.Proto) {
			t.Fatalf("flow %+v, fragment %v of layers %+v", flow, fragment, l)
		}
		if back := flow.Reverse(); back.Reverse() != flow {
			t.Fatalf("reversed twice: %+v", flow)
		}
		var g Layers
		if g.ParseGSO(frame) {
			g.Flow(frame, &flow)
			g.PseudoSum(frame, len(frame))
		} else if flowOK {
			t.Fatal("ParseGSO is stricter than Parse")
		}
	})
}
