package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
)

// Apply creates what c asks for and isn't there, changes what differs, and
// leaves the rest alone. If a step fails, or what there is then can't be saved,
// what was done before is undone. It ends early, and undoes, when ctx is done.
// While the daemon stops nothing is undone: the next start removes what was
// made and not saved.
func (d *Daemon) Apply(ctx context.Context, c *config.Config) (api.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	return d.apply(ctx, c, failWhole, d.save)
}

// undo collects what takes back what was done, and does it in reverse.
type undo []func() error

func (u undo) run(err error) error {
	for _, back := range slices.Backward(u) {
		err = errors.Join(err, back())
	}
	return err
}

// applying is an apply under way.
type applying struct {
	d     *Daemon
	on    onFailure
	done  api.Applied
	undo  undo
	notes []note // Told when it is done: what is undone hasn't happened.
}

// note is an event to come.
type note struct{ kind, object string }

// apply is Apply for who holds change. save makes what was done last.
func (d *Daemon) apply(ctx context.Context, c *config.Config, on onFailure, save func() error) (api.Applied, error) {
	a := &applying{d: d, on: on, done: api.Applied{Created: []string{}, Changed: []string{}, Unchanged: []string{}}}
	if err := d.validateWith(*c); err != nil {
		return a.done, err
	}
	if on == failWhole {
		if err := d.probe(ctx, c.Ports); err != nil {
			return a.done, err
		}
	}
	err := a.networks(c.Networks)
	if err == nil {
		err = a.ports(ctx, c.Ports)
	}
	if err == nil {
		err = a.statics(c.FDB)
	}
	if err == nil {
		d.settle()
		err = a.nat(c)
	}
	if err == nil {
		err = a.peers(c.Peers)
	}
	if err == nil {
		err = a.mesh(c.Mesh)
	}
	if err == nil {
		err = endedEarly(ctx)
	}
	if err == nil && len(a.done.Created)+len(a.done.Changed) > 0 {
		err = save()
	}
	switch {
	case err == nil:
	case d.life.Err() != nil:
		return api.Applied{}, err
	default:
		err = a.undo.run(err)
		d.settle()
		return api.Applied{}, err
	}
	for _, n := range a.notes {
		d.note(n.kind, n.object, "applied")
	}
	return a.done, nil
}

// endedEarly is why an apply doesn't go on, nil if it does.
func endedEarly(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("ended early: %w", context.Cause(ctx))
}

func (a *applying) networks(specs []config.Network) error {
	d := a.d
	for _, spec := range specs {
		object := "network " + spec.Name
		was := d.networks[spec.Name]
		if was == nil {
			spec := d.chooseVNI(spec)
			if err := d.makeNetwork(spec); err != nil {
				return about(object, err)
			}
			a.undo = append(a.undo, func() error { return d.dropNetwork(spec.Name) })
			a.created(eventNetworkAdded, object)
			continue
		}
		if spec.VNI == 0 {
			spec.VNI = was.spec.VNI
		}
		old := was.spec
		if sameSpec(old.WithDefaults(), spec.WithDefaults()) {
			a.done.Unchanged = append(a.done.Unchanged, object)
			continue
		}
		if err := d.changeNetwork(spec); err != nil {
			return about(object, err)
		}
		a.undo = append(a.undo, func() error { return d.changeNetwork(old) })
		a.changed(eventNetworkChanged, object)
	}
	return nil
}

