package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/tunnel"
)

// vtep is this host's end of all tunnels, while it is open.
type vtep struct {
	id    dataplane.PortID
	live  *tunnel.VTEP
	under underlayPort
	gates map[uint32][]netip.Addr // The addresses of gateways that live was told, by VNI.
}

// vtepAddress is where the VTEP is to be opened if a peer has this address, or
// none has yet.
func (d *Daemon) vtepAddress(peer netip.Addr) netip.AddrPort {
	switch {
	case d.opts.VTEP.IsValid():
		return d.opts.VTEP
	case d.mesh != nil:
		peer = d.mesh.vtep.Addr()
	}
	if peer.Is6() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), config.VXLANPort)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), config.VXLANPort)
}

// vtepFits tells whether the VTEP may stay open: not if it has the family of
// peers that are gone, and those that are left have the other.
func (d *Daemon) vtepFits(first netip.Addr) bool {
	is4 := func(a netip.AddrPort) bool { return a.Addr().Unmap().Is4() }
	if is4(d.vtep.live.Local()) == is4(d.vtepAddress(first)) {
		return true
	}
	for _, r := range d.remotes {
		if r.live != nil {
			return true
		}
	}
	return false
}

// openVTEP opens this host's end of the tunnels. The caller holds change.
func (d *Daemon) openVTEP(at netip.AddrPort) error {
	id, err := d.freeID()
	if err != nil {
		return err
	}
	under, err := d.host.openUnderlay(at, d.engine.Workers())
	if err != nil {
		err = fmt.Errorf("the tunnels' end on this host: %w", err)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fail(http.StatusConflict, "%w", err).withHint("swd --vtep takes another address or port")
		}
		return err
	}
	live, err := tunnel.New(tunnel.Config{Workers: d.engine.Workers(), Underlay: under})
	if err != nil {
		return err
	}
	if err := d.engine.Attach(id, live, live); err != nil {
		return errors.Join(err, live.Close())
	}
	d.mu.Lock()
	d.vtep, d.inside[id] = &vtep{id: id, live: live, under: under, gates: make(map[uint32][]netip.Addr)}, true
	d.mu.Unlock()
	d.setAddresses()
	d.reguard()
	d.log.Info("tunnels end here", zap.Stringer("address", live.Local()))
	return nil
}

// isHere tells whether frames that are sent there come to this host's VTEP.
func (d *Daemon) isHere(at netip.AddrPort) bool {
	local := d.vtep.live.Local()
	if at.Port() != local.Port() || !local.Addr().IsUnspecified() {
		return at == local
	}
	own, err := d.host.addresses()
	return err == nil && slices.Contains(own, at.Addr())
}

// closeVTEP closes this host's end. The caller holds change.
func (d *Daemon) closeVTEP() {
	v := d.vtep
	if v == nil {
		return
	}
	var gone []*remoteTunnel
	for _, r := range d.remotes {
		gone = append(gone, d.unlinkAll(r)...)
	}
	d.discardTunnels(gone)
	for a, r := range d.remotes {
		d.dropRemote(a, r)
	}
	d.engine.Detach(v.id)
	d.mu.Lock()
	t := d.vtepTotals()
	addDrops(&d.retired, &t)
	d.vtep, d.inside[v.id] = nil, false
	d.mu.Unlock()
	d.reguard()
	if err := v.live.Close(); err != nil {
		d.log.Error("the end of the tunnels", zap.Error(err))
	}
}

// vtepTotals returns what was dropped before it was known to be a tunnel's. The
// caller holds mu.
func (d *Daemon) vtepTotals() dataplane.Totals {
	if d.vtep == nil {
		return dataplane.Totals{}
	}
	t := d.vtep.live.Counters().Totals()
	t.Drops[dataplane.RxKernel] += d.vtep.under.lost()
	return t
}

// settleLocal tells the tunnels, those too that are to come, which addresses are
// those of gateways here.
func (d *Daemon) settleLocal() {
	for _, n := range d.networks {
		var has []netip.Prefix
		if n.gateway != nil {
			has = n.gateway.config.Addresses
		}
		d.tellGates(n, has)
	}
}

// tellGates tells the tunnels of a network which addresses its gateway here has.
// The caller holds change.
func (d *Daemon) tellGates(n *network, has []netip.Prefix) {
	if d.vtep == nil {
		return
	}
	var gates []netip.Addr
	for _, a := range has {
		gates = append(gates, a.Addr())
	}
	if was, told := d.vtep.gates[n.spec.VNI]; slices.Equal(was, gates) && (told || len(gates) == 0) {
		return
	}
	if err := d.vtep.live.SetLocal(n.spec.VNI, gates); err != nil {
		d.log.Error("the gateway's addresses", zap.String("network", n.spec.Name), zap.Error(err))
	}
	d.vtep.gates[n.spec.VNI] = gates
}
