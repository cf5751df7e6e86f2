package packet

import (
	"errors"
	"fmt"
	"net"
	"sync"

	mdpacket "github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Config is what a Port is opened from.
type Config struct {
	// Interface is the name of an Ethernet interface in the network namespace
	// of the calling thread (runtime.LockOSThread holds a goroutine on it).
	Interface string
	// Workers is the number of queues, 1 to dataplane.MaxWorkers. 0 means 1.
	Workers int
	// Promiscuous has a NIC take in frames for any MAC while the port is
	// open. A veth does so anyway.
	Promiscuous bool
	// Slots is how many frames the ring of each worker holds, 1 to MaxSlots,
	// rounded up to a multiple of DefaultSlots, which take 1 MB of memory that
	// is never swapped out. 0 means DefaultSlots. Frames that the worker has
	// pulled and not given back count.
	Slots int
}

// How many frames the ring of a worker holds by default, in 1 MB, and at most,
// in 64: a worker that waits for its CPU loses no burst that is smaller.
const (
	DefaultSlots = slotsPerBlock
	MaxSlots     = 64 * slotsPerBlock
)

// Port is a dataplane.Port on an interface. Open makes it.
type Port struct {
	// Immutable after Open.
	queues   []queue
	counters *dataplane.Counters

	mu      sync.Mutex // Guards what follows, and the descriptors and rings against Fault.
	closed  bool
	starved []int // By queue: looks at which all that came was dropped from an empty ring.
}

var _ dataplane.Port = (*Port)(nil)

// refuseAll is the filter that a socket has until it is ready (man 7 socket,
// SO_ATTACH_FILTER: a return of 0 drops the frame).
var refuseAll = []bpf.Instruction{bpf.RetConstant{Val: 0}}

// Open opens a port on an interface, which may be down. The interface must
// have an Ethernet header, and the process CAP_NET_RAW in its namespace. It
// needs Linux 4.20. On failure nothing is left open.
func Open(c Config) (*Port, error) {
	p, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("packet port on %s: %w", c.Interface, err)
	}
	return p, nil
}

func open(c Config) (_ *Port, err error) {
	workers := c.Workers
	if workers == 0 {
		workers = 1
	}
	if workers < 1 || workers > dataplane.MaxWorkers {
		return nil, fmt.Errorf("%d workers: want 1 to %d", workers, dataplane.MaxWorkers)
	}
	slots := c.Slots
	if slots == 0 {
		slots = DefaultSlots
	}
	if slots < 1 || slots > MaxSlots {
		return nil, fmt.Errorf("%d slots: want 1 to %d", slots, MaxSlots)
	}
	ifi, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return nil, fmt.Errorf("find the interface in this network namespace: %w", err)
	}
	p := &Port{queues: make([]queue, workers), starved: make([]int, workers)}
	p.counters = dataplane.NewCounters(p.asker() + 1)
	for i := range p.queues {
		p.queues[i].fd = -1
	}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	for i := range p.queues {
		if err := p.queues[i].open(ifi, slots, c.Promiscuous && i == 0); err != nil {
			return nil, err
		}
	}
	if workers > 1 {
		if err := joinFanout(p.queues); err != nil {
			return nil, fmt.Errorf("share the frames among %d workers: %w", workers, err)
		}
		if err := awaitDelivery(); err != nil {
			return nil, fmt.Errorf("share the frames among %d workers: %w", workers, err)
		}
	}
	for i := range p.queues {
		if err := unix.SetsockoptInt(p.queues[i].fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
			return nil, fmt.Errorf("setsockopt SO_DETACH_FILTER: %w", err)
		}
	}
	return p, nil
}

// open opens a queue's socket, which refuses all frames as yet, and its ring.
func (q *queue) open(ifi *net.Interface, slots int, promiscuous bool) error {
	q.out.init()
	filter, err := bpf.Assemble(refuseAll)
	if err != nil {
		return fmt.Errorf("assemble a filter: %w", err)
	}
	conn, err := mdpacket.Listen(ifi, mdpacket.Raw, unix.ETH_P_ALL, &mdpacket.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("open an AF_PACKET socket: %w", err)
	}
	// The library's descriptor is the netpoller's; ours is a duplicate that
	// the netpoller doesn't know once the first is closed. The membership is
	// the socket's, which lives on.
	defer func() { _ = conn.Close() }() // It has only lent its descriptor.
	if promiscuous {
		if err := conn.SetPromiscuous(true); err != nil {
			return fmt.Errorf("make the interface promiscuous: %w", err)
		}
	}
	if q.fd, err = duplicate(conn); err != nil {
		return err
	}
	if err := checkEthernet(q.fd); err != nil {
		return err
	}
	if err := setOptions(q.fd); err != nil {
		return err
	}
	if q.ring, err = mapRing(q.fd, (slots+slotsPerBlock-1)/slotsPerBlock); err != nil {
		return err
	}
	q.slots = slotsOf(q.ring)
	q.scratch = make([]byte, scratchLen)
	return nil
}

// duplicate returns a descriptor of the library's socket that is the caller's.
func duplicate(conn *mdpacket.Conn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(s uintptr) {
		fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	if dupErr != nil {
		return -1, fmt.Errorf("duplicate the socket's descriptor: %w", dupErr)
	}
	return fd, nil
}

// FD implements dataplane.Port: the socket, which epoll reports readable when
// a slot of its ring is full.
func (p *Port) FD(worker int) int { return p.queues[worker].fd }

// Counters implements dataplane.Port.
func (p *Port) Counters() *dataplane.Counters { return p.counters }

// Close unmaps the rings and closes the sockets; the interface leaves
// promiscuous mode if nobody else wants it. A second Close does nothing.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for i := range p.queues {
		q := &p.queues[i]
		if q.ring != nil {
			if err := unix.Munmap(q.ring); err != nil {
				errs = append(errs, fmt.Errorf("munmap: %w", err))
			}
			q.ring, q.slots = nil, nil
		}
		if q.fd >= 0 {
			if err := unix.Close(q.fd); err != nil {
				errs = append(errs, fmt.Errorf("close: %w", err))
			}
			q.fd = -1
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close a packet port: %w", err)
	}
	return nil
}
