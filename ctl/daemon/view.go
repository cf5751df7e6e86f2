package daemon

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"heddle/ctl/api"
	"heddle/dataplane"
)

// Status returns the daemon at a glance.
func (d *Daemon) Status() api.Status {
	macs := d.sw.Stats()
	d.sample("")
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := api.Status{
		Version:       d.opts.Version,
		Node:          d.opts.Node,
		PID:           os.Getpid(),
		UptimeSeconds: time.Since(d.started).Seconds(),
		Workers:       d.engine.Workers(),
		Networks:      len(d.networks),
		Ports:         len(d.ports),
		MACs:          macs.MACs,
		MaxMACs:       macs.MaxMACs,
		MACsRefused:   macs.Evicted + macs.Refused,
	}
	for _, p := range d.ports {
		if !p.attached {
			s.PortsDown++
		}
	}
	t := d.sum()
	s.RxFrames, s.RxBytes, s.TxFrames, s.TxBytes = t.RxFrames, t.RxBytes, t.TxFrames, t.TxBytes
	for _, n := range t.Drops {
		s.Drops += n
	}
	for _, n := range d.networks {
		s.MACs -= n.hidden()
	}
	s.Uplinks = len(d.uplinks)
	for _, u := range d.uplinks {
		if u.trouble() != nil {
			s.UplinksDown++
		}
	}
	s.Peers, s.Mesh = len(d.peers), d.meshState()
	for _, r := range d.remotes {
		if r.static && r.trouble() != nil {
			s.PeersDown++
		}
	}
	s.MembersUp, s.Members = d.countMembers()
	conns := d.nat.Stats()
	s.Conns, s.MaxConns, s.ConnsRefused = conns.Conns, conns.MaxConns, conns.Refused
	return s
}

// sum adds up all ports and tunnels, also those that were removed. The caller holds mu.
func (d *Daemon) sum() dataplane.Totals {
	sum := d.retired
	for _, p := range d.ports {
		t := p.totals()
		addTotals(&sum, &t)
	}
	for _, u := range d.uplinks {
		t := u.totals()
		addDrops(&sum, &t)
	}
	if d.stack.dev != nil {
		t := d.stack.dev.port().Counters().Totals()
		addDrops(&sum, &t)
	}
	for _, n := range d.networks {
		if n.gateway != nil {
			t := n.gateway.live.Counters().Totals()
			addDrops(&sum, &t)
		}
	}
	for _, r := range d.remotes {
		t := r.totals()
		addTotals(&sum, &t)
	}
	t := d.vtepTotals()
	addDrops(&sum, &t)
	return sum
}

// Networks returns all networks, by name.
func (d *Daemon) Networks() []api.Network {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ports := make(map[string][]string, len(d.networks))
	for name, p := range d.ports {
		ports[p.spec.Network] = append(ports[p.spec.Network], name)
	}
	all := make([]api.Network, 0, len(d.networks))
	for name, n := range d.networks {
		all = append(all, n.view(ports[name]))
	}
	slices.SortFunc(all, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Network returns one network.
func (d *Daemon) Network(name string) (api.Network, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.networks[name]
	if n == nil {
		return api.Network{}, noNetwork(name)
	}
	var ports []string
	for port, p := range d.ports {
		if p.spec.Network == name {
			ports = append(ports, port)
		}
	}
	return n.view(ports), nil
}

func (n *network) view(ports []string) api.Network {
	spec, macs := n.want(), n.live.Stats()
	v := api.Network{
		Name:          spec.Name,
		VNI:           spec.VNI,
		Subnets:       []string{},
		Gateways:      []string{},
		MTU:           spec.MTU,
		AgeingSeconds: time.Duration(spec.Ageing).Seconds(),
		MaxMACs:       macs.MaxMACs,
		Isolated:      spec.Isolated,
		Ports:         append([]string{}, ports...),
		MACs:          macs.MACs - n.hidden(),
	}
	for _, s := range spec.Subnets {
		v.Subnets = append(v.Subnets, s.String())
	}
	for _, g := range spec.Gateways {
		v.Gateways = append(v.Gateways, g.String())
	}
	slices.Sort(v.Ports)
	return v
}

// hidden is how many entries of the FDB are swd's own and not listed.
func (n *network) hidden() int {
	if n.gateway == nil {
		return 0
	}
	return 1
}

// Ports returns all ports, by name.
func (d *Daemon) Ports() []api.Port {
	d.sample("")
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]api.Port, 0, len(d.ports))
	for _, p := range d.ports {
		all = append(all, d.viewPort(p))
	}
	slices.SortFunc(all, func(a, b api.Port) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Port returns one port.
func (d *Daemon) Port(name string) (api.Port, error) {
	d.sample(name)
	d.mu.RLock()
	defer d.mu.RUnlock()
	p := d.ports[name]
	if p == nil {
		return api.Port{}, noPort(name)
	}
	return d.viewPort(p), nil
}

func (d *Daemon) viewPort(p *port) api.Port {
	spec, t := p.spec.WithDefaults(), p.totals()
	v := api.Port{
		Name:      spec.Name,
		Kind:      spec.Kind,
		Network:   spec.Network,
		State:     api.StateUp,
		IfName:    p.facts.ifName,
		NetNS:     spec.NetNS,
		PID:       spec.PID,
		Container: spec.Container,
		MAC:       p.facts.mac,
		IPs:       append([]string{}, spec.IPs...),
		MTU:       p.facts.mtu,
		RxFrames:  t.RxFrames,
		RxBytes:   t.RxBytes,
		TxFrames:  t.TxFrames,
		TxBytes:   t.TxBytes,
		Drops:     make(map[string]uint64),
	}
	if !p.attached {
		v.State, v.Reason = api.StateDown, reason(p.down)
	}
	for i, n := range t.Drops {
		if n > 0 {
			v.Drops[dataplane.Drop(i).String()] = n
		}
	}
	return v
}

// Drops returns why frames went no further, at a port or a peer, or at all for
// an empty name: also at ports that were removed. The reasons are in the order in which
// a frame meets them; those that never happened are left out.
func (d *Daemon) Drops(port string) ([]api.DropCount, error) {
	d.sample(port)
	d.mu.RLock()
	defer d.mu.RUnlock()
	var t dataplane.Totals
	if port == "" {
		t = d.sum()
	} else if p := d.ports[port]; p != nil {
		t = p.totals()
	} else if r := d.remoteNamed(port); r != nil {
		t = r.totals()
	} else {
		return nil, noPort(port)
	}
	counts := []api.DropCount{}
	for i, n := range t.Drops {
		if n > 0 {
			counts = append(counts, api.DropCount{Reason: dataplane.Drop(i).String(), Count: n, Port: port})
		}
	}
	return counts, nil
}

// getDrops answers GET /v1/drops.
func (d *Daemon) getDrops(r *http.Request) (any, error) {
	q, err := query(r, "port")
	if err != nil {
		return nil, err
	}
	return orError(d.Drops(q["port"]))
}
