package relay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// burst is how many frames one port may give before the other has its turn.
const burst = 64

// port is one end of a relay. The pieces that it takes and gives are frames,
// each behind a virtio-net header.
type port interface {
	// fd is what epoll waits for.
	fd() int
	// receive returns frames that are the caller's until giveBack, burst at
	// most, none if the port has none.
	receive() ([]unix.Iovec, error)
	giveBack()
	// send gives frames to the kernel. A full queue loses them without an error.
	send([]unix.Iovec) error
}

// run relays between two ports until the context ends. It pins its thread to
// cpu, unless that is negative.
func run(ctx context.Context, ports [2]port, cpu int) error {
	runtime.LockOSThread() // Never unlocked: nobody inherits the thread's CPU.
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pinning to CPU %d: %w", cpu, err)
		}
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer func() { _ = unix.Close(epfd) }()
	for i, p := range ports {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, p.fd(), &event); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	const lookUp = 100 // ms between two looks at the context.
	var events [len(ports)]unix.EpollEvent
	for ctx.Err() == nil {
		n, err := unix.EpollWait(epfd, events[:], lookUp)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if err := relay(ports[event.Fd], ports[1-event.Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

// relay passes frames on until there are none, a burst at most beside the last
// that were received.
func relay(from, to port) error {
	for n := 0; n < burst; {
		frames, err := from.receive()
		if err != nil {
			return err
		}
		if len(frames) == 0 {
			return nil
		}
		n += len(frames)
		if err := to.send(frames); err != nil {
			return err
		}
		from.giveBack()
	}
	return nil
}

// lost tells whether an errno costs a frame and nothing else: the other end's
// queue is full, or its link is down.
func lost(errno syscall.Errno) bool {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EIO, unix.ENETDOWN:
		return true
	}
	return false
}

// transfer is read(2) or write(2) of a descriptor that can't block.
func transfer(call uintptr, fd int, b unix.Iovec) (uint64, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(b.Base)), uintptr(b.Len))
	return uint64(n), errno
}
