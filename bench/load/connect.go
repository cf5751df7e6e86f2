package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Connected is what Connect has done.
type Connected struct {
	Conns   uint64  `json:"conns"` // Each answered as it should be, and closed by both ends.
	Seconds float64 `json:"seconds"`
}

// Rate returns the connections a second.
func (c Connected) Rate() float64 {
	if c.Seconds <= 0 {
		return 0
	}
	return float64(c.Conns) / c.Seconds
}

// Connect makes connections to a Server from the calling thread's namespace, one
// after the other, for the duration or until it has made most of them: netperf's
// TCP_CRR with HTTP inside. Each has a local port of its own, from first on, so
// that it is a new one for everybody on the way.
func Connect(ctx context.Context, to netip.AddrPort, first uint16, most int, d time.Duration) (Connected, error) {
	if most < 1 || int(first)+most > 1<<16 {
		return Connected{}, fmt.Errorf("connecting: there are no %d ports from %d on", most, first)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var c Connected
	began := time.Now()
	for c.Conns < uint64(most) && time.Since(began) < d && ctx.Err() == nil {
		from := first + uint16(c.Conns)
		if err := connect(to, from); err != nil {
			return Connected{}, fmt.Errorf("connection %d, from port %d to %v: %w", c.Conns, from, to, err)
		}
		c.Conns++
	}
	c.Seconds = time.Since(began).Seconds()
	return c, context.Cause(ctx)
}

// connect makes one connection and holds the answer against what it should be.
func connect(to netip.AddrPort, from uint16) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	bound := unix.NsecToTimeval(peerBound.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound), // Also connect's.
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(from)}))
	if err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if errors.Is(err, unix.EINTR) { // It goes on by itself (connect(2)).
		err = connected(fd)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	want := answerTo([]byte(request))
	var buf [len(answer) + 9]byte // One more than there should be.
	n := 0
	for n < len(buf) {
		more, err := read(fd, buf[n:])
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if more == 0 {
			break
		}
		n += more
	}
	if got := string(buf[:n]); got != want {
		return fmt.Errorf("answered %q instead of %q", got, want)
	}
	return nil
}

// connected waits for the end of a connect that a signal has interrupted.
func connected(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds, int(peerBound.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 {
			return err
		}
		return unix.Errno(code)
	}
}
