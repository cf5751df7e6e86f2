package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendBatch is how many frames one sendmmsg takes.
const sendBatch = 64

// Sent is what a sender has given to the kernel.
type Sent struct {
	Frames  uint64  `json:"frames"`
	Seconds float64 `json:"seconds"`
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// Send sends frames out of an interface of the calling thread's namespace for
// the duration, at rate frames a second or as fast as it goes (rate 0). It
// blocks when the kernel wants it to. Pin the process: it keeps a core busy.
func Send(ctx context.Context, ifname string, f Frames, d time.Duration, rate float64) (Sent, error) {
	templates, err := f.templates()
	if err != nil {
		return Sent{}, err
	}
	fd, err := openSocket(ifname, 0)
	if err != nil {
		return Sent{}, err
	}
	sent, err := sendOn(ctx, fd, templates, d, rate)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return Sent{}, fmt.Errorf("sending on %s: %w", ifname, err)
	}
	return sent, nil
}

func sendOn(ctx context.Context, fd int, templates [][]byte, d time.Duration, rate float64) (Sent, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := newSlab(templates[0], func(frame []byte, number uint64) {
		flow := number % uint64(len(templates))
		if len(templates) > 1 {
			copy(frame, templates[flow])
		}
		stamp(frame, uint16(flow), number/uint64(len(templates)))
	})
	defer runtime.KeepAlive(s)
	began := time.Now()
	for ctx.Err() == nil {
		elapsed := time.Since(began)
		if elapsed >= d {
			break
		}
		n := sendBatch
		if rate > 0 {
			due := uint64(elapsed.Seconds() * rate)
			n = int(min(due-min(due, s.sent), sendBatch))
			if n == 0 {
				continue // Spins: a sleep would be longer than the gap.
			}
		}
		if err := s.send(fd, n); err != nil {
			return Sent{}, err
		}
	}
	return Sent{Frames: s.sent, Seconds: time.Since(began).Seconds()}, context.Cause(ctx)
}

// slab holds one batch of frames with the headers that sendmmsg takes.
type slab struct {
	write    func(frame []byte, number uint64) // Makes frame number out of an earlier one.
	frames   [sendBatch][]byte
	iovecs   [sendBatch]unix.Iovec
	messages [sendBatch]mmsghdr
	sent     uint64
}

func newSlab(first []byte, write func(frame []byte, number uint64)) *slab {
	s := &slab{write: write}
	for i := range s.frames {
		s.frames[i] = append([]byte(nil), first...)
		s.iovecs[i].Base = &s.frames[i][0]
		s.iovecs[i].SetLen(len(s.frames[i]))
		s.messages[i].hdr.Iov = &s.iovecs[i]
		s.messages[i].hdr.SetIovlen(1)
	}
	return s
}

// send sends the next n frames, n ≤ sendBatch.
func (s *slab) send(fd, n int) error {
	for i := range n {
		s.write(s.frames[i], s.sent+uint64(i))
	}
	for done := 0; done < n; {
		m, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&s.messages[done])), uintptr(n-done), 0, 0, 0)
		switch {
		case errno == 0:
			done += int(m)
		case errors.Is(errno, unix.ENOBUFS):
			// The device's queue refused one frame, which counts as sent and
			// lost, as it would for any program.
			done++
		case errors.Is(errno, unix.EINTR) || errors.Is(errno, unix.EAGAIN):
		default:
			return errno
		}
	}
	s.sent += uint64(n)
	return nil
}

// openSocket opens a packet socket bound to an interface. It takes in frames
// of the Ethernet type proto; 0 takes in none.
func openSocket(ifname string, proto uint16) (int, error) {
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, fmt.Errorf("interface %s: %w", ifname, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	addr := &unix.SockaddrLinklayer{Ifindex: iface.Index, Protocol: proto<<8 | proto>>8}
	if err := unix.Bind(fd, addr); err != nil {
		return -1, errors.Join(fmt.Errorf("packet socket: binding to %s: %w", ifname, err), unix.Close(fd))
	}
	return fd, nil
}
