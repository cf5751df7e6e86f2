package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane"
	vswitch "heddle/switch"
	"heddle/tunnel"
)

// remote is another host that networks are shared with: a static peer, a member
// of the mesh, or both. Daemon.mu guards its fields as it does a port's.
type remote struct {
	name   string
	at     netip.AddrPort
	static bool   // A static peer; else only a member.
	member string // The member's name; empty if it is none.

	live    *tunnel.Peer // Nil while there is no VTEP.
	tunnels map[string]*remoteTunnel
	mtu     int   // Of the path; 0 while it isn't known.
	failed  error // Why it has not all its tunnels; nil if it has.
	noRoute error // Why nothing gets there; nil if it does.
	told    string

	carried dataplane.Totals // Of tunnels that were removed.
}

// remoteTunnel is the way of one network to one remote.
type remoteTunnel struct {
	id      dataplane.PortID
	live    *tunnel.Tunnel
	network string
}

// trouble returns why it is down, nil if it is up.
func (r *remote) trouble() error { return cmp.Or(r.failed, r.noRoute) }

// shared returns the names of the networks that have a tunnel to it.
func (r *remote) shared() []string {
	names := slices.Sorted(maps.Keys(r.tunnels))
	if names == nil {
		return []string{}
	}
	return names
}

// totals returns its counts over all its tunnels. The caller holds mu.
func (r *remote) totals() dataplane.Totals {
	t := r.carried
	for _, o := range r.tunnels {
		now := o.live.Counters().Totals()
		addTotals(&t, &now)
	}
	return t
}

// wantedRemote is a remote as the specs and the mesh have it.
type wantedRemote struct {
	name   string
	at     netip.AddrPort
	static *config.Peer // Nil if it is none.
	member *member      // Nil if it is none.
}

// shares tells whether it has a network.
func (w *wantedRemote) shares(n *network) bool {
	return w.static != nil && w.static.Shares(n.spec.Name) || w.member != nil && w.member.has(n.spec.VNI)
}

// wantedRemotes returns who is to be reached, by address: a static peer that is
// a member as well goes by the peer's name; of members with one VTEP the first
// by name is meant, the others are told to be wrong by viewMember.
func (d *Daemon) wantedRemotes() map[netip.Addr]*wantedRemote {
	all := make(map[netip.Addr]*wantedRemote, len(d.peers)+len(d.members))
	for _, p := range d.peers {
		at := p.Endpoint()
		all[at.Addr()] = &wantedRemote{name: p.Name, at: at, static: &p}
	}
	for _, name := range slices.Sorted(maps.Keys(d.members)) {
		m := d.members[name]
		w := all[m.VTEP.Addr()]
		switch {
		case !m.VTEP.IsValid():
		case w == nil:
			if _, taken := d.peers[name]; taken { // By a peer at another address.
				name = "mesh/" + name
			}
			all[m.VTEP.Addr()] = &wantedRemote{name: name, at: m.VTEP, member: m}
		case w.member == nil:
			w.member = m
		}
	}
	return all
}

// settle makes gateways, NAT's rules and tunnels what the specs say. The caller
// holds change.
func (d *Daemon) settle() {
	d.settleNAT()
	d.settleTunnels()
	d.tellNetworks()
}

// settleTunnels makes the tunnels what the specs and the mesh say: one for each
// remote and each network that both have. What can't be made is noted, and
// tried again by followTunnels. The caller holds change.
func (d *Daemon) settleTunnels() {
	want := d.wantedRemotes()
	var first netip.Addr // The first peer by address decides the family.
	for a := range want {
		if !first.IsValid() || a.Less(first) {
			first = a
		}
	}
	if len(want) == 0 && d.mesh == nil || d.vtep != nil && !d.vtepFits(first) {
		d.closeVTEP()
	}
	var err error
	if d.vtep == nil && (len(want) > 0 || d.mesh != nil) {
		err = d.openVTEP(d.vtepAddress(first))
	}
	d.mu.Lock()
	d.vtepDown = err
	d.mu.Unlock()
	var gone []*remoteTunnel
	for a, r := range d.remotes {
		if w := want[a]; w == nil || w.at != r.at {
			gone = append(gone, d.unlinkAll(r)...)
		} else {
			gone = append(gone, d.unlinkUnshared(r, w)...)
		}
	}
	d.discardTunnels(gone)
	for a, r := range d.remotes {
		if w := want[a]; w == nil || w.at != r.at {
			d.dropRemote(a, r)
		}
	}
	d.settleLocal()
	fresh := make(map[*remoteTunnel]*remote)
	for _, a := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		d.settleRemote(want[a], fresh)
	}
	d.announceRemote(fresh)
}

// unlinkUnshared takes those tunnels of a remote off their networks that it no
// longer shares, and unlinkAll all; discardTunnels ends them. The caller holds
// change.
func (d *Daemon) unlinkUnshared(r *remote, w *wantedRemote) (gone []*remoteTunnel) {
	for name, t := range r.tunnels {
		if n := d.networks[name]; n == nil || n.spec.VNI != t.live.VNI() || !w.shares(n) {
			gone = append(gone, d.unlink(r, t))
		}
	}
	return gone
}

func (d *Daemon) unlinkAll(r *remote) (gone []*remoteTunnel) {
	for _, t := range r.tunnels {
		gone = append(gone, d.unlink(r, t))
	}
	return gone
}

