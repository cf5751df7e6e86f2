package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Config is what a Port is opened from.
type Config struct {
	// Name is the device's, 1 to 15 bytes without '/', '%', ':' and space. The
	// device is in the network namespace of the calling thread.
	Name string
	// Queues is the number of workers, 1 to dataplane.MaxWorkers. 0 means 1.
	Queues int
	// Transient has a device that Open makes vanish with the process, however
	// that ends. One that is taken over stays as it is.
	Transient bool
	// GROMax is the gro_ipv4_max_size of a device that Open makes, in bytes:
	// packets to it are shorter. BigTCP is for an end of connections, 0 leaves the
	// kernel's 64 KB, for what routes or bridges on: the kernel cuts what is longer
	// than another interface takes. Kernels before Linux 6.3 have none.
	GROMax int
	// Rings, if not nil, carry small frames many at a time. They are for as
	// many workers as there are queues or more, and outlive the port.
	Rings *Rings
}

// Port is a dataplane.Port on a TAP device. Open makes it.
type Port struct {
	// Immutable after Open.
	name     string
	created  bool
	queues   []queue
	counters *dataplane.Counters
	rings    *Rings

	gro gro

	mu          sync.Mutex // Guards what follows, and the descriptors against Fault.
	closed      bool
	rtnl        *rtnl
	dropped     uint64 // As Dropped has it.
	lastDropped uint64 // The device's count when it was last read.
}

var _ dataplane.Port = (*Port)(nil)

// Why Open refuses a name.
var (
	// ErrTaken: an interface of that name exists and can't be taken over,
	// because it is no TAP with many queues or another user's.
	ErrTaken = errors.New("the name is taken")
	// ErrHeld: another process has the TAP open.
	ErrHeld = errors.New("another process has the TAP open")
)

// Open opens the TAP device of that name, made if it doesn't exist, taken over
// if a process left it behind. A new one is down and has no addresses and no
// queueing discipline, one that is taken over is as it was left. The process needs CAP_NET_ADMIN in the
// namespace.
//
// It returns ErrTaken or ErrHeld, wrapped with the particulars, for a name that
// isn't free. With Rings it waits up to 0.3 s before it says ErrHeld, once: the
// other process may just have been killed. On failure nothing stays open, and a
// device that Open made is gone again, unless another process has attached to it
// meanwhile.
func Open(c Config) (*Port, error) {
	p, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("TAP port %s: %w", c.Name, err)
	}
	return p, nil
}

func open(c Config) (*Port, error) {
	n := max(c.Queues, 1)
	if n > dataplane.MaxWorkers {
		return nil, fmt.Errorf("%d queues: want at most %d", n, dataplane.MaxWorkers)
	}
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	nl, err := openRTNL()
	if err != nil {
		return nil, err
	}
	found, err := findFree(nl, c.Name)
	for errors.Is(err, ErrHeld) && c.Rings.await() {
		if found, err = findFree(nl, c.Name); err == nil {
			c.Rings.rewarded()
		}
	}
	if err != nil {
		return nil, errors.Join(err, nl.close())
	}
	p := &Port{
		name: c.Name, queues: make([]queue, n), counters: dataplane.NewCounters(n), created: !found.exists,
		rtnl: nl, lastDropped: found.dropped, rings: c.Rings,
	}
	for i := range p.queues {
		p.queues[i].fd = -1
	}
	err = p.attach()
	if err == nil {
		err = p.checkAlone()
	}
	if err == nil && p.created {
		err = nl.noQueue(c.Name)
	}
	if err == nil && p.created && c.GROMax > 0 {
		err = nl.setGROMax(c.Name, c.GROMax)
	}
	if err == nil {
		err = p.rings.give(p.queues)
	}
	if err == nil && c.Transient && p.created {
		err = forget(p.queues[0].fd)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.Refresh()
	return p, nil
}

// findFree is find, with an error if the name can't be used.
func findFree(nl *rtnl, name string) (device, error) {
	d, err := find(nl, name)
	if err == nil {
		err = d.free()
	}
	return d, err
}

// checkName refuses what the kernel would, and a template for a name (%d).
func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/%: \t\n\v\f\r\x00") {
		return fmt.Errorf("not an interface name: want 1 to %d bytes without space, '/', ':' and '%%'", unix.IFNAMSIZ-1)
	}
	return nil
}

