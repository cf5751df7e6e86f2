package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/mem"
)

// fakeHost is a host in memory: interfaces are names in namespaces, devices
// are mem ports.
type fakeHost struct {
	poked chan struct{}

	mu         sync.Mutex
	namespaces map[string]bool        // That exist.
	links      map[string]*fakeDevice // Persistent interfaces by namespace/name.
	nics       map[string]attach.UplinkState
	watches    map[string]*fakeWatch
	uplinks    map[string]*fakeUplink
	stack      *fakeStack                                // Nil while it isn't open.
	held       map[uint16]bool                           // Ports that somebody listens on.
	opened     int                                       // Devices that are open now.
	failOpen   error                                     // What every open fails with.
	onReach    func(context.Context, *config.Port) error // What reach does; nil for nothing.
	onOpen     func()                                    // Called at each open; nil for nothing.
	failRemove error

	at        netip.Addr         // Its address on wire; tunnels need one.
	wire      *fakeWire          // What joins hosts; nil if it stands alone.
	portTaken bool               // Somebody else has the tunnels' port.
	paths     map[netip.Addr]int // Path MTUs that aren't 1500; 0 is no way.

	failConfigure error  // What configure of port b fails with.
	onRelease     func() // Called ahead of each release; nil for nothing.
	closed        bool
}

func newFakeHost(namespaces ...string) *fakeHost {
	h := &fakeHost{
		poked:      make(chan struct{}, 1),
		namespaces: map[string]bool{},
		links:      map[string]*fakeDevice{},
		nics:       map[string]attach.UplinkState{},
		watches:    map[string]*fakeWatch{},
		uplinks:    map[string]*fakeUplink{},
		held:       map[uint16]bool{},
	}
	for _, ns := range namespaces {
		h.namespaces[ns] = true
	}
	return h
}

func (d *fakeDevice) namespace() *attach.Namespace { return nil }

type fakeDevice struct {
	h     *fakeHost
	key   string
	ns    string
	o     order
	mem   *mem.Port
	down  error
	owner string
	lost  atomic.Uint64 // What sample finds.
	shown atomic.Uint64
	looks atomic.Uint64 // How often check was called, and calm.
	calls atomic.Uint64
}

func (d *fakeDevice) sample()         { d.shown.Store(d.lost.Load()) }
func (d *fakeDevice) dropped() uint64 { return d.shown.Load() }

func (h *fakeHost) changes() <-chan struct{} { return h.poked }

func (h *fakeHost) sweep(func(port, ifName string) bool) {}

func (h *fakeHost) changed() ([]string, bool) { return nil, true }

func (h *fakeHost) reach(ctx context.Context, p *config.Port) error {
	h.mu.Lock()
	ask := h.onReach
	h.mu.Unlock()
	if ask != nil {
		return ask(ctx, p)
	}
	return nil
}

func (h *fakeHost) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened > 0 {
		return fmt.Errorf("%d devices are still open", h.opened)
	}
	h.closed = true
	return nil
}

func (h *fakeHost) open(_ context.Context, o order) (device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onOpen != nil {
		h.onOpen()
	}
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	ns := o.spec.NetNS
	if ns != "" && !h.namespaces[ns] {
		return nil, fmt.Errorf("namespace %s: %w", ns, attach.ErrNoNamespace)
	}
	key := ns + "|" + o.spec.IfName + o.spec.Interface
	if old := h.links[key]; old != nil && old.owner != o.spec.Name {
		return nil, fmt.Errorf("interface %s: %w", key, attach.ErrLinkExists)
	}
	d := &fakeDevice{h: h, key: key, ns: ns, o: o, owner: o.spec.Name, mem: mem.New(mem.Config{Workers: o.workers})}
	h.links[key] = d
	h.opened++
	return d, nil
}

func (h *fakeHost) discard(_ context.Context, o order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := o.spec.NetNS + "|" + o.spec.IfName + o.spec.Interface
	if l := h.links[key]; l != nil && l.owner == o.spec.Name {
		delete(h.links, key)
	}
	return nil
}

// poke tells the daemon to look at its ports.
func (h *fakeHost) poke() {
	select {
	case h.poked <- struct{}{}:
	default:
	}
}

// breakLink has a device fail from now on.
func (h *fakeHost) breakLink(key string, why error) {
	h.mu.Lock()
	h.links[key].down = why
	h.mu.Unlock()
	h.poke()
}

func (h *fakeHost) device(key string) *fakeDevice {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.links[key]
}

func (h *fakeHost) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (d *fakeDevice) port() dataplane.Port { return d.mem }

func (d *fakeDevice) facts() facts {
	return facts{ifName: d.o.spec.IfName + d.o.spec.Interface, mac: d.o.mac.String(), mtu: d.o.mtu}
}

func (d *fakeDevice) calm() bool {
	d.calls.Add(1)
	return d.fault() == nil
}

func (d *fakeDevice) check() error {
	d.looks.Add(1)
	return d.fault()
}

func (d *fakeDevice) fault() error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if d.ns != "" && !d.h.namespaces[d.ns] {
		return goneError{fmt.Errorf("namespace %s: %w", d.ns, attach.ErrNoNamespace)}
	}
	return d.down
}

func (d *fakeDevice) configure(_ context.Context, o order) error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if d.h.failConfigure != nil && d.owner == "b" {
		return d.h.failConfigure
	}
	d.o = o
	return nil
}

func (h *fakeHost) probe(_ context.Context, p *config.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.NetNS != "" && !h.namespaces[p.NetNS] {
		return fmt.Errorf("namespace %s: %w", p.NetNS, attach.ErrNoNamespace)
	}
	return nil
}

func (d *fakeDevice) restore(context.Context) error { return nil }

func (d *fakeDevice) release() error {
	d.h.mu.Lock()
	ahead := d.h.onRelease
	d.h.mu.Unlock()
	if ahead != nil {
		ahead()
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.h.opened--
	return d.mem.Close()
}

func (d *fakeDevice) remove() error {
	err := d.release()
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	delete(d.h.links, d.key)
	return errors.Join(err, d.h.failRemove)
}