func (d *Daemon) unlink(r *remote, t *remoteTunnel) *remoteTunnel {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	if n := d.networks[t.network]; n != nil {
		_ = n.live.Detach(t.id)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(r.tunnels, t.network)
	totals := t.live.Counters().Totals()
	addTotals(&r.carried, &totals)
	delete(d.tunnelOf, t.id)
	return t
}

// discardTunnels ends tunnels that are on no network any more. No worker is in
// them afterwards, and their numbers are free.
func (d *Daemon) discardTunnels(gone []*remoteTunnel) {
	if len(gone) == 0 {
		return
	}
	for _, t := range gone {
		if err := d.vtep.live.RemoveTunnel(t.live); err != nil {
			d.log.Error("the end of a tunnel", zap.Error(err))
		}
	}
	d.engine.Do(func(int) {}) // No worker is in them any more.
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range gone {
		d.inside[t.id] = false
	}
}

// dropTunnelsOf ends the tunnels of a network that is about to go. The caller
// holds change.
func (d *Daemon) dropTunnelsOf(network string) {
	var gone []*remoteTunnel
	for _, r := range d.remotes {
		if t := r.tunnels[network]; t != nil {
			gone = append(gone, d.unlink(r, t))
		}
	}
	d.discardTunnels(gone)
	if n := d.networks[network]; d.vtep != nil && n != nil {
		_ = d.vtep.live.SetLocal(n.spec.VNI, nil) // It has bounds for addresses only.
		delete(d.vtep.gates, n.spec.VNI)
	}
}

// dropRemote forgets a remote without tunnels.
func (d *Daemon) dropRemote(a netip.Addr, r *remote) {
	if r.live != nil {
		if err := d.vtep.live.RemovePeer(r.live); err != nil {
			d.log.Error("the end of a peer", zap.Error(err))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	addTotals(&d.retired, &r.carried)
	delete(d.remotes, a)
}

// settleRemote makes a remote what it is to be. The tunnels that it makes are
// added to fresh.
func (d *Daemon) settleRemote(w *wantedRemote, fresh map[*remoteTunnel]*remote) {
	r := d.remotes[w.at.Addr()]
	is := r != nil
	if !is {
		r = &remote{at: w.at, tunnels: make(map[string]*remoteTunnel)}
	}
	member := ""
	if w.member != nil {
		member = w.member.Name
	}
	if r.member != member { // What the other announces is to be placed on its tunnels.
		for _, t := range r.tunnels {
			fresh[t] = r
		}
	}
	d.mu.Lock()
	r.name, r.static, r.member = w.name, w.static != nil, member
	d.remotes[w.at.Addr()] = r
	d.mu.Unlock()
	err := d.vtepDown
	if err == nil && r.live == nil {
		err = d.linkPeer(r)
	}
	if err == nil {
		err = d.linkTunnels(r, w, fresh)
	}
	d.mu.Lock()
	r.failed = err
	d.mu.Unlock()
	if is { // One that fails from the start may not stay; followTunnels tells of it if it does.
		d.tellRemote(r)
	}
}

// linkPeer makes the peer of a remote at the VTEP.
func (d *Daemon) linkPeer(r *remote) error {
	local := d.vtep.live.Local()
	if at := local.Addr().Unmap(); at.Is4() != r.at.Addr().Is4() {
		return fail(http.StatusConflict, "the address is %s, and the tunnels' end on this host is %s (%s)",
			familyName(r.at.Addr()), familyName(at), local).withHint("all peers of a host are of one family; swd --vtep chooses it")
	}
	if d.isHere(r.at) {
		return fail(http.StatusConflict, "%s is where this host takes frames itself", r.at)
	}
	live, err := d.vtep.live.AddPeer(tunnel.PeerConfig{Name: r.name, Addr: r.at})
	if err != nil {
		return err
	}
	d.mu.Lock()
	r.live = live
	d.mu.Unlock()
	d.probePaths(r)
	return nil
}

func familyName(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// linkTunnels makes the tunnels that a remote lacks, and tells those that it has
// how long frames of their networks may be.
func (d *Daemon) linkTunnels(r *remote, w *wantedRemote, fresh map[*remoteTunnel]*remote) error {
	if r.live == nil {
		return nil
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.networks)) {
		n := d.networks[name]
		switch t := r.tunnels[name]; {
		case !w.shares(n):
		case t != nil:
			errs = append(errs, t.live.SetMTU(n.want().MTU))
		default:
			t, err := d.link(r, n)
			if err != nil {
				errs = append(errs, fmt.Errorf("network %s: %w", name, err))
				continue
			}
			fresh[t] = r
		}
	}
	return errors.Join(errs...)
}

// link makes the tunnel of a network to a remote.
func (d *Daemon) link(r *remote, n *network) (*remoteTunnel, error) {
	id, err := d.freeID()
	if err != nil {
		return nil, err
	}
	live, err := d.vtep.live.AddTunnel(r.live, tunnel.TunnelConfig{
		VNI: n.spec.VNI, Port: id, Network: n.live, MTU: n.want().MTU,
	})
	if err != nil {
		return nil, err
	}
	t := &remoteTunnel{id: id, live: live, network: n.spec.Name}
	d.wiring.Lock()
	defer d.wiring.Unlock()
	if err := n.live.Attach(id, d.mirroredTunnel(r.name, t), vswitch.PortConfig{Role: vswitch.Tunnel}); err != nil {
		return nil, errors.Join(err, d.vtep.live.RemoveTunnel(live))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.tunnels[n.spec.Name], d.inside[id], d.tunnelOf[id] = t, true, r
	return t, nil
}
