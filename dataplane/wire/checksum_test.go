package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"
)

// slowSum is RFC 1071 as it is written: one 16-bit word after the other.
func slowSum(b []byte, acc uint32) uint16 {
	s := uint64(acc)
	for i, c := range b {
		if i%2 == 0 {
			s += uint64(c) << 8
		} else {
			s += uint64(c)
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSumRFC1071Example(t *testing.T) {
	// RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if got := Fold(Sum(b, 0)); got != 0xddf2 {
		t.Errorf("sum = %#04x, want 0xddf2", got)
	}
}

func TestSumAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 300)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	ones := make([]byte, 300)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, data := range [][]byte{b, ones, make([]byte, 300)} {
		for from := range 9 {
			for n := 0; from+n <= len(data); n++ {
				acc := r.Uint32() >> 8
				if got, want := Fold(Sum(data[from:from+n], acc)), slowSum(data[from:from+n], acc); got != want {
					t.Fatalf("Sum([%d:+%d], %#x) = %#04x, want %#04x", from, n, acc, got, want)
				}
			}
		}
	}
}

func TestSumPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 65535)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	want := slowSum(b, 0)
	for range 200 {
		cut := r.IntN(len(b)/2) * 2
		if got := Fold(Sum(b[cut:], Sum(b[:cut], 0))); got != want {
			t.Fatalf("cut at %d: %#04x, want %#04x", cut, got, want)
		}
	}
}

// TestCopySumAgainstModel: also onto itself, from behind.
func TestCopySumAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for range 4000 {
		n, gap := r.IntN(600), r.IntN(100)
		b := make([]byte, gap+n)
		for i := range b {
			b[i] = byte(r.Uint32() | r.Uint32()*uint32(r.IntN(2)))
		}
		src := append([]byte(nil), b[gap:]...)
		acc := r.Uint32() >> 8
		apart := make([]byte, n)
		if got, want := Fold(CopySum(apart, src, acc)), slowSum(src, acc); got != want || !bytes.Equal(apart, src) {
			t.Fatalf("%d bytes: %#04x, want %#04x", n, got, want)
		}
		if got, want := Fold(CopySum(b, b[gap:], acc)), slowSum(src, acc); got != want || !bytes.Equal(b[:n], src) {
			t.Fatalf("%d bytes, %d forward: %#04x, want %#04x", n, gap, got, want)
		}
	}
}

// TestGenericSums: what other processors run.
func TestGenericSums(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for range 200 {
		n := 64 * (1 + r.IntN(1024))
		src, dst := make([]byte, n), make([]byte, n)
		for i := range src {
			src[i] = byte(r.Uint32()) | byte(-r.IntN(2))
		}
		want := slowSum(src, 0)
		if got := Fold(sumTail(nil, sumBlocksGeneric(src))); got != want {
			t.Fatalf("sum of %d bytes %#04x, want %#04x", n, got, want)
		}
		if got := Fold(sumTail(nil, copySumBlocksGeneric(dst, src))); got != want || !bytes.Equal(dst, src) {
			t.Fatalf("copy of %d bytes %#04x, want %#04x", n, got, want)
		}
		onto := append(make([]byte, r.IntN(100)), src...) // Itself, from behind.
		from := onto[len(onto)-n:]
		if got := Fold(sumTail(nil, copySumBlocksGeneric(onto, from))); got != want || !bytes.Equal(onto[:n], src) {
			t.Fatalf("copy of %d bytes, %d forward: %#04x, want %#04x", n, len(onto)-n, got, want)
		}
	}
}

