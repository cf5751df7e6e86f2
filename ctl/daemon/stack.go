package daemon

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/nat"
)

// stack is the way between containers and the host's own stack, which is there
// while a network is masqueraded and an uplink is shared: the host is at the
// addresses of the shared uplinks' interfaces. Daemon.change guards its fields,
// and Daemon.mu those that are read without.
type stack struct {
	id        dataplane.PortID
	dev       stackDevice // Nil while there is none; mu too.
	live      *nat.Stack
	addresses []netip.Addr // What live has.
	set       attach.Stack // What dev has; the zero Stack if that isn't known.
	retry     time.Time    // When to try again.
	told      string       // The last failure that was logged.
}

// settleStack makes the way to the host what the uplinks and rules say. again
// tells that the host may have changed what was set. The caller holds change.
func (d *Daemon) settleStack(again bool) {
	addresses, want := d.wantedStack()
	s := &d.stack
	if s.dev != nil && (len(want.Routes) == 0 || errors.Is(s.dev.check(), errGone)) {
		d.closeStack()
	}
	if len(want.Routes) == 0 || time.Now().Before(s.retry) {
		return
	}
	if again {
		s.set = attach.Stack{}
	}
	err := d.openStack(addresses, want)
	if err == nil {
		s.told, s.retry = "", time.Time{}
		return
	}
	s.retry = time.Now().Add(longestRetry)
	if s.told != err.Error() {
		s.told = err.Error()
		d.log.Warn("containers and the host don't reach each other", zap.Error(err))
	}
}

// wantedStack returns the addresses that the host is to be reached at, and the
// routes by which it is to reach the networks; none if it isn't to.
func (d *Daemon) wantedStack() (addresses []netip.Addr, want attach.Stack) {
	names := make([]string, 0, len(d.uplinks))
	for name, u := range d.uplinks {
		if u.live != nil && u.shared() && u.state.Present {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, a := range d.uplinks[name].state.Addresses {
			if ip := a.Addr(); !ip.IsLinkLocalUnicast() && !ip.IsLoopback() && !slices.Contains(addresses, ip) && len(addresses) < nat.MaxAddresses {
				addresses = append(addresses, ip)
			}
		}
	}
	for _, r := range d.nats {
		n := d.networks[r.spec.Network]
		if r.spec.Type != config.TypeMasquerade || len(r.core) == 0 || n == nil || n.gateway == nil {
			continue
		}
		for _, a := range n.gateway.config.Addresses {
			if source := d.stackSource(addresses, r.spec.Uplink, a.Addr().Is4()); source.IsValid() {
				want.Routes = append(want.Routes, attach.StackRoute{Subnet: a.Masked(), Source: source, MTU: n.gateway.config.MTU})
				want.MTU = max(want.MTU, n.gateway.config.MTU)
			}
		}
	}
	// Networks may have the same subnet: one route leads to it, fit for both.
	slices.SortFunc(want.Routes, func(a, b attach.StackRoute) int {
		return cmp.Or(a.Subnet.Addr().Compare(b.Subnet.Addr()), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()), cmp.Compare(a.MTU, b.MTU))
	})
	want.Routes = slices.CompactFunc(want.Routes, func(a, b attach.StackRoute) bool { return a.Subnet == b.Subnet })
	return addresses, want
}

// stackSource returns which of the host's addresses a network sees it under: one
// of the uplink that masquerades it, so that other uplinks change nothing, else
// the first; the zero Addr if there is none of the family.
func (d *Daemon) stackSource(addresses []netip.Addr, uplink string, v4 bool) (source netip.Addr) {
	for _, h := range addresses {
		if h.Is4() != v4 {
			continue
		}
		if u := d.uplinks[uplink]; u != nil && u.shared() && slices.ContainsFunc(u.state.Addresses, func(p netip.Prefix) bool { return p.Addr() == h }) {
			return h
		}
		if !source.IsValid() {
			source = h
		}
	}
	return source
}

// openStack makes what is missing.
func (d *Daemon) openStack(addresses []netip.Addr, want attach.Stack) (err error) {
	s := &d.stack
	if s.dev == nil {
		if err := d.attachStack(); err != nil {
			return err
		}
	}
	if !slices.Equal(addresses, s.addresses) {
		if err := s.live.SetAddresses(addresses); err != nil {
			return err
		}
		s.addresses = addresses
	}
	if want.MTU == s.set.MTU && slices.Equal(want.Routes, s.set.Routes) {
		return nil
	}
	s.set = attach.Stack{}
	if err := s.dev.configure(want); err != nil {
		return err
	}
	s.set = want
	return nil
}

// attachStack opens the device and gives it to NAT and to the engine.
func (d *Daemon) attachStack() (err error) {
	id, err := d.freeID()
	if err != nil {
		return err
	}
	dev, err := d.host.openStack(d.engine.Workers())
	if err != nil {
		return err
	}
	d.wiring.Lock()
	defer d.wiring.Unlock()
	outer := d.guarded(dev.port())
	live, err := d.nat.AddStack(nat.StackConfig{Name: dev.name(), MAC: dev.mac(), MTU: nat.MaxMTU, Port: outer})
	if err == nil {
		if err = d.engine.Attach(id, outer, live); err != nil {
			err = errors.Join(err, d.nat.RemoveStack(live))
			d.engine.Do(func(int) {}) // No worker is in it any more.
		}
	}
	if err != nil {
		return errors.Join(err, dev.release())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside[id] = true
	d.stack = stack{id: id, dev: dev, live: live, told: d.stack.told}
	return nil
}

// reguardStack puts the tunnels' guard around the device, or takes it off. The
// caller holds change and wiring.
func (d *Daemon) reguardStack() error {
	s := &d.stack
	if s.dev == nil {
		return nil
	}
	outer := d.guarded(s.dev.port())
	s.live.Swap(outer)
	return d.engine.Swap(s.id, outer)
}

// closeStack ends the way to the host, if there is one.
func (d *Daemon) closeStack() {
	s := d.stack
	if s.dev == nil {
		return
	}
	d.engine.Detach(s.id)
	err := d.nat.RemoveStack(s.live)
	d.engine.Do(func(int) {}) // No worker is in the device any more.
	t := s.dev.port().Counters().Totals()
	if err = errors.Join(err, s.dev.release()); err != nil {
		d.log.Error("the end of the way to the host", zap.Error(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	addDrops(&d.retired, &t)
	d.inside[s.id] = false
	d.stack = stack{told: s.told}
}

// stackDevice is what the host lends for the way to its own stack. The daemon
// calls one method at a time.
type stackDevice interface {
	name() string
	mac() wire.MAC
	// port is the way in and out for frames. It is closed by release.
	port() dataplane.Port
	// check is as device's.
	check() error
	// configure makes the interface and its routes what the spec says.
	configure(s attach.Stack) error
	// release gives all back.
	release() error
}