func (a *applying) ports(ctx context.Context, specs []config.Port) error {
	d := a.d
	asked := make(map[string]map[netip.Addr]bool) // Addresses by network.
	for _, spec := range specs {
		if asked[spec.Network] == nil {
			asked[spec.Network] = make(map[netip.Addr]bool)
		}
		markUsed(asked[spec.Network], spec.IPs)
	}
	for _, spec := range specs {
		if err := endedEarly(ctx); err != nil {
			return err
		}
		object := "port " + spec.Name
		was := d.ports[spec.Name]
		var kept []string
		if was != nil {
			kept = was.spec.IPs
		}
		if err := d.chooseIPs(&spec, kept, asked[spec.Network]); err != nil {
			return about(object, err)
		}
		switch {
		case was == nil:
			if err := d.makePort(ctx, spec, a.on); err != nil {
				return about(object, err)
			}
			a.undo = append(a.undo, func() error { return d.dropPort(d.ports[spec.Name]) })
			a.created(eventPortAdded, object)
		case samePort(was.spec, spec):
			a.done.Unchanged = append(a.done.Unchanged, object)
		default:
			if err := a.remakePort(ctx, was, spec); err != nil {
				return about(object, err)
			}
			a.changed(eventPortChanged, object)
		}
	}
	return nil
}

// remakePort makes a port what spec says: in place if it can, else by putting
// another in its place; on failure the one before comes back.
func (a *applying) remakePort(ctx context.Context, was *port, spec config.Port) error {
	d, old := a.d, was.spec
	if was.dev != nil && was.dev.check() == nil && sameLink(old, spec) {
		if err := d.setPort(ctx, was, spec); err != nil {
			return err
		}
		a.undo = append(a.undo, func() error { return d.setPort(d.life, was, old) })
		return nil
	}
	statics := maps.Clone(d.statics.byPort[old.Name])
	entries := func() error {
		var errs []error
		for k, s := range statics {
			errs = append(errs, d.setStatic(k, s))
		}
		return errors.Join(errs...)
	}
	back := func() error {
		var err error
		if p := d.ports[old.Name]; p != nil {
			err = d.dropPort(p)
		}
		err = errors.Join(err, d.makePort(d.life, old, keepFailed)) // ctx may be what ended it.
		return errors.Join(err, entries())
	}
	if err := d.dropPort(was); err != nil {
		return errors.Join(hostFailure(err), back())
	}
	if err := d.makePort(ctx, spec, a.on); err != nil {
		return errors.Join(err, back())
	}
	a.undo = append(a.undo, back)
	if spec.Network != old.Network {
		return nil // Its entries were the other network's.
	}
	return entries()
}

func (a *applying) statics(specs []config.Static) error {
	d := a.d
	for _, s := range specs {
		object := "fdb " + s.MAC
		k, err := stationOf(s)
		if err != nil {
			return about(object, err)
		}
		was, had := d.statics.all[k]
		if had && was.Port == s.Port {
			a.done.Unchanged = append(a.done.Unchanged, object)
			continue
		}
		if err := d.setStatic(k, s); err != nil {
			return about(object, err)
		}
		if had {
			a.undo = append(a.undo, func() error { return d.setStatic(k, was) })
			a.done.Changed = append(a.done.Changed, object)
		} else {
			a.undo = append(a.undo, func() error { return d.removeStatic(k) })
			a.done.Created = append(a.done.Created, object)
		}
	}
	return nil
}

func (a *applying) created(kind, object string) {
	a.done.Created = append(a.done.Created, object)
	a.notes = append(a.notes, note{kind, object})
}

func (a *applying) changed(kind, object string) {
	a.done.Changed = append(a.done.Changed, object)
	a.notes = append(a.notes, note{kind, object})
}

// samePort tells whether two specs ask for the same port.
func samePort(a, b config.Port) bool {
	a, b = a.WithDefaults(), b.WithDefaults()
	a.MAC, b.MAC = strings.ToLower(a.MAC), strings.ToLower(b.MAC)
	return sameSpec(a, b)
}

// sameSpec compares specs; an empty list is none.
func sameSpec[T any](a, b T) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		f, g := x.Field(i), y.Field(i)
		if f.Kind() == reflect.Slice && f.Len() == 0 && g.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(f.Interface(), g.Interface()) {
			return false
		}
	}
	return true
}

