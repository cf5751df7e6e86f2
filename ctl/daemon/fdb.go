package daemon

import (
	"errors"
	"fmt"
	"net/http"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane"
	vswitch "heddle/switch"
)

// AddStatic makes a static entry.
func (d *Daemon) AddStatic(s config.Static) (api.Entry, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if err := s.Validate(); err != nil {
		return api.Entry{}, err
	}
	switch p := d.ports[s.Port]; {
	case d.networks[s.Network] == nil:
		return api.Entry{}, noNetwork(s.Network)
	case p == nil:
		return api.Entry{}, noPort(s.Port)
	case p.spec.Network != s.Network:
		return api.Entry{}, fail(http.StatusConflict, "port %s is on network %s", s.Port, p.spec.Network)
	}
	k, err := stationOf(s)
	if err != nil {
		return api.Entry{}, err
	}
	if n := d.networks[s.Network]; n.gateway != nil && n.gateway.config.MAC == k.mac {
		return api.Entry{}, fail(http.StatusConflict, "it is the MAC of the network's gateway")
	}
	if was, ok := d.statics.all[k]; ok {
		return api.Entry{}, fail(http.StatusConflict, "there is a static entry for port %s", was.Port).
			withHint("remove it first: swctl fdb rm %s --network %s", s.MAC, s.Network)
	}
	if len(d.statics.all) >= config.MaxStatics {
		return api.Entry{}, fail(http.StatusConflict, "there are %d static entries: no more fit", len(d.statics.all))
	}
	if err := d.setStatic(k, s); err != nil {
		return api.Entry{}, err
	}
	if err := d.save(); err != nil {
		return api.Entry{}, errors.Join(err, d.removeStatic(k))
	}
	return api.Entry{MAC: k.mac.String(), Network: s.Network, Port: s.Port, Static: true}, nil
}

// RemoveEntry forgets a MAC, static or learnt.
func (d *Daemon) RemoveEntry(network, mac string) error {
	d.change.Lock()
	defer d.change.Unlock()
	n := d.networks[network]
	if n == nil {
		return noNetwork(network)
	}
	addr, err := macOf(mac)
	if err != nil {
		return err
	}
	k := station{network, addr}
	if was, static := d.statics.all[k]; static {
		if err := d.removeStatic(k); err != nil {
			return err
		}
		if err := d.save(); err != nil {
			return errors.Join(err, d.setStatic(k, was))
		}
		return nil
	}
	if p := d.locals[k]; p != nil {
		return fail(http.StatusConflict, "it is the address of interface %s, and goes with port %s", p.facts.ifName, p.spec.Name)
	}
	if err := n.live.Remove(addr); err != nil {
		return fail(http.StatusNotFound, "network %s has no entry for %s", network, addr)
	}
	return nil
}

// Flush forgets what was learnt, on all networks or one, of all ports or one,
// and returns how many entries that were.
func (d *Daemon) Flush(network, port string) (int, error) {
	d.change.Lock()
	defer d.change.Unlock()
	var id dataplane.PortID
	if port != "" {
		p := d.ports[port]
		if p == nil {
			return 0, noPort(port)
		}
		if network != "" && network != p.spec.Network {
			return 0, fail(http.StatusConflict, "port %s is on network %s", port, p.spec.Network)
		}
		if !p.attached {
			return 0, nil
		}
		id, network = p.id, p.spec.Network
	}
	if network != "" && d.networks[network] == nil {
		return 0, noNetwork(network)
	}
	flushed := 0
	for name, n := range d.networks {
		if network != "" && name != network {
			continue
		}
		c, err := n.live.Flush(id)
		if err != nil {
			return flushed, fmt.Errorf("network %s: %w", name, err)
		}
		flushed += c
	}
	return flushed, nil
}

// eachEntry calls f for every entry of a network, or of all for an empty name,
// and holds no lock of the daemon meanwhile. It ends early if f fails.
func (d *Daemon) eachEntry(network string, f func(api.Entry) error) error {
	d.mu.RLock()
	networks := make(map[*vswitch.Network]string, len(d.networks))
	for name, n := range d.networks {
		if network == "" || network == name {
			networks[n.live] = name
		}
	}
	ports := make(map[dataplane.PortID]string, len(d.ports))
	for name, p := range d.ports {
		ports[p.id] = name
	}
	for id, r := range d.tunnelOf {
		ports[id] = r.name
	}
	d.mu.RUnlock()
	if network != "" && len(networks) == 0 {
		return noNetwork(network)
	}
	for e := range d.sw.Entries(d.now()) {
		name, wanted := networks[e.Network]
		port, known := ports[e.Port]
		if !wanted || !known { // Not known: it came after the listing began.
			continue
		}
		err := f(api.Entry{
			MAC: e.MAC.String(), Network: name, Port: port, Static: e.Static, AgeSeconds: e.Age.Seconds(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
