package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
)

// port is a live port. Daemon.mu guards its fields; who holds Daemon.change
// may read them without.
type port struct {
	id   dataplane.PortID
	spec config.Port // As asked for, with automatic addresses decided.

	dev      device   // Nil while it can't be opened.
	facts    facts    // Of dev, or of the last one.
	attached bool     // The engine and the network have it.
	local    wire.MAC // The interface's own address while it is shared and attached; else 0.

	down  error     // Why it isn't attached; nil if it is.
	since time.Time // Of the last change between up and down.
	wait  time.Duration
	retry time.Time // When to try again to open it; valid only without dev.

	carried dataplane.Totals // Of devices before dev.
}

func byName(a, b *port) int { return strings.Compare(a.spec.Name, b.spec.Name) }

// AddPort makes a port, whole or not at all.
func (d *Daemon) AddPort(ctx context.Context, spec config.Port) error {
	if spec.Container != "" {
		if err := d.reachFor(ctx, spec); err != nil {
			return err
		}
	}
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.checkPort(&spec); err != nil {
		return err
	}
	if err := d.makePort(ctx, spec, failWhole); err != nil {
		return err
	}
	if err := d.save(); err != nil {
		return errors.Join(err, d.dropPort(d.ports[spec.Name]))
	}
	d.settle()
	d.note(eventPortAdded, "port "+spec.Name, "added to network "+spec.Network)
	return nil
}

// reachFor asks for the container of a port to be, if it can be, while others
// make changes: an engine that hangs is only its client's matter.
func (d *Daemon) reachFor(ctx context.Context, spec config.Port) error {
	err := func() error {
		d.change.Lock()
		defer d.change.Unlock()
		spec := spec
		return d.checkPort(&spec)
	}()
	if err != nil {
		return err
	}
	if err := d.host.reach(ctx, &spec); err != nil {
		return hostFailure(err)
	}
	return nil
}

// checkPort refuses a spec that is wrong, alone or beside what there is, and
// decides its automatic addresses.
func (d *Daemon) checkPort(spec *config.Port) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if d.ports[spec.Name] != nil {
		return fail(http.StatusConflict, "it exists").withHint("change it with swctl apply, or remove it first")
	}
	n := d.networks[spec.Network]
	if n == nil {
		return noNetwork(spec.Network)
	}
	if err := spec.ValidateOn(&n.spec); err != nil {
		return err
	}
	if err := d.chooseIPs(spec, nil, nil); err != nil {
		return err
	}
	return d.validateWith(config.Config{Ports: []config.Port{*spec}})
}

// onFailure says what becomes of a port whose device can't be opened.
type onFailure int

const (
	failWhole  onFailure = iota // The port isn't made.
	keepFailed                  // The port is made, down, and tried again.
)

// makePort makes a port that has been checked. The caller holds change.
func (d *Daemon) makePort(ctx context.Context, spec config.Port, on onFailure) error {
	p := &port{spec: spec, since: time.Now(), facts: facts{ifName: spec.WithDefaults().IfName, mac: spec.MAC}}
	if spec.Kind == config.KindPacket {
		p.facts.ifName = spec.Interface
	}
	var err error
	if p.id, err = d.freeID(); err != nil {
		return err
	}
	late := on == keepFailed && d.starting != nil && (spec.Container != "" || time.Since(d.starting.begun) > startTime)
	if err = errStarting; !late {
		err = d.openDevice(ctx, p)
	}
	if err == nil {
		if err = d.join(p); err == nil {
			return nil
		}
		err = errors.Join(err, p.dev.remove())
	}
	if on == failWhole {
		return hostFailure(err)
	}
	d.mu.Lock()
	d.ports[spec.Name], d.ids[p.id] = p, p
	p.dev, p.down = nil, err
	if !late {
		p.retry = time.Now().Add(p.nextWait())
	}
	d.wakeRetry()
	d.mu.Unlock()
	d.noteDown(p)
	return nil
}

