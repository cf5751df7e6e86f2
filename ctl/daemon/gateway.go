package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/nat"
	vswitch "heddle/switch"
)

// gateway is swd as the gateway of a network.
type gateway struct {
	id     dataplane.PortID
	live   *nat.Gateway
	config nat.GatewayConfig // What live was made from.
}

// freeID returns a number that no port, gateway or uplink has.
func (d *Daemon) freeID() (dataplane.PortID, error) {
	for id := dataplane.PortID(1); id < dataplane.MaxPorts; id++ {
		if d.ids[id] == nil && !d.inside[id] {
			return id, nil
		}
	}
	return 0, fail(409, "there are %d ports, gateways, uplinks and tunnels: no more fit", dataplane.MaxPorts-1)
}

// gatewayMAC is the MAC of a network's gateway, the same over restarts.
func (d *Daemon) gatewayMAC(network string) wire.MAC {
	return wire.MACAt(attach.StableMAC(d.opts.Node, "gateway "+network))
}

// gatewayConfig is what a network's gateway is to be; without addresses there
// is none. An address that a port has is that port's: somebody else is the
// gateway.
func (d *Daemon) gatewayConfig(n *network) (c nat.GatewayConfig, why error) {
	spec := n.want()
	c = nat.GatewayConfig{Name: spec.Name, MAC: d.gatewayMAC(spec.Name), MTU: spec.MTU, Network: n.live}
	why = fmt.Errorf("network %s has no gateway", spec.Name)
	for _, a := range spec.Gateways {
		if p := d.portWith(spec.Name, a); p != nil {
			why = fmt.Errorf("port %s has the address of the gateway of network %s", p.spec.Name, spec.Name)
			continue
		}
		for _, s := range spec.Subnets {
			if s.Contains(a) {
				c.Addresses = append(c.Addresses, netip.PrefixFrom(a, s.Bits()))
				break
			}
		}
	}
	if len(c.Addresses) > 0 {
		why = nil
	}
	return c, why
}

// portWith returns the port of a network that has an address, or nil.
func (d *Daemon) portWith(network string, a netip.Addr) *port {
	for _, p := range d.ports {
		if p.spec.Network != network {
			continue
		}
		for _, s := range p.spec.IPs {
			if ip, err := config.ParseIP(s); err == nil && ip.Addr() == a {
				return p
			}
		}
	}
	return nil
}

// settleGateways makes the gateways what the networks and ports say. The caller
// holds change.
func (d *Daemon) settleGateways() {
	type wanted struct {
		n *network
		c nat.GatewayConfig
	}
	var missing []wanted
	for _, n := range d.networks {
		c, why := d.gatewayConfig(n)
		if g := n.gateway; g != nil {
			c.Port = g.id
			if why == nil && sameGateway(c, g.config) {
				continue
			}
			d.closeGateway(n)
		}
		d.mu.Lock()
		n.noGateway = why
		d.mu.Unlock()
		if why == nil {
			missing = append(missing, wanted{n, c})
		}
	}
	slices.SortFunc(missing, func(a, b wanted) int { return int(a.n.spec.VNI) - int(b.n.spec.VNI) })
	for _, w := range missing {
		err := d.openGateway(w.n, w.c)
		if err == nil {
			continue
		}
		if w.n.told != err.Error() {
			w.n.told = err.Error()
			d.log.Warn("the network is without its gateway", zap.String("network", w.n.spec.Name), zap.Error(err))
		}
		d.mu.Lock()
		w.n.noGateway = err
		d.mu.Unlock()
	}
}

func sameGateway(a, b nat.GatewayConfig) bool {
	return a.MAC == b.MAC && a.MTU == b.MTU && a.Network == b.Network && slices.Equal(a.Addresses, b.Addresses)
}

// openGateway makes the gateway of a network. The caller holds change.
func (d *Daemon) openGateway(n *network, c nat.GatewayConfig) (err error) {
	if c.Port, err = d.freeID(); err != nil {
		return err
	}
	live, err := d.nat.AddGateway(c)
	if err != nil {
		return err
	}
	g := &gateway{id: c.Port, live: live, config: c}
	d.tellGates(n, c.Addresses) // It announces itself as soon as it is attached, to nobody but those here.
	err = n.live.Attach(g.id, live, vswitch.PortConfig{Role: vswitch.Gateway})
	if err == nil {
		if err = n.live.AddStatic(c.MAC, g.id); err != nil {
			_ = n.live.Detach(g.id)
		}
	}
	if err != nil {
		return errors.Join(err, d.nat.RemoveGateway(live))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n.gateway, n.told, d.inside[g.id] = g, "", true
	return nil
}

// closeGateway ends the gateway of a network, if it has one, and the
// connections by it. The caller holds change.
func (d *Daemon) closeGateway(n *network) {
	g := n.gateway
	if g == nil {
		return
	}
	d.removeCore(func(k coreRule) bool { return k.gateway == g.live })
	if err := errors.Join(n.live.Detach(g.id), d.nat.RemoveGateway(g.live)); err != nil {
		d.log.Error("the end of a gateway", zap.String("network", n.spec.Name), zap.Error(err))
	}
	d.engine.Do(func(int) {}) // No worker is in it any more.
	t := g.live.Counters().Totals()
	d.mu.Lock()
	defer d.mu.Unlock()
	addDrops(&d.retired, &t)
	n.gateway, d.inside[g.id] = nil, false
}

// leaveNAT ends the connections of a port that is about to go.
func (d *Daemon) leaveNAT(p *port) {
	n := d.networks[p.spec.Network]
	if n == nil || n.gateway == nil {
		return
	}
	for _, s := range p.spec.IPs {
		if ip, err := config.ParseIP(s); err == nil {
			d.nat.RemoveHost(n.gateway.live, ip.Addr())
		}
	}
}

// addDrops adds what went no further at a gateway or an uplink: what passed
// there has been counted at the ports.
func addDrops(sum, t *dataplane.Totals) {
	for i := range t.Drops {
		sum.Drops[i] += t.Drops[i]
	}
}
