package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// seed starts the content of every transfer.
var seed = [32]byte{'h', 'e', 'd', 'd', 'l', 'e'}

// stream is a TCP transfer on its way.
type stream struct {
	sender, receiver chan error
	// half is closed when half is sent; the rest waits until resume is closed.
	half, resume chan struct{}
}

// start begins to send size bytes over TCP from one station to another, which
// holds every byte against what was sent.
func (w *world) start(from, to *station, address string, size int64) (*stream, error) {
	addr := &net.TCPAddr{IP: net.ParseIP(address)}
	var l *net.TCPListener
	err := to.ns.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A minute, and what it takes at 80 Mb/s.
	deadline := time.Now().Add(time.Minute + time.Duration(size/10_000_000)*time.Second)
	s := &stream{
		sender: make(chan error, 1), receiver: make(chan error, 1),
		half: make(chan struct{}), resume: make(chan struct{}),
	}
	_ = l.SetDeadline(deadline)
	go func() { s.receiver <- errors.Join(receive(l, deadline, size), l.Close()) }()
	var c *net.TCPConn
	err = from.ns.Do(func() (err error) {
		c, err = dial(w.Context(), l.Addr().(*net.TCPAddr))
		return err
	})
	if err != nil {
		_ = l.SetDeadline(time.Now())
		return nil, errors.Join(err, <-s.receiver)
	}
	go func() { s.sender <- s.send(c, deadline, size) }()
	return s, nil
}

// dial connects on the calling thread, and so in its namespace.
func dial(ctx context.Context, addr *net.TCPAddr) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	var d net.Dialer
	return d.DialTCP(ctx, "tcp", netip.AddrPort{}, addr.AddrPort())
}

func (s *stream) send(c *net.TCPConn, deadline time.Time, size int64) error {
	_ = c.SetDeadline(deadline)
	buffer, content := make([]byte, 256<<10), rand.NewChaCha8(seed)
	// The wrapper hides ReadFrom, which would use a small buffer of its own.
	_, err := io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(content, size/2), buffer)
	close(s.half)
	<-s.resume
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(content, size-size/2), buffer)
	}
	if err == nil {
		err = c.CloseWrite()
	}
	if err == nil {
		_, err = io.ReadAll(c) // The end that the receiver sends when it has all.
	}
	return errors.Join(err, c.Close())
}

func receive(l *net.TCPListener, deadline time.Time, size int64) error {
	c, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	_ = c.SetDeadline(deadline)
	want := rand.NewChaCha8(seed)
	got, expected := make([]byte, 256<<10), make([]byte, 256<<10)
	var n int64
	for {
		m, err := c.Read(got)
		if _, errWant := want.Read(expected[:m]); errWant != nil {
			return errWant
		}
		if i := mismatch(got[:m], expected[:m]); i >= 0 {
			return errors.Join(fmt.Errorf("byte %d of the stream is %#x, sent was %#x", n+int64(i), got[i], expected[i]), c.Close())
		}
		n += int64(m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(fmt.Errorf("after %d of %d bytes: %w", n, size, err), c.Close())
		}
	}
	if n != size {
		return errors.Join(fmt.Errorf("%d bytes came of %d", n, size), c.Close())
	}
	return c.Close()
}

// mismatch returns where two slices of one length differ first, or -1.
func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// finish lets the second half go and waits for both ends.
func (s *stream) finish() error {
	close(s.resume)
	return errors.Join(<-s.sender, <-s.receiver)
}

// tcp sends size bytes and fails the test if they don't arrive as sent.
func (w *world) tcp(from, to *station, address string, size int64) {
	w.Helper()
	s, err := w.start(from, to, address, size)
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		w.Errorf("TCP from %s to %s (%s): %v", from.name, to.name, address, err)
	}
}

// udp sends datagrams of many lengths, up to the longest that fits the MTU,
// then several with one send by UDP_SEGMENT, and fails the test if not each
// arrives, in order and as sent.
func (w *world) udp(from, to *station, address string, mtu int) {
	w.Helper()
	longest := mtu - 20 - 8
	if net.ParseIP(address).To4() == nil {
		longest = mtu - 40 - 8
	}
	if err := w.datagrams(from, to, address, longest); err != nil {
		w.Errorf("UDP from %s to %s (%s): %v", from.name, to.name, address, err)
	}
}

func (w *world) datagrams(from, to *station, address string, longest int) error {
	var in, out *net.UDPConn
	err := to.ns.Do(func() (err error) {
		in, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	err = from.ns.Do(func() (err error) {
		out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	content, late := rand.NewChaCha8(seed), [][]byte(nil)
	for _, size := range []int{1, 2, 17, 18, 19, 63, 64, 65, 511, 512, 1000, longest - 1, longest} {
		if err := exchange(in, out, content, &late, size, size); err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
	}
	// The last segment is short, odd and even, or as long as the others.
	for _, c := range []struct{ segment, total int }{
		{longest, min(40, 60_000/longest) * longest}, {1000, 43*1000 + 1}, {1201, 9*1201 + 600}, {100, 4301},
	} {
		if err := setSegment(out, c.segment); err != nil {
			return err
		}
		if err := exchange(in, out, content, &late, c.total, c.segment); err != nil {
			return fmt.Errorf("%d bytes in segments of %d: %w", c.total, c.segment, err)
		}
	}
	return nil
}

// errLost says that datagrams got lost, which UDP may do.
var errLost = errors.New("datagrams got lost")

// exchange sends once and receives what must come of it: datagrams of segment
// bytes, the last one shorter. What gets lost on a busy machine is sent again,
// twice at most; what arrives must be as sent and in order. What was taken for
// lost, and may still come, is added to late.
func exchange(in, out *net.UDPConn, content io.Reader, late *[][]byte, total, segment int) error {
	var err error
	for range 3 {
		if err = exchangeOnce(in, out, content, late, total, segment); !errors.Is(err, errLost) {
			return err
		}
	}
	return err
}

func exchangeOnce(in, out *net.UDPConn, content io.Reader, late *[][]byte, total, segment int) error {
	sent := make([]byte, total)
	if _, err := io.ReadFull(content, sent); err != nil {
		return err
	}
	if _, err := out.Write(sent); err != nil {
		return err
	}
	expected := slices.Collect(slices.Chunk(sent, segment))
	count, arrived := len(expected), 0
	got := make([]byte, 1<<16)
	for len(expected) > 0 {
		_ = in.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := in.Read(got)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return err
		}
		at := slices.IndexFunc(expected, func(want []byte) bool { return bytes.Equal(want, got[:n]) })
		if at < 0 && slices.ContainsFunc(*late, func(lost []byte) bool { return bytes.Equal(lost, got[:n]) }) {
			continue
		}
		if at < 0 {
			want := expected[0]
			return fmt.Errorf("a datagram of %d bytes that wasn't sent, or not now; the next one is %d bytes, first difference at %d",
				n, len(want), mismatch(got[:min(n, len(want))], want[:min(n, len(want))]))
		}
		expected = expected[at+1:]
		arrived++
	}
	if arrived < count {
		*late = append(*late, slices.Collect(slices.Chunk(sent, segment))...)
		return fmt.Errorf("%w: %d of %d", errLost, count-arrived, count)
	}
	return nil
}

// setSegment has the kernel cut what is sent into datagrams (UDP_SEGMENT,
// udp(7)).
func setSegment(c *net.UDPConn, size int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errSet error
	err = raw.Control(func(fd uintptr) {
		errSet = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)
	})
	return errors.Join(err, errSet)
}
