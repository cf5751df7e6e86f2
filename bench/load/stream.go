package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A stream begins with a head of 24 bytes, little-endian: magic, CRC-32 of what
// follows in the head, seed, length. Then come as many bytes, of which no eight
// are like others: word i is a hash of seed and i, so that a byte that is
// damaged, left out, or in another place is seen. The drain answers with a line,
// streamIntact or what is wrong.
const (
	streamMagic  = 0x48646c73
	streamHead   = 24
	streamChunk  = 256 << 10 // Bytes made and compared at a time.
	streamIntact = "intact\n"
	faultMost    = 256 // Bytes of another answer.

	// MaxStream bounds the bytes of a stream.
	MaxStream = 1 << 40
)

// Poured is what Pour has sent, and a Drain has found intact.
type Poured struct {
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Pour sends a stream of so many bytes, a multiple of 8, to a Drain from the
// calling thread's namespace. It returns once the drain has found each byte as
// sent; anything else is an error. Streams that run at the same time should have
// seeds of their own.
func Pour(ctx context.Context, to netip.AddrPort, seed, length uint64) (Poured, error) {
	if length == 0 || length%8 != 0 || length > MaxStream {
		return Poured{}, fmt.Errorf("pouring: %d bytes are not 8, 16, 24 … %d", length, uint64(MaxStream))
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return Poured{}, fmt.Errorf("pouring: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	p, err := pour(c.(*net.TCPConn), seed, length)
	if err := errors.Join(err, c.Close()); err != nil {
		return Poured{}, fmt.Errorf("pouring into %v: %w", to, err)
	}
	return p, nil
}

func pour(c *net.TCPConn, seed, length uint64) (Poured, error) {
	began := time.Now()
	if _, err := c.Write(headOf(seed, length)); err != nil {
		return Poured{}, err
	}
	buf := make([]byte, streamChunk)
	for sent := uint64(0); sent < length; {
		part := buf[:min(uint64(len(buf)), length-sent)]
		patternAt(part, seed, sent)
		if _, err := c.Write(part); err != nil {
			return Poured{}, err
		}
		sent += uint64(len(part))
	}
	if err := c.CloseWrite(); err != nil {
		return Poured{}, err
	}
	answer, err := io.ReadAll(io.LimitReader(c, faultMost))
	if err != nil {
		return Poured{}, err
	}
	if string(answer) != streamIntact {
		return Poured{}, fmt.Errorf("the other end says: %q", answer)
	}
	return Poured{Bytes: length, Seconds: time.Since(began).Seconds()}, nil
}

// headOf makes the head of a stream.
func headOf(seed, length uint64) []byte {
	head := make([]byte, streamHead)
	binary.LittleEndian.PutUint32(head, streamMagic)
	binary.LittleEndian.PutUint64(head[8:], seed)
	binary.LittleEndian.PutUint64(head[16:], length)
	binary.LittleEndian.PutUint32(head[4:], crc32.ChecksumIEEE(head[8:]))
	return head
}

// patternAt writes the bytes of a stream from offset at on, a multiple of 8 as
// len(b): the finaliser of SplitMix64 (Steele et al., 2014) over each word's
// number.
func patternAt(b []byte, seed, at uint64) {
	for i := 0; i < len(b); i += 8 {
		x := seed + (at+uint64(i)+8)*0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(b[i:], x^x>>31)
	}
}

// Drain takes in streams and tells their senders whether they are intact.
type Drain struct{ listener net.Listener }

// OpenDrain opens a drain on an address of the calling thread's namespace.
func OpenDrain(at netip.AddrPort) (*Drain, error) {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("draining: %w", err)
	}
	return &Drain{l}, nil
}

// Addr is where the drain listens.
func (d *Drain) Addr() netip.AddrPort { return d.listener.Addr().(*net.TCPAddr).AddrPort() }

// Run takes in streams, any number at the same time, until the context ends,
// and closes the drain. What is wrong with a stream is its sender's to report.
func (d *Drain) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = d.listener.Close() })
	defer stop()
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		c, err := d.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close() // Its sender is told by that.
			}
			return nil
		}
		if err != nil {
			cancel()
			return fmt.Errorf("draining: %w", err)
		}
		streams.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
			defer stop()
			// Whoever sends sees both by the missing answer.
			_, _ = io.WriteString(c, drain(c))
			_ = c.Close()
		})
	}
}

// drain reads one stream and returns the answer to it.
func drain(r io.Reader) string {
	head := make([]byte, streamHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return fmt.Sprintf("the head: %v", err)
	}
	seed, length := binary.LittleEndian.Uint64(head[8:]), binary.LittleEndian.Uint64(head[16:])
	if !bytes.Equal(head, headOf(seed, length)) || length%8 != 0 || length > MaxStream {
		return fmt.Sprintf("a head that is damaged: %x", head)
	}
	got, want := make([]byte, streamChunk), make([]byte, streamChunk)
	for at := uint64(0); at < length; {
		n := min(streamChunk, length-at)
		if _, err := io.ReadFull(r, got[:n]); err != nil {
			return fmt.Sprintf("from byte %d of %d on: %v", at, length, err)
		}
		patternAt(want[:n], seed, at)
		if !bytes.Equal(got[:n], want[:n]) {
			// The answer would be lost beside what is still to come.
			_, _ = io.Copy(io.Discard, r)
			return firstFault(got[:n], want[:n], at)
		}
		at += n
	}
	return streamIntact
}

// firstFault tells where the bytes of a stream from offset at on are not as sent.
func firstFault(got, want []byte, at uint64) string {
	for i := range want {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#02x, sent was %#02x", at+uint64(i), got[i], want[i])
		}
	}
	return ""
}
