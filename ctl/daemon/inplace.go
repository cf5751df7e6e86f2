package daemon

import (
	"context"
	"errors"

	"heddle/ctl/config"
)

// probe asks the host whether it would refuse one of the ports that are to be
// made or remade, before an interface that is in use is touched. One that a port
// has now is free when that changes.
func (d *Daemon) probe(ctx context.Context, specs []config.Port) error {
	held := make(map[config.Interface]bool, len(d.ports))
	for _, p := range d.ports {
		held[p.spec.Location()] = true
	}
	for _, spec := range specs {
		was := d.ports[spec.Name]
		if was != nil && was.dev != nil && sameLink(was.spec, spec) || held[spec.Location()] {
			continue
		}
		spec = spec.WithDefaults()
		if err := d.host.probe(ctx, &spec); err != nil {
			return about("port "+spec.Name, hostFailure(err))
		}
	}
	return nil
}

// sameLink tells whether two specs ask for the same port but for what can be
// set on an interface while it is in use.
func sameLink(a, b config.Port) bool {
	a.IPs, b.IPs = nil, nil
	a.DefaultRoute = b.DefaultRoute
	return samePort(a, b)
}

// setPort makes a live port what spec says where only that differs which
// sameLink leaves out. On failure it is as it was. The caller holds change.
func (d *Daemon) setPort(ctx context.Context, p *port, spec config.Port) error {
	was := p.spec
	set := func(s config.Port) {
		d.mu.Lock()
		defer d.mu.Unlock()
		p.spec = s
		d.wirings.Add(1)
	}
	set(spec)
	err := d.adjust(ctx, p)
	if err != nil {
		set(was)
	}
	return err
}

// adjust has the device of a port follow its spec and its network's. The caller
// holds change.
func (d *Daemon) adjust(ctx context.Context, p *port) error {
	o, err := d.order(p)
	if err == nil {
		err = p.dev.configure(ctx, o)
	}
	if err != nil {
		return hostFailure(err)
	}
	d.guardAddresses(p)
	d.mu.Lock()
	p.facts = p.dev.facts()
	d.mu.Unlock()
	if !p.attached {
		return nil
	}
	n := d.networks[p.spec.Network].live
	return errors.Join(n.SetMTU(p.id, p.facts.mtu), n.SetRole(p.id, d.role(p)))
}