// attach attaches every queue to the device, which it makes if it is new.
func (p *Port) attach() (err error) {
	if p.created {
		maker, createErr := create(p.name)
		if createErr != nil {
			return createErr
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, forget(maker))
			}
			_ = unix.Close(maker) // What was to be done with it is done.
		}()
	}
	noUSO := false
	for i := range p.queues {
		q := &p.queues[i]
		if q.fd, err = attachQueue(p.name); err != nil {
			return err
		}
		if i == 0 {
			if noUSO, err = setOptions(q.fd); err != nil {
				return err
			}
		}
		q.init(noUSO)
	}
	return nil
}

// checkAlone returns ErrHeld if another process has attached a queue since the
// name was found free. The device then is the other's as much as ours.
func (p *Port) checkAlone() error {
	now, err := find(p.rtnl, p.name)
	if err != nil {
		return err
	}
	if n := now.queues + now.disabled; n != len(p.queues) {
		return fmt.Errorf("%w: it has %d queues, of which %d are ours", ErrHeld, n, len(p.queues))
	}
	return nil
}

// create makes a persistent device of the process's user, and returns a queue
// of it that is only good for forget. What the kernel may refuse is tried first
// on that descriptor: water loses its own on an error. A device that is not
// persistent yet goes with its last descriptor.
func create(name string) (fd int, err error) {
	fd, err = attachQueue(name)
	if err != nil {
		return -1, err
	}
	dev, err := water.New(water.Config{
		DeviceType: water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{
			Name:        name,
			Persist:     true,
			MultiQueue:  true,
			Permissions: &water.DevicePermissions{Owner: uint(os.Geteuid()), Group: uint(os.Getegid())},
		},
	})
	if err == nil {
		err = dev.Close()
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("make the device persistent: %w", err), forget(fd), unix.Close(fd))
	}
	return fd, nil
}

// forget has the device vanish with its last queue. fd is one of them.
func forget(fd int) error {
	err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0)
	if err == nil || errors.Is(err, unix.EBADFD) { // EBADFD: it has vanished.
		return nil
	}
	return fmt.Errorf("ioctl TUNSETPERSIST: %w", err)
}

// init gives a queue its memory.
func (q *queue) init(noUSO bool) {
	if q.noUSO = noUSO; noUSO {
		q.segment = make([]byte, dataplane.Headroom+dataplane.MaxFrame)
	}
}

// Name returns the device's name as it was opened.
func (p *Port) Name() string { return p.name }

// Created tells whether Open made the device, rather than to take over one
// that was there with what is set on it.
func (p *Port) Created() bool { return p.created }

// FD implements dataplane.Port: the worker's queue.
func (p *Port) FD(worker int) int { return p.queues[worker].fd }

// Counters implements dataplane.Port.
func (p *Port) Counters() *dataplane.Counters { return p.counters }

// Close closes the queues and leaves the device behind, without carrier, for
// the next Open. A second Close does nothing.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.close()
}

// Delete closes the queues and removes the device. That it is gone already is
// no error. After Close it can't do anything any more and returns net.ErrClosed.
func (p *Port) Delete() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("delete TAP %s: %w", p.name, net.ErrClosed)
	}
	err := forget(p.queues[0].fd)
	if err != nil {
		err = fmt.Errorf("delete TAP %s: %w", p.name, err)
	}
	return errors.Join(err, p.close())
}

func (p *Port) close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	errs := []error{p.rtnl.close(), p.rings.take(p.queues)}
	for i := range p.queues {
		if q := &p.queues[i]; q.fd >= 0 {
			errs = append(errs, unix.Close(q.fd))
			q.fd = -1
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close TAP %s: %w", p.name, err)
	}
	return nil
}

var _ [dataplane.Headroom - wire.VNetHdrLen]byte // The header fits the headroom.
