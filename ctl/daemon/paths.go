package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"heddle/dataplane"
	"heddle/tunnel"
)

// pathEvery is how often the paths to the remotes are looked at, and a VTEP
// that couldn't be opened is tried again.
const pathEvery = 3 * time.Second

// followTunnels looks at the paths to the remotes until ctx is done.
func (d *Daemon) followTunnels(ctx context.Context) {
	t := time.NewTicker(pathEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.lookAtPaths()
		}
	}
}

// lookAtPaths brings path MTUs and the host's own addresses up to date, and
// tries again what failed.
func (d *Daemon) lookAtPaths() {
	d.change.Lock()
	defer d.change.Unlock()
	d.settleMesh()
	again := d.vtep == nil && (len(d.remotes) > 0 || d.mesh != nil)
	var linked []*remote
	for _, r := range d.remotes {
		again = again || r.failed != nil
		if r.live != nil {
			linked = append(linked, r)
		}
	}
	if d.vtep != nil {
		d.probePaths(linked...)
		d.setAddresses()
	}
	for _, r := range linked {
		d.tellRemote(r)
	}
	if again {
		d.settleTunnels()
	}
}

// probePaths asks the kernel how long a packet to each remote may be, and
// whether it knows a way. The caller holds change.
func (d *Daemon) probePaths(remotes ...*remote) {
	to := make([]netip.Addr, len(remotes))
	for i, r := range remotes {
		to[i] = r.at.Addr()
	}
	paths := d.vtep.under.paths(to)
	for i, r := range remotes {
		p := paths[i]
		if p.err == nil {
			p.mtu = min(max(p.mtu, tunnel.MinPathMTU), maxPathMTU)
			p.err = d.vtep.live.SetPathMTU(r.live, p.mtu)
		}
		if p.err != nil {
			p = path{err: fmt.Errorf("no way to %s: %w", r.at.Addr(), p.err)}
		}
		d.mu.Lock()
		r.mtu, r.noRoute = p.mtu, p.err
		d.mu.Unlock()
	}
}

// maxPathMTU is what an IP packet can be long, in bytes.
const maxPathMTU = 65535

// tellRemote tells of a remote that has gone down or come up: as an event, and
// in the log. A new one is not told of unless it is down.
func (d *Daemon) tellRemote(r *remote) {
	now := reason(r.trouble())
	if now == r.told {
		return
	}
	d.mu.Lock()
	r.told = now
	d.mu.Unlock()
	object := "peer " + r.name
	if now == "" {
		d.events.add(eventPeerUp, object, "up again")
		d.log.Info("peer up", zap.String("peer", r.name), zap.Stringer("address", r.at))
		return
	}
	d.events.add(eventPeerDown, object, now)
	d.log.Warn("peer down", zap.String("peer", r.name), zap.Stringer("address", r.at), zap.String("reason", now))
}

// setAddresses tells the guard of the ports which addresses the host has. The
// caller holds change.
func (d *Daemon) setAddresses() {
	all, err := d.host.addresses()
	if err == nil {
		all = slices.DeleteFunc(all, func(a netip.Addr) bool { return a.IsUnspecified() })
		if len(all) > tunnel.MaxLocal {
			all, err = all[:tunnel.MaxLocal], errors.New("the host has more addresses than are guarded")
		}
		err = errors.Join(err, d.vtep.live.SetAddrs(all))
	}
	if now := reason(err); now != d.addressTrouble {
		d.addressTrouble = now
		if err != nil {
			d.log.Warn("the host's addresses can't all be guarded against datagrams from containers", zap.Error(err))
		}
	}
}

// guardAddresses has the guard know the addresses that the host has by a port
// before a frame goes there. The caller holds change.
func (d *Daemon) guardAddresses(p *port) {
	if d.vtep != nil && leadsOut(p) {
		d.setAddresses()
	}
}

// guarded returns the port behind the tunnels' guard while there are tunnels. A
// port by which frames leave to the host, or to the wire, must not carry to a
// tunnel's end what only looks like a tunnel's. The caller holds wiring.
func (d *Daemon) guarded(p dataplane.Port) dataplane.Port {
	if d.ends == nil {
		return p
	}
	return d.ends.Guard(p)
}

// leadsOut tells whether frames that leave by the port reach the host's stack or
// the wire, not only a container.
func leadsOut(p *port) bool { return located(&p.spec) == "" }

// reguard puts the guard around the ports that need it, or takes it off, as
// there is a VTEP or not. No worker is in an old one afterwards. The caller
// holds change.
func (d *Daemon) reguard() {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	d.ends = nil
	if d.vtep != nil {
		d.ends = d.vtep.live
	}
	for _, p := range d.ports {
		if !p.attached || !leadsOut(p) {
			continue
		}
		if err := d.mirror(p, d.networks[p.spec.Network].live); err != nil {
			d.log.Error("the tunnels' guard", zap.String("port", p.spec.Name), zap.Error(err))
		}
	}
	for _, u := range d.uplinks {
		if !u.attached {
			continue
		}
		outer := d.mirroredUplink(u)
		u.live.Swap(outer)
		if err := d.engine.Swap(u.id, outer); err != nil {
			d.log.Error("the tunnels' guard", zap.String("uplink", u.spec.Name), zap.Error(err))
		}
	}
	if err := d.reguardStack(); err != nil {
		d.log.Error("the tunnels' guard", zap.String("way", "to the host"), zap.Error(err))
	}
}
