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
			if err := a.remakeUplink(was.spec, spec); err != nil {
				return about(object, err)
			}
			a.changed(eventUplinkChanged, object)
		}
	}
	return nil
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
