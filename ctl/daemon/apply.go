package daemon

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// Apply creates what c asks for and isn't there, changes what differs, and
// leaves the rest alone. If a step fails, what was done before is undone.
func (d *Daemon) Apply(c *config.Config) (api.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	done, err := d.apply(c, failWhole)
	if err != nil {
		return done, err
	}
	return done, d.save()
}

// undo collects what takes back what was done, and does it in reverse.
type undo []func() error

func (u undo) run(err error) error {
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i]())
	}
	return err
}

// applying is an apply under way.
type applying struct {
	d    *Daemon
	on   onFailure
	done api.Applied
	undo undo
}

// apply is Apply for who holds change, without saving.
func (d *Daemon) apply(c *config.Config, on onFailure) (api.Applied, error) {
	a := &applying{d: d, on: on, done: api.Applied{Created: []string{}, Changed: []string{}, Unchanged: []string{}}}
	if err := d.validateWith(*c); err != nil {
		return a.done, err
	}
	err := a.networks(c.Networks)
	if err == nil {
		err = a.ports(c.Ports)
	}
	if err == nil {
		err = a.statics(c.FDB)
	}
	if err != nil {
		return api.Applied{}, a.undo.run(err)
	}
	return a.done, nil
}

func (a *applying) networks(specs []config.Network) error {
	d := a.d
	for _, spec := range specs {
		object := "network " + spec.Name
		was := d.networks[spec.Name]
		if was == nil {
			spec, err := d.chooseVNI(spec)
			if err == nil {
				err = d.makeNetwork(spec)
			}
			if err != nil {
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

func (a *applying) ports(specs []config.Port) error {
	d := a.d
	ctx := context.Background()
	asked := make(map[string]map[netip.Addr]bool) // Addresses by network.
	for _, spec := range specs {
		if asked[spec.Network] == nil {
			asked[spec.Network] = make(map[netip.Addr]bool)
		}
		markUsed(asked[spec.Network], spec.IPs)
	}
	for _, spec := range specs {
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

// remakePort puts a port in another's place; on failure the other comes back.
func (a *applying) remakePort(ctx context.Context, was *port, spec config.Port) error {
	d, old := a.d, was.spec
	statics := slices.Clone(d.statics)
	back := func() error {
		var err error
		if p := d.ports[old.Name]; p != nil {
			err = d.dropPort(p)
		}
		err = errors.Join(err, d.makePort(ctx, old, keepFailed))
		return errors.Join(err, d.setStatics(statics))
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
	return d.setStatics(statics)
}

func (a *applying) statics(specs []config.Static) error {
	d := a.d
	for _, s := range specs {
		object := "fdb " + s.MAC
		old := slices.Clone(d.statics)
		i := slices.IndexFunc(old, func(o config.Static) bool { return sameStation(o, s) })
		switch {
		case i >= 0 && old[i].Port == s.Port:
			a.done.Unchanged = append(a.done.Unchanged, object)
			continue
		case i >= 0:
			next := slices.Clone(old)
			next[i] = s
			if err := d.setStatics(next); err != nil {
				return about(object, errors.Join(err, d.setStatics(old)))
			}
			a.done.Changed = append(a.done.Changed, object)
		default:
			if err := d.setStatics(append(slices.Clone(old), s)); err != nil {
				return about(object, errors.Join(err, d.setStatics(old)))
			}
			a.done.Created = append(a.done.Created, object)
		}
		a.undo = append(a.undo, func() error { return d.setStatics(old) })
	}
	return nil
}

func (a *applying) created(kind, object string) {
	a.done.Created = append(a.done.Created, object)
	a.d.note(kind, object, "applied")
}

func (a *applying) changed(kind, object string) {
	a.done.Changed = append(a.done.Changed, object)
	a.d.note(kind, object, "applied")
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
	for _, n := range c.Networks {
		if i := slices.IndexFunc(all.Networks, func(o config.Network) bool { return o.Name == n.Name }); i >= 0 {
			if n.VNI == 0 {
				n.VNI = all.Networks[i].VNI
			}
			all.Networks[i] = n
		} else {
			all.Networks = append(all.Networks, n)
		}
	}
	for _, p := range c.Ports {
		if i := slices.IndexFunc(all.Ports, func(o config.Port) bool { return o.Name == p.Name }); i >= 0 {
			all.Ports[i] = p
		} else {
			all.Ports = append(all.Ports, p)
		}
	}
	for _, s := range c.FDB {
		if i := slices.IndexFunc(all.FDB, func(o config.Static) bool { return sameStation(o, s) }); i >= 0 {
			all.FDB[i] = s
		} else {
			all.FDB = append(all.FDB, s)
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

// Export returns what was asked for.
func (d *Daemon) Export() *config.Config {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.export()
}

// export is Export for who holds change or mu.
func (d *Daemon) export() *config.Config {
	c := &config.Config{FDB: slices.Clone(d.statics)}
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
	c.FDB = withoutPort(c.FDB, p.spec.Name)
	return d.state.save(c)
}
