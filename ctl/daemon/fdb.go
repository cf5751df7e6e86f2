package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
)

// macOf reads an address that a validated spec holds.
func macOf(s string) (wire.MAC, error) {
	b, err := config.ParseMAC(s)
	if err != nil {
		return 0, fail(http.StatusBadRequest, "%w", err)
	}
	return wire.MACAt(b[:]), nil
}

// sameStation tells whether two static entries are for one MAC of a network.
func sameStation(a, b config.Static) bool {
	x, err1 := macOf(a.MAC)
	y, err2 := macOf(b.MAC)
	return err1 == nil && err2 == nil && x == y && a.Network == b.Network
}

func withoutPort(statics []config.Static, port string) []config.Static {
	return slices.DeleteFunc(slices.Clone(statics), func(s config.Static) bool { return s.Port == port })
}

func addStatic(n *vswitch.Network, s config.Static, id dataplane.PortID) error {
	mac, err := macOf(s.MAC)
	if err != nil {
		return err
	}
	return n.AddStatic(mac, id)
}

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
	if i := slices.IndexFunc(d.statics, func(o config.Static) bool { return sameStation(o, s) }); i >= 0 {
		return api.Entry{}, fail(http.StatusConflict, "there is a static entry for port %s", d.statics[i].Port).
			withHint("remove it first: swctl fdb rm %s --network %s", s.MAC, s.Network)
	}
	if len(d.statics) >= config.MaxStatics {
		return api.Entry{}, fail(http.StatusConflict, "there are %d static entries: no more fit", len(d.statics))
	}
	old := d.statics
	if err := d.setStatics(append(slices.Clone(old), s)); err != nil {
		return api.Entry{}, errors.Join(fail(http.StatusConflict, "%w", err), d.setStatics(old))
	}
	if err := d.save(); err != nil {
		return api.Entry{}, errors.Join(err, d.setStatics(old))
	}
	mac, err := macOf(s.MAC)
	return api.Entry{MAC: mac.String(), Network: s.Network, Port: s.Port, Static: true}, err
}

// setStatics makes the static entries what next says. The caller holds change.
func (d *Daemon) setStatics(next []config.Static) error {
	var errs []error
	for _, s := range d.statics {
		if n := d.networks[s.Network]; n != nil && !slices.Contains(next, s) {
			errs = append(errs, removeEntry(n.live, s.MAC))
		}
	}
	for _, s := range next {
		p := d.ports[s.Port]
		if slices.Contains(d.statics, s) || p == nil || !p.attached {
			continue // Entries of a port that is down are made when it comes up.
		}
		errs = append(errs, addStatic(d.networks[s.Network].live, s, p.id))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statics = next
	return errors.Join(errs...)
}

// removeEntry forgets a MAC; that it isn't there is no error.
func removeEntry(n *vswitch.Network, s string) error {
	mac, err := macOf(s)
	if err == nil {
		err = n.Remove(mac)
	}
	if errors.Is(err, vswitch.ErrUnknown) {
		return nil
	}
	return err
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
	old := d.statics
	next := slices.DeleteFunc(slices.Clone(old), func(o config.Static) bool {
		return sameStation(o, config.Static{MAC: mac, Network: network})
	})
	if len(next) < len(old) {
		if err := d.setStatics(next); err != nil {
			return err
		}
		if err := d.save(); err != nil {
			return errors.Join(err, d.setStatics(old))
		}
		return nil
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
