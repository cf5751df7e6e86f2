package daemon

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane"
)

// AddPeer makes a static peer, whole or not at all. That there is no route to
// it yet doesn't keep it from being made.
func (d *Daemon) AddPeer(spec config.Peer) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := spec.Validate(); err != nil {
		return err
	}
	if _, is := d.peers[spec.Name]; is {
		return fail(http.StatusConflict, "it exists").withHint("change it with swctl apply, or remove it first")
	}
	for _, n := range spec.Networks {
		if d.networks[n] == nil {
			return noNetwork(n)
		}
	}
	if err := d.validateWith(config.Config{Peers: []config.Peer{spec}}); err != nil {
		return err
	}
	if err := d.makePeer(spec, failWhole); err != nil {
		return err
	}
	if err := d.save(); err != nil {
		d.dropPeer(spec.Name)
		return err
	}
	d.note(eventPeerAdded, "peer "+spec.Name, "added at "+spec.Endpoint().String())
	return nil
}

// RemovePeer removes a static peer.
func (d *Daemon) RemovePeer(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	spec, is := d.peers[name]
	if !is {
		return noPeer(name)
	}
	c := d.export()
	c.Peers = slices.DeleteFunc(c.Peers, func(o config.Peer) bool { return o.Name == name })
	if err := d.state.save(c); err != nil {
		return err
	}
	d.dropPeer(name)
	d.note(eventPeerRemoved, "peer "+name, "removed from "+spec.Endpoint().String())
	return nil
}

func noPeer(name string) *failure {
	return fail(http.StatusNotFound, "there is no peer %s", printable(name)).withHint("swctl peer ls lists them")
}

// makePeer makes a peer that has been checked, or puts it in its namesake's
// place. With failWhole it fails, and leaves what there was, if its tunnels
// can't be made. The caller holds change.
func (d *Daemon) makePeer(spec config.Peer, on onFailure) error {
	was, had := d.peers[spec.Name]
	d.setPeer(spec)
	d.settleTunnels()
	r := d.remotes[spec.Endpoint().Addr()]
	if on != failWhole || r == nil || r.failed == nil {
		return nil
	}
	err := tunnelFailure(r.failed)
	if had {
		d.setPeer(was)
		d.settleTunnels()
	} else {
		d.dropPeer(spec.Name)
	}
	return err
}

func (d *Daemon) setPeer(spec config.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[spec.Name] = spec
}

// dropPeer ends a peer. The caller holds change.
func (d *Daemon) dropPeer(name string) {
	d.mu.Lock()
	delete(d.peers, name)
	d.mu.Unlock()
	d.settleTunnels()
}

// peersWith returns the static peers that name a network as theirs.
func (d *Daemon) peersWith(network string) (names []string) {
	for name, p := range d.peers {
		if slices.Contains(p.Networks, network) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Peers returns the static peers, by name.
func (d *Daemon) Peers() []api.Peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]api.Peer, 0, len(d.peers))
	for _, p := range d.peers {
		all = append(all, d.viewPeer(p))
	}
	slices.SortFunc(all, func(a, b api.Peer) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Peer returns one static peer.
func (d *Daemon) Peer(name string) (api.Peer, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	p, is := d.peers[name]
	if !is {
		return api.Peer{}, noPeer(name)
	}
	return d.viewPeer(p), nil
}

func (d *Daemon) viewPeer(spec config.Peer) api.Peer {
	v := api.Peer{
		Name: spec.Name, Address: spec.Endpoint().String(), State: api.StateDown,
		Networks: []string{}, Drops: make(map[string]uint64),
	}
	r := d.remotes[spec.Endpoint().Addr()]
	if r == nil {
		return v
	}
	v.MTU, v.Networks = r.mtu, r.shared()
	if why := r.trouble(); why != nil {
		v.Reason = reason(why)
	} else {
		v.State = api.StateUp
	}
	t := r.totals()
	v.RxFrames, v.RxBytes, v.TxFrames, v.TxBytes = t.RxFrames, t.RxBytes, t.TxFrames, t.TxBytes
	for i, n := range t.Drops {
		if n > 0 {
			v.Drops[dataplane.Drop(i).String()] = n
		}
	}
	return v
}

func (a *applying) peers(specs []config.Peer) error {
	d := a.d
	for _, spec := range specs {
		object := "peer " + spec.Name
		was, had := d.peers[spec.Name]
		if had && samePeer(was, spec) {
			a.done.Unchanged = append(a.done.Unchanged, object)
			continue
		}
		if err := d.makePeer(spec, a.on); err != nil {
			return about(object, err)
		}
		if had {
			a.undo = append(a.undo, func() error { return d.makePeer(was, keepFailed) })
			a.changed(eventPeerChanged, object)
		} else {
			a.undo = append(a.undo, func() error { d.dropPeer(spec.Name); return nil })
			a.created(eventPeerAdded, object)
		}
	}
	return nil
}

// samePeer tells whether two specs ask for the same peer.
func samePeer(a, b config.Peer) bool {
	sorted := func(names []string) []string { return slices.Sorted(slices.Values(names)) }
	return a.Endpoint() == b.Endpoint() && slices.Equal(sorted(a.Networks), sorted(b.Networks))
}

// tunnelFailure says in the API's terms why there can't be a tunnel.
func tunnelFailure(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	return fail(http.StatusUnprocessableEntity, "%w", err)
}

func (d *Daemon) postPeer(r *http.Request) (any, error) {
	var spec config.Peer
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.AddPeer(spec); err != nil {
		return nil, about(printable(spec.Name), err)
	}
	return orError(d.Peer(spec.Name))
}
