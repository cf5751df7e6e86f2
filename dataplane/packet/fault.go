package packet

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// What Fault wraps.
var (
	// ErrGone: the interface was deleted or moved to another namespace. The
	// port is of no use any more; Open a new one when the interface is back.
	ErrGone = errors.New("the interface is gone")
	// ErrDown: the interface was set down. The port goes on when it is up.
	ErrDown = errors.New("the interface is down")
	// ErrNoCarrier: the interface is up, but what is at its other end is
	// down or unplugged. The port goes on when it is back.
	ErrNoCarrier = errors.New("no carrier: the other end is down or unplugged")
)

// Fault returns why the port carries no frames, or nil if it does: ErrGone,
// ErrDown or ErrNoCarrier, or net.ErrClosed after Close. It asks the kernel
// (three system calls), so that it is right also for a port without traffic.
// Control code may call it at any time.
func (p *Port) Fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	fd := p.queues[0].fd
	sa, err := boundTo(fd)
	if err != nil {
		return err
	}
	if sa.Ifindex < 0 {
		return ErrGone
	}
	// The name is asked for anew: interfaces can be renamed.
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	ifr.SetUint32(uint32(sa.Ifindex))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); errors.Is(err, unix.ENODEV) {
		return ErrGone
	} else if err != nil {
		return fmt.Errorf("ioctl SIOCGIFNAME: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); errors.Is(err, unix.ENODEV) {
		return ErrGone
	} else if err != nil {
		return fmt.Errorf("ioctl SIOCGIFFLAGS: %w", err)
	}
	switch flags := ifr.Uint16(); {
	case flags&unix.IFF_UP == 0:
		return ErrDown
	case flags&unix.IFF_RUNNING == 0:
		return ErrNoCarrier
	}
	return nil
}
