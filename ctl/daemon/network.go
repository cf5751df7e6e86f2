package daemon

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/config"
	vswitch "heddle/switch"
)

// network is a live network.
type network struct {
	spec config.Network // With its VNI decided.
	live *vswitch.Network

	gateway   *gateway // Nil without.
	noGateway error    // Why without.
	told      string   // What was logged of that.
}

// want returns the spec with its defaults.
func (n *network) want() config.Network { return n.spec.WithDefaults() }

// settings is what the switch is told of a network.
func settings(spec config.Network) vswitch.NetworkConfig {
	s := spec.WithDefaults()
	return vswitch.NetworkConfig{
		VNI: s.VNI, Ageing: time.Duration(s.Ageing), MaxMACs: s.MaxMACs, Isolated: s.Isolated,
	}
}

// AddNetwork makes a network.
func (d *Daemon) AddNetwork(spec config.Network) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := spec.Validate(); err != nil {
		return err
	}
	if d.networks[spec.Name] != nil {
		return fail(http.StatusConflict, "it exists").withHint("change it with swctl apply, or remove it first")
	}
	spec = d.chooseVNI(spec)
	if err := d.validateWith(config.Config{Networks: []config.Network{spec}}); err != nil {
		return err
	}
	if err := d.makeNetwork(spec); err != nil {
		return err
	}
	if err := d.save(); err != nil {
		return errors.Join(err, d.dropNetwork(spec.Name))
	}
	d.settle()
	d.note(eventNetworkAdded, "network "+spec.Name, "added")
	return nil
}

// RemoveNetwork removes a network without ports.
func (d *Daemon) RemoveNetwork(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	n := d.networks[name]
	if n == nil {
		return noNetwork(name)
	}
	if ports := d.portsOf(name); len(ports) > 0 {
		return fail(http.StatusConflict, "%d ports are on it, as %s", len(ports), ports[0].spec.Name).
			withHint("remove them first: swctl port rm %s", ports[0].spec.Name)
	}
	if peers := d.peersWith(name); len(peers) > 0 {
		return fail(http.StatusConflict, "%d peers are said to share it, as %s", len(peers), peers[0]).
			withHint("remove them first: swctl peer rm %s", peers[0])
	}
	if err := d.unused(func(r *natRule) bool { return d.leadsTo(r, name) }); err != nil {
		return err
	}
	if err := d.dropNetwork(name); err != nil {
		return err
	}
	err := d.save()
	if err != nil {
		err = errors.Join(err, d.makeNetwork(n.spec))
	}
	d.settle()
	if err != nil {
		return err
	}
	d.note(eventNetworkRemoved, "network "+name, "removed")
	return nil
}

func noNetwork(name string) *failure {
	return fail(http.StatusNotFound, "there is no network %s", printable(name)).withHint("swctl network ls lists them")
}

// makeNetwork makes the live object. The caller holds change.
func (d *Daemon) makeNetwork(spec config.Network) error {
	live, err := d.sw.AddNetwork(settings(spec))
	if err != nil {
		return fail(http.StatusConflict, "%w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.networks[spec.Name] = &network{spec: spec, live: live}
	return nil
}

// dropNetwork ends the live object, on which no ports are.
func (d *Daemon) dropNetwork(name string) error {
	d.dropTunnelsOf(name)
	d.closeGateway(d.networks[name])
	if err := d.sw.RemoveNetwork(d.networks[name].live); err != nil {
		return fail(http.StatusConflict, "%w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.networks, name)
	return nil
}

// changeNetwork makes a network what spec says. The interfaces of its ports
// follow; with another VNI they are taken down and come back.
func (d *Daemon) changeNetwork(spec config.Network) error {
	n := d.networks[spec.Name]
	old, next := n.want(), spec.WithDefaults()
	ports := d.portsOf(spec.Name)
	if old.VNI == next.VNI {
		before := n.spec
		if err := n.live.Configure(settings(spec)); err != nil {
			return fail(http.StatusConflict, "%w", err)
		}
		d.setNetworkSpec(n, spec)
		if old.MTU == next.MTU && slices.Equal(old.Gateways, next.Gateways) {
			return nil
		}
		err := d.adjustAll(ports)
		if err != nil {
			d.setNetworkSpec(n, before)
			err = errors.Join(err, n.live.Configure(settings(before)), d.adjustAll(ports))
		}
		return err
	}
	for _, p := range ports {
		d.takeDown(p, errors.New("its network is being changed"))
		d.releaseDevice(p)
	}
	err := d.dropNetwork(spec.Name)
	if err == nil {
		if err = d.makeNetwork(spec); err != nil {
			err = errors.Join(err, d.makeNetwork(n.spec))
		}
	}
	for _, p := range ports {
		d.bringUp(p)
	}
	return err
}

func (d *Daemon) setNetworkSpec(n *network, spec config.Network) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.spec = spec
}

// adjustAll has the devices of ports follow their network's spec; one that
// fails already is opened anew. It stops at the first that refuses.
func (d *Daemon) adjustAll(ports []*port) error {
	for _, p := range ports {
		if p.dev == nil {
			continue // It is opened as the network is then.
		}
		if err := p.dev.check(); err != nil {
			d.takeDown(p, err)
			d.releaseDevice(p)
			continue
		}
		if err := d.adjust(d.life, p); err != nil {
			return about("port "+p.spec.Name, err)
		}
	}
	return nil
}

// chooseVNI gives a network that has none the one that its name stands for, or
// the next that is free.
func (d *Daemon) chooseVNI(spec config.Network) config.Network {
	if spec.VNI != 0 {
		return spec
	}
	used := make(map[uint32]bool, len(d.networks))
	for _, n := range d.networks {
		used[n.spec.VNI] = true
	}
	// There are fewer networks than VNIs.
	for spec.VNI = config.VNIOf(spec.Name); used[spec.VNI]; {
		spec.VNI = spec.VNI%config.MaxVNI + 1
	}
	return spec
}

// portsOf returns a network's ports, by name.
func (d *Daemon) portsOf(network string) []*port {
	var ports []*port
	for _, p := range d.ports {
		if p.spec.Network == network {
			ports = append(ports, p)
		}
	}
	slices.SortFunc(ports, byName)
	return ports
}

// note tells of a change: as an event, and in the log.
func (d *Daemon) note(kind, object, message string) {
	d.events.add(kind, object, message)
	d.log.Info(kind, zap.String("object", object), zap.String("message", message))
}
