package daemon

import (
	"errors"

	"heddle/ctl/config"
)

// natOrder is what masquerades and publications are sorted by.
func natOrder(n config.NAT) string {
	return n.Type + " " + n.Network + " " + n.Uplink + " " + n.Listen
}

// nat does what a config asks for of uplinks, and of NAT on them.
func (a *applying) nat(c *config.Config) error {
	if err := a.uplinks(c.Uplinks); err != nil {
		return err
	}
	if err := a.rules(c.NAT); err != nil {
		return err
	}
	return a.settings(c.NATSettings)
}

func (a *applying) uplinks(specs []config.Uplink) error {
	d := a.d
	for _, spec := range specs {
		object := "uplink " + spec.Name
		was := d.uplinks[spec.Name]
		switch {
		case was == nil:
			if err := d.makeUplink(spec, a.on); err != nil {
				return about(object, err)
			}
			a.undo = append(a.undo, func() error { return d.dropUplink(d.uplinks[spec.Name]) })
			a.created(eventUplinkAdded, object)
		case sameSpec(was.want(), spec.WithDefaults()):
			a.done.Unchanged = append(a.done.Unchanged, object)
		default:
			if err := a.changeUplink(was, spec); err != nil {
				return about(object, err)
			}
			a.changed(eventUplinkChanged, object)
		}
	}
	return nil
}

// changeUplink makes an uplink what a spec says, and its connections go on if it
// is on the same interface in the same way.
func (a *applying) changeUplink(u *uplink, spec config.Uplink) error {
	d, old := a.d, u.spec
	is, want := u.want(), spec.WithDefaults()
	if u.live == nil || is.Interface != want.Interface || is.Mode != want.Mode {
		return a.remakeUplink(old, spec)
	}
	err := d.setUplink(u, spec)
	switch {
	case err == nil:
		a.undo = append(a.undo, func() error { return d.setUplink(u, old) })
		return nil
	case a.on == failWhole:
		return uplinkFailure(err)
	}
	return a.remakeUplink(old, spec)
}

// setUplink makes an uplink what a spec says, whose interface and mode are as
// before. A failure leaves it as it was.
func (d *Daemon) setUplink(u *uplink, spec config.Uplink) error {
	old := u.spec
	set := func(s config.Uplink) {
		d.mu.Lock()
		u.spec = s
		d.mu.Unlock()
	}
	set(spec)
	c := d.uplinkConfig(u, &u.state, nil)
	if c.Ports != u.live.Config().Ports && u.shared() && u.dev != nil {
		if err := u.dev.spares(d.claimOf(u, &c)); err != nil {
			set(old)
			return err
		}
	}
	err := d.configureUplink(u)
	if err != nil {
		set(old)
		err = errors.Join(err, d.configureUplink(u))
	}
	return err
}

// remakeUplink puts an uplink in another's place; on failure the other comes
// back. Its connections end.
func (a *applying) remakeUplink(old, spec config.Uplink) error {
	d := a.d
	back := func() error {
		var err error
		if u := d.uplinks[old.Name]; u != nil {
			err = d.dropUplink(u)
		}
		err = errors.Join(err, d.makeUplink(old, keepFailed))
		d.settleNAT()
		return err
	}
	err := d.dropUplink(d.uplinks[old.Name])
	if err == nil {
		err = d.makeUplink(spec, a.on)
	}
	if err != nil {
		return errors.Join(err, back())
	}
	d.settleNAT()
	a.undo = append(a.undo, back)
	return nil
}

func (a *applying) rules(specs []config.NAT) error {
	d := a.d
	defer func() {
		d.settleClaims()
		d.settleStack(false)
	}()
	for _, spec := range specs {
		id := spec.ID()
		object := "nat " + id
		was := d.nats[id]
		if was != nil && was.spec == spec.WithDefaults() {
			a.done.Unchanged = append(a.done.Unchanged, object)
			continue
		}
		back := func() error {
			var err error
			if r := d.nats[id]; r != nil {
				err = d.dropNAT(r)
			}
			if was != nil {
				err = errors.Join(err, d.makeNAT(was.spec, keepFailed))
			}
			return err
		}
		if was != nil {
			if err := d.dropNAT(was); err != nil {
				return about(object, errors.Join(err, back()))
			}
		}
		if err := d.makeNAT(spec, a.on); err != nil {
			return about(object, errors.Join(err, back()))
		}
		a.undo = append(a.undo, back)
		if was != nil {
			a.changed(eventNATChanged, object)
		} else {
			a.created(eventNATAdded, object)
		}
	}
	return nil
}

func (a *applying) settings(s config.NATSettings) error {
	const object = "nat settings"
	d, was := a.d, a.d.settings
	switch s {
	case config.NATSettings{}:
		return nil
	case was:
		a.done.Unchanged = append(a.done.Unchanged, object)
		return nil
	}
	if err := d.setLimits(s); err != nil {
		return about(object, err)
	}
	a.undo = append(a.undo, func() error { return d.setLimits(was) })
	a.done.Changed = append(a.done.Changed, object)
	return nil
}