func TestPseudoSum(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		src, dst, n := r.Uint32(), r.Uint32(), r.IntN(70000)
		var p []byte
		p = binary.BigEndian.AppendUint32(p, src)
		p = binary.BigEndian.AppendUint32(p, dst)
		p = binary.BigEndian.AppendUint32(p, ProtoTCP)
		p = binary.BigEndian.AppendUint32(p, uint32(n))
		if got, want := Fold(PseudoSum4(src, dst, ProtoTCP, n)), slowSum(p, 0); got != want {
			t.Fatalf("v4: %#04x, want %#04x", got, want)
		}
		var s6, d6 [16]byte
		for i := range s6 {
			s6[i], d6[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		p = append(append(p[:0], s6[:]...), d6[:]...)
		p = binary.BigEndian.AppendUint32(p, uint32(n))
		p = binary.BigEndian.AppendUint32(p, ProtoUDP)
		if got, want := Fold(PseudoSum6(&s6, &d6, ProtoUDP, n)), slowSum(p, 0); got != want {
			t.Fatalf("v6: %#04x, want %#04x", got, want)
		}
	}
}

func TestDeltaRFC1624Example(t *testing.T) {
	// RFC 1624 section 4: 0x5555 becomes 0x3285, and the checksum 0xdd2f
	// becomes 0x0000, not 0xffff.
	if got := Delta16(0x5555, 0x3285).Update(0xdd2f); got != 0x0000 {
		t.Errorf("updated checksum = %#04x, want 0x0000", got)
	}
}

// TestDeltaAgainstRecompute: an incremental update is the full recompute, bit
// for bit, whatever changes.
func TestDeltaAgainstRecompute(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var b [60]byte
	for range 20000 {
		fill := r.IntN(3) // random, mostly 0, mostly 0xff: the borders of one's complement.
		for i := range b {
			switch {
			case fill == 0 || r.IntN(20) == 0:
				b[i] = byte(r.Uint32())
			case fill == 1:
				b[i] = 0
			default:
				b[i] = 0xff
			}
		}
		b[59] |= 1 // A sum of nothing but zeros is no header's.
		csum := ^Fold(Sum(b[:], 0))
		var d Delta
		v16, v32, v128 := uint16(r.Uint32()), r.Uint32()&r.Uint32(), [16]byte(b[3:19])
		d = Delta16(binary.BigEndian.Uint16(b[2:]), v16)
		binary.BigEndian.PutUint16(b[2:], v16)
		d = d.Add(Delta32(binary.BigEndian.Uint32(b[6:]), v32))
		binary.BigEndian.PutUint32(b[6:], v32)
		d = d.Add(Delta128((*[16]byte)(b[20:]), &v128))
		copy(b[20:], v128[:])
		if got, want := d.Update(csum), ^Fold(Sum(b[:], 0)); got != want {
			t.Fatalf("updated %#04x, recomputed %#04x, bytes % x", got, want, b)
		}
		if got, want := d.UpdatePartial(^csum), Fold(Sum(b[:], 0)); got != want {
			t.Fatalf("partial updated %#04x, recomputed %#04x", got, want)
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint32(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, acc uint32, cut uint16) {
		acc >>= 8
		if got, want := Fold(Sum(b, acc)), slowSum(b, acc); got != want {
			t.Fatalf("Sum(% x, %#x) = %#04x, want %#04x", b, acc, got, want)
		}
		if c := make([]byte, len(b)); Fold(CopySum(c, b, acc)) != slowSum(b, acc) || !bytes.Equal(c, b) {
			t.Fatalf("copied % x as % x", b, c)
		}
		if n := int(cut) &^ 1; n <= len(b) {
			if got, want := Fold(Sum(b[n:], Sum(b[:n], acc))), slowSum(b, acc); got != want {
				t.Fatalf("cut at %d: %#04x, want %#04x", n, got, want)
			}
		}
	})
}

var sink uint32

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1448, 1536, 65535} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i * 7)
		}
		b.Run(strconv.Itoa(n)+"B", func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				sink += Sum(data, 0)
			}
		})
	}
}

func BenchmarkCopySum(b *testing.B) {
	for _, n := range []int{64, 1448, 65535} {
		data, to := make([]byte, n), make([]byte, n)
		b.Run(strconv.Itoa(n)+"B", func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				sink += CopySum(to, data, 0)
			}
		})
	}
}

// BenchmarkGenericCopySum: what other processors run.
func BenchmarkGenericCopySum(b *testing.B) {
	for _, n := range []int{64, 1408, 65472} {
		data, to := make([]byte, n), make([]byte, n)
		b.Run(strconv.Itoa(n)+"B", func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				sink += uint32(copySumBlocksGeneric(to, data))
			}
		})
	}
}
