package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestVXLANHeader(t *testing.T) {
	b := bytes.Repeat([]byte{0xaa}, 9)
	h, ok := VXLANAt(b, 1)
	if !ok {
		t.Fatal("8 bytes are a header")
	}
	h.Init(0x123456)
	if want := []byte{0xaa, 8, 0, 0, 0, 0x12, 0x34, 0x56, 0}; !bytes.Equal(b, want) {
		t.Errorf("wrote % x, want % x", b, want)
	}
	if !h.HasVNI() || h.VNI() != 0x123456 {
		t.Errorf("read VNI %#x, valid %v", h.VNI(), h.HasVNI())
	}
	b[1] = 0xf7
	if h.HasVNI() {
		t.Error("all flags but I: has a VNI")
	}
	h.Init(1 << 24)
	if h.VNI() != 0 || b[8] != 0 {
		t.Errorf("a VNI of 25 bits left % x", b)
	}
	for _, off := range []int{2, 9, 10, -1} {
		if _, ok := VXLANAt(b, off); ok {
			t.Errorf("a header at %d of 9 bytes", off)
		}
	}
}

func TestTCPOption(t *testing.T) {
	for _, c := range []struct {
		options string
		want    int // Offset of the MSS behind the header's start.
	}{
		{"020405b4", 22},
		{"01020405b4010101", 23},
		{"0303070101010204" + "05b40000", 28},
		{"00020405b4000000", 0}, // Behind the end.
		{"02060405b4000000", 0}, // Another length.
		{"0300020405b40000", 0}, // A length of 0.
		{"03090101", 0},         // A length beyond the header.
		{"01010102", 0},         // A kind without a length.
		{"", 0},
	} {
		opts, err := hex.DecodeString(c.options)
		if err != nil {
			t.Fatal(err)
		}
		b := append(make([]byte, 3+TCPMinHdrLen), opts...)
		b[3+12] = byte(5+len(opts)/4) << 4
		want := c.want
		if want > 0 {
			want += 3
		}
		if got := TCPOption(b, 3, TCPOptMSS, 2); got != want {
			t.Errorf("options %s: MSS at %d, want %d", c.options, got, want)
		}
		before := bytes.Clone(b)
		if changed := ClampMSS(b, 3, 1000, false); changed != (c.want > 0) || !changed && !bytes.Equal(b, before) {
			t.Errorf("options %s: clamped %v: % x", c.options, changed, b)
		}
		// The checksum is as right, or as wrong, as it was.
		if got, want := Fold(Sum(b[3:], 0)), Fold(Sum(before[3:], 0)); got != want {
			t.Errorf("options %s: the sum is %#x, was %#x", c.options, got, want)
		}
		if ClampMSS(b, 3, 1000, false) {
			t.Errorf("options %s: clamped twice", c.options)
		}
	}
}
