package packet

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
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
	// ErrStuck: the kernel drops every frame that comes, although the ring is
	// empty. The port is of no use any more; Close it and Open a new one.
	ErrStuck = errors.New("the kernel puts no frame into the ring any more")
)

// stuckLooks is after how many looks at a queue it is stuck: at one, frames that
// found a full ring may be all that came since a worker has asked.
const stuckLooks = 2

// Fault returns why the port carries no frames, or nil if it does: ErrGone,
// ErrDown, ErrNoCarrier or ErrStuck, or net.ErrClosed after Close. It asks the
// kernel (three system calls, and one for each queue), so that it is right also for
// a port without traffic; but for ErrStuck, which takes frames and two calls.
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
	for i := range p.queues {
		if p.stuck(i) {
			return ErrStuck
		}
	}
	return nil
}

// stuck looks at a queue, and tells whether frames came since the looks before,
// all were dropped, and its ring is empty.
//
// From Linux 5.6 to 6.18 at least, a frame that struct virtio_net_hdr has no words
// for leaves its slot taken for good (rx_owner_map, tpacket_rcv in
// net/packet/af_packet.c): UDP GSO before 6.2, UFO from a virtual machine, what a
// container makes of its interface with ethtool(8).
func (p *Port) stuck(i int) bool {
	frames, dropped := statistics(p.queues[i].fd)
	if dropped > 0 {
		p.counters.Drop(p.asker(), dataplane.RxKernel, dropped)
	}
	switch {
	case frames > dropped:
		p.starved[i] = 0
	case frames > 0 && p.queues[i].empty():
		p.starved[i]++
	}
	return p.starved[i] >= stuckLooks
}

// empty tells whether no slot holds a frame, lent or not. Any goroutine may ask.
func (q *queue) empty() bool {
	for _, slot := range q.slots {
		if atomic.LoadUint32((*uint32)(unsafe.Pointer(&slot[0])))&unix.TP_STATUS_USER != 0 {
			return false
		}
	}
	return true
}

// asker is who counts what Fault finds, beside the workers.
func (p *Port) asker() int { return len(p.queues) }