// validateWith holds what there would be after adding c against the rules for
// specs together. The caller holds change.
func (d *Daemon) validateWith(c config.Config) error {
	all := d.export()
	vnis := make(map[string]uint32, len(d.networks))
	for name, n := range d.networks {
		vnis[name] = n.spec.VNI
	}
	all.Networks = merged(all.Networks, c.Networks, func(n config.Network) string { return n.Name })
	for i := range all.Networks {
		if n := &all.Networks[i]; n.VNI == 0 {
			n.VNI = vnis[n.Name]
		}
	}
	all.Ports = merged(all.Ports, c.Ports, func(p config.Port) string { return p.Name })
	all.FDB = merged(all.FDB, c.FDB, func(s config.Static) station {
		k, err := stationOf(s)
		if err != nil {
			k.network += "\x00" + s.MAC // Validate refuses it by itself.
		}
		return k
	})
	all.Uplinks = merged(all.Uplinks, c.Uplinks, func(u config.Uplink) string { return u.Name })
	all.NAT = merged(all.NAT, c.NAT, config.NAT.ID)
	if c.NATSettings != (config.NATSettings{}) {
		all.NATSettings = c.NATSettings
	}
	all.Peers = merged(all.Peers, c.Peers, func(p config.Peer) string { return p.Name })
	if !c.Mesh.IsZero() {
		all.Mesh = c.Mesh
	}
	for i := range all.Ports {
		if p := &all.Ports[i]; p.MAC == "" && p.Kind != config.KindPacket {
			p.MAC = attach.StableMAC(d.opts.Node, p.Name).String()
		}
	}
	var bad config.Errors
	if err := all.Validate(); errors.As(err, &bad) {
		why := make([]string, len(bad))
		for i, e := range bad {
			why[i] = e.Why
		}
		return fail(http.StatusConflict, "%s", strings.Join(why, "; "))
	} else if err != nil {
		return err
	}
	return nil
}

// merged returns the specs of before with those of next in the place of their
// namesakes, or behind.
func merged[T any, K comparable](before, next []T, key func(T) K) []T {
	at := make(map[K]int, len(before))
	for i, v := range before {
		at[key(v)] = i
	}
	for _, v := range next {
		if i, ok := at[key(v)]; ok {
			before[i] = v
			continue
		}
		before = append(before, v)
	}
	return before
}

// Export returns what was asked for.
func (d *Daemon) Export() *config.Config {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.export()
}

// export is Export for who holds change or mu.
func (d *Daemon) export() *config.Config {
	c := &config.Config{FDB: d.statics.list(), NATSettings: d.settings, Mesh: d.meshSpec}
	for _, p := range d.peers {
		c.Peers = append(c.Peers, p)
	}
	slices.SortFunc(c.Peers, func(a, b config.Peer) int { return strings.Compare(a.Name, b.Name) })
	for _, u := range d.uplinks {
		c.Uplinks = append(c.Uplinks, u.spec)
	}
	for _, r := range d.nats {
		c.NAT = append(c.NAT, r.spec)
	}
	slices.SortFunc(c.Uplinks, func(a, b config.Uplink) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.NAT, func(a, b config.NAT) int { return strings.Compare(natOrder(a), natOrder(b)) })
	for _, n := range d.networks {
		c.Networks = append(c.Networks, n.spec)
	}
	for _, p := range d.ports {
		c.Ports = append(c.Ports, p.spec)
	}
	slices.SortFunc(c.Networks, func(a, b config.Network) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Ports, func(a, b config.Port) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// save writes what was asked for to the state directory.
func (d *Daemon) save() error { return d.state.save(d.export()) }

// saveWithout saves as if a port were removed already.
func (d *Daemon) saveWithout(p *port) error {
	c := d.export()
	c.Ports = slices.DeleteFunc(c.Ports, func(o config.Port) bool { return o.Name == p.spec.Name })
	gone := d.natOf(p.spec.Name)
	c.NAT = slices.DeleteFunc(c.NAT, func(o config.NAT) bool {
		return slices.ContainsFunc(gone, func(r *natRule) bool { return r.id == o.ID() })
	})
	c.FDB = slices.DeleteFunc(c.FDB, func(s config.Static) bool { return s.Port == p.spec.Name })
	return d.state.save(c)
}