// startTime is how long New opens devices: who waits for swd to be ready, as a
// container engine does, must not wait for thousands of them.
const startTime = 5 * time.Second

// errStarting is why a port is down that New left to retry.
var errStarting = errors.New("not opened yet: swd has just started")

// join attaches the device of a new port, and makes it one of the ports. The
// caller holds change.
func (d *Daemon) join(p *port) error {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	if err := d.wire(p); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports[p.spec.Name], d.ids[p.id] = p, p
	return nil
}

// order decides what a port's device is made from.
func (d *Daemon) order(p *port) (order, error) {
	n := d.networks[p.spec.Network].want()
	o := order{spec: p.spec.WithDefaults(), mtu: n.MTU, workers: d.engine.Workers()}
	if mac, err := config.ParseMAC(o.spec.MAC); err == nil {
		o.mac = net.HardwareAddr(mac[:])
	} else {
		o.mac = attach.StableMAC(d.opts.Node, p.spec.Name)
	}
	for _, s := range o.spec.IPs {
		ip, err := config.ParseIP(s)
		if err != nil {
			return o, fmt.Errorf("address %s: %w", s, err)
		}
		o.ips = append(o.ips, ip)
	}
	if o.spec.DefaultRoute {
		for _, g := range n.Gateways {
			if reaches(o.ips, g) {
				o.routes = append(o.routes, g)
			}
		}
	}
	return o, nil
}

// reaches tells whether one of the interface's addresses is on the gateway's
// subnet.
func reaches(ips []netip.Prefix, gateway netip.Addr) bool {
	for _, ip := range ips {
		if ip.Masked().Contains(gateway) {
			return true
		}
	}
	return false
}

// openDevice asks the host for the port's device.
func (d *Daemon) openDevice(ctx context.Context, p *port) error {
	o, err := d.order(p)
	if err != nil {
		return err
	}
	dev, err := d.host.open(ctx, o)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p.dev, p.facts = dev, dev.facts()
	return nil
}

// role returns what a port is on its network: the one that has a gateway's
// address is the gateway. The caller holds change.
func (d *Daemon) role(p *port) vswitch.Role {
	for _, s := range p.spec.IPs {
		ip, err := config.ParseIP(s)
		if err == nil && slices.Contains(d.networks[p.spec.Network].spec.Gateways, ip.Addr()) {
			return vswitch.Gateway
		}
	}
	return vswitch.Ordinary
}

// attachDevice is wire for who doesn't hold wiring.
func (d *Daemon) attachDevice(p *port) error {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	return d.wire(p)
}

// wire gives the device to the network and the engine, and the port's static
// entries to the network; on failure to none of them. The caller holds change
// and wiring.
func (d *Daemon) wire(p *port) error {
	d.guardAddresses(p)
	n := d.networks[p.spec.Network].live
	outer := d.mirrored(p)
	if err := n.Attach(p.id, outer, vswitch.PortConfig{MTU: p.facts.mtu, Role: d.role(p)}); err != nil {
		return err
	}
	err := d.engine.Attach(p.id, outer, n)
	for k := range d.statics.byPort[p.spec.Name] {
		if err == nil {
			err = n.AddStatic(k.mac, p.id)
		}
	}
	if err != nil {
		d.unwire(p)
		return err
	}
	d.setLocal(p)
	d.wirings.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.attached, p.down = true, nil
	return nil
}

// detach takes the device from the engine and the network, which forgets what
// it learnt there. Afterwards no worker is in it.
func (d *Daemon) detach(p *port) {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	d.unwire(p)
}

// unwire is detach for who holds wiring.
func (d *Daemon) unwire(p *port) {
	d.clearLocal(p)
	_ = d.networks[p.spec.Network].live.Detach(p.id)
	d.engine.Detach(p.id)
	d.wirings.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.attached = false
}

