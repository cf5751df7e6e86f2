package tap

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"heddle/dataplane/offload"
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

// Dropped returns how many frames of the container the kernel has dropped since
// Open because the queue was full or closed: the device's tx_dropped
// (`ip -s link`). Workers never see them. It asks the kernel (two system calls),
// and returns what it last knew if that fails. Control code may call it at any
// time, and does so now and then: what ip-link(8) has set as the device's
// gro_max_size and gro_ipv4_max_size holds from then on.
func (p *Port) Dropped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_ = p.refresh() // What was last known stands.
	}
	return p.dropped
}

// refresh takes from the kernel what is the device's and not the port's own.
func (p *Port) refresh() error {
	d, err := find(p.rtnl, p.name)
	if err != nil || !d.exists {
		return err
	}
	if d.dropped > p.lastDropped { // Less: another device has taken the name.
		p.dropped += d.dropped - p.lastDropped
	}
	p.lastDropped = d.dropped
	p.setGROMax(d.groMax)
	return nil
}

// setGROMax has packets be shorter than that. Where the kernel tells nothing, as
// before Linux 5.19 and 6.3, it takes those whose length their header can tell.
func (p *Port) setGROMax(m offload.GROMax) {
	p.gro4.Store(int32(cmp.Or(m.IPv4, plainGROMax)))
	p.gro6.Store(int32(cmp.Or(m.IPv6, plainGROMax)))
}

// groMax returns what setGROMax has set. Workers call it.
func (p *Port) groMax() offload.GROMax {
	return offload.GROMax{IPv4: int(p.gro4.Load()), IPv6: int(p.gro6.Load())}
}
