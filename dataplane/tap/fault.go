package tap

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// What Fault wraps.
var (
	// ErrGone: the device was deleted. The port is of no use any more; Close
	// it and Open a new one.
	ErrGone = errors.New("the TAP device is gone")
	// ErrDown: the link is down, and every frame to it is dropped. The port
	// goes on when it is up again.
	ErrDown = errors.New("the TAP device is down")
)

// Fault returns why the port carries no frames, or nil if it does: ErrGone or
// ErrDown, or net.ErrClosed after Close. It asks the kernel (one system call),
// so that it is right also for a port without traffic, and costs the workers
// nothing. Control code may call it at any time.
func (p *Port) Fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	// A TAP without its device polls as an error, one whose link is down as
	// not writable (tun_chr_poll); nothing else makes it so, because the
	// device's send buffer is unlimited.
	fds := []unix.PollFd{{Fd: int32(p.queues[0].fd), Events: unix.POLLOUT}}
	for {
		_, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll TAP %s: %w", p.name, err)
		}
		break
	}
	switch events := fds[0].Revents; {
	case events&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
		return ErrGone
	case events&unix.POLLOUT == 0:
		return ErrDown
	}
	return nil
}

// Refresh takes from the kernel what is the device's and not the port's own: how
// many frames it has dropped, for Dropped, and how long packets may be that are
// written to it. It takes two system calls, and leaves what was last known if
// they fail. Control code calls it every now and then.
func (p *Port) Refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	d, err := find(p.rtnl, p.name)
	if err != nil || !d.exists {
		return
	}
	if d.dropped > p.lastDropped { // Less: another device has taken the name.
		p.dropped += d.dropped - p.lastDropped
	}
	p.lastDropped = d.dropped
	p.gro.set(d.gro)
}

// Dropped returns how many frames of the container the kernel has dropped from
// Open to the last Refresh because the queue was full or closed: the device's
// tx_dropped (`ip -s link`). Workers never see them. Control code may call it at
// any time.
func (p *Port) Dropped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}