// RemovePort removes a port and what was made for it on the host.
func (d *Daemon) RemovePort(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	p := d.ports[name]
	if p == nil {
		return noPort(name)
	}
	if err := d.saveWithout(p); err != nil {
		return err
	}
	var errs []error
	for _, r := range d.natOf(name) {
		errs = append(errs, d.dropNAT(r))
		d.note(eventNATRemoved, "nat "+r.id, "port "+name+" is removed")
	}
	err := errors.Join(d.dropPort(p), errors.Join(errs...))
	d.settle()
	d.note(eventPortRemoved, "port "+name, "removed from network "+p.spec.Network)
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "the port is removed, but on the host something is left of it: %w", err)
	}
	return nil
}

func noPort(name string) *failure {
	return fail(http.StatusNotFound, "there is no port %s", printable(name)).withHint("swctl port ls lists them")
}

// errRemoving is why a port is down that is about to be gone.
var errRemoving = errors.New("it is being removed")

// dropPort ends a port. The error says what is left on the host of it; the
// port is gone in any case.
func (d *Daemon) dropPort(p *port) error {
	d.mu.Lock()
	p.down = errRemoving
	d.mu.Unlock()
	if p.attached {
		d.detach(p)
	}
	d.leaveNAT(p)
	var err error
	if p.dev != nil {
		err = d.carry(p).remove()
	} else {
		ctx, cancel := context.WithTimeout(d.life, usableTimeout)
		defer cancel()
		if d.starting != nil {
			cancel() // No engine is asked: what is left is swept when the container is seen.
		}
		var o order
		if o, err = d.order(p); err == nil {
			err = d.host.discard(ctx, o)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	addTotals(&d.retired, &p.carried)
	delete(d.ports, p.spec.Name)
	d.ids[p.id] = nil
	d.statics.removePort(p.spec.Name)
	return err
}

// carry takes its device from a port, which keeps the device's counts: whoever
// reads them finds them once, at the device or at the port. The caller holds
// change, and gives the device back.
func (d *Daemon) carry(p *port) device {
	dev := p.dev
	dev.sample()
	t := deviceTotals(dev)
	d.mu.Lock()
	defer d.mu.Unlock()
	addTotals(&p.carried, &t)
	p.dev = nil
	return dev
}

// totals returns the port's counts over all its devices. The caller holds mu.
func (p *port) totals() dataplane.Totals {
	t := p.carried
	if p.dev != nil {
		now := deviceTotals(p.dev)
		addTotals(&t, &now)
	}
	return t
}

// deviceTotals returns the counts of a device, with what the kernel dropped.
func deviceTotals(dev device) dataplane.Totals {
	t := dev.port().Counters().Totals()
	t.Drops[dataplane.RxKernel] += dev.dropped()
	return t
}

// sample asks the kernel for the drops that only it knows, of one port or, for
// an empty name, of all, so that totals has them. The caller holds no lock: the
// kernel may take its time.
func (d *Daemon) sample(name string) {
	var devices []device
	d.mu.RLock()
	for _, p := range d.ports {
		if p.dev != nil && (name == "" || p.spec.Name == name) {
			devices = append(devices, p.dev)
		}
	}
	d.mu.RUnlock()
	for _, dev := range devices {
		dev.sample()
	}
}

func addTotals(sum, t *dataplane.Totals) {
	sum.RxFrames += t.RxFrames
	sum.RxBytes += t.RxBytes
	sum.TxFrames += t.TxFrames
	sum.TxBytes += t.TxBytes
	for i := range t.Drops {
		sum.Drops[i] += t.Drops[i]
	}
}

// hostFailure says in the API's terms why the host refused.
func hostFailure(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	f = fail(http.StatusUnprocessableEntity, "%w", err)
	switch {
	case errors.Is(err, attach.ErrLinkExists):
		return f.withHint("choose another name with --ifname")
	case errors.Is(err, attach.ErrNoEngine):
		return f.withHint("start Docker or podman, or name the namespace with --netns or --pid")
	case errors.Is(err, attach.ErrDefaultRoute):
		return f.withHint("leave --default-route out, or remove the other route")
	}
	return f
}
