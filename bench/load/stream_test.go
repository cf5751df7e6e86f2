package load

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// poured is the bytes of a stream.
func poured(seed, length uint64) []byte {
	b := make([]byte, length)
	patternAt(b, seed, 0)
	return append(headOf(seed, length), b...)
}

func TestDrainVerdicts(t *testing.T) {
	const length = 3*streamChunk + 8000
	at := func(offset int, change func(b []byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return append(b[:offset:offset], change(b[offset:])...) }
	}
	flip := func(b []byte) []byte { return append([]byte{b[0] ^ 0x10}, b[1:]...) }
	for _, c := range []struct {
		name, says string
		change     func([]byte) []byte
	}{
		{"as sent", "intact", func(b []byte) []byte { return b }},
		{"a bit of the first byte", "byte 0 is", at(streamHead, flip)},
		{"a bit in the third chunk", "byte 600000 is", at(streamHead+600_000, flip)},
		{"a bit of the last byte", "byte 794431 is", at(streamHead+length-1, flip)},
		{"a segment left out", "byte 1448 is", at(streamHead+1448, func(b []byte) []byte { return b[1448:] })},
		{"a segment twice", "byte 2896 is", at(streamHead+1448, func(b []byte) []byte { return append(b[:1448:1448], b...) })},
		{"two segments swapped", "byte 0 is", at(streamHead, func(b []byte) []byte {
			return append(append(append([]byte{}, b[1448:2896]...), b[:1448]...), b[2896:]...)
		})},
		{"a chunk in another's place", "byte 262144 is", at(streamHead+streamChunk, func(b []byte) []byte {
			return append(append([]byte{}, b[streamChunk:]...), b[:streamChunk]...)
		})},
		{"cut short", "from byte 786432", func(b []byte) []byte { return b[:len(b)-8] }},
		{"a damaged length", "a head that is damaged", at(16, flip)},
		{"a damaged seed", "a head that is damaged", at(8, flip)},
		{"nothing", "the head: EOF", func([]byte) []byte { return nil }},
	} {
		if got := drain(bytes.NewReader(c.change(poured(7, length)))); !strings.HasPrefix(got, c.says) {
			t.Errorf("%s: the drain says %q, want %q", c.name, got, c.says)
		}
	}
}

// Streams at the same time over real sockets, and one that somebody damages.
func TestPour(t *testing.T) {
	d, err := OpenDrain(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	ends := make(chan error, 3)
	for seed := range uint64(3) {
		go func() {
			p, err := Pour(ctx, d.Addr(), seed, 1<<20)
			if err == nil && (p.Bytes != 1<<20 || p.Seconds <= 0) {
				t.Errorf("%+v", p)
			}
			ends <- err
		}()
	}
	for range 3 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	for _, length := range []uint64{0, 9, MaxStream + 8} {
		if _, err := Pour(ctx, d.Addr(), 1, length); err == nil {
			t.Errorf("%d bytes: accepted", length)
		}
	}

	// A man in the middle, who changes byte 5,000 of what passes.
	middle, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		in, err := middle.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", d.Addr().String())
		if err == nil {
			go func() { _, _ = io.Copy(in, out); _ = in.Close(); _ = out.Close() }()
			first := make([]byte, 6000)
			_, _ = io.ReadFull(in, first)
			first[streamHead+5000] ^= 1
			_, _ = out.Write(first)
			_, _ = io.Copy(out, in)
			_ = out.(*net.TCPConn).CloseWrite()
		}
	}()
	_, err = Pour(ctx, middle.Addr().(*net.TCPAddr).AddrPort(), 9, 1<<20)
	if err == nil || !strings.Contains(err.Error(), "byte 5000 is") {
		t.Errorf("a damaged stream: %v", err)
	}
	if err := middle.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// No word of a stream is like another one near it, nor like one of another
// stream there.
func TestPatternDiffers(t *testing.T) {
	b, other := make([]byte, 1<<16), make([]byte, 1<<16)
	patternAt(b, 1, 0)
	patternAt(other, 2, 0)
	seen := map[[8]byte]bool{}
	for i := 0; i < len(b); i += 8 {
		for _, word := range [][8]byte{[8]byte(b[i:]), [8]byte(other[i:])} {
			if seen[word] {
				t.Fatalf("%x twice", word)
			}
			seen[word] = true
		}
	}
	part := make([]byte, 800)
	patternAt(part, 1, 8000)
	if !bytes.Equal(part, b[8000:8800]) {
		t.Error("the pattern from an offset on isn't that of the whole")
	}
}

func BenchmarkPattern(b *testing.B) {
	buf := make([]byte, streamChunk)
	b.SetBytes(streamChunk)
	for b.Loop() {
		patternAt(buf, 1, 0)
	}
}
