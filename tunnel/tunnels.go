package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Tunnel is the way of one network to one peer. It is a port of the network,
// with role Tunnel and without an MTU: it tells senders itself what is too
// long. It is no port of the engine: what comes in comes by the VTEP.
//
// Push is for workers; the other methods are for control code.
type Tunnel struct {
	// Immutable.
	vtep     *VTEP
	peer     *Peer
	vni      uint32
	id       dataplane.PortID
	network  dataplane.Sink
	mac      wire.MAC // What the tunnel itself sends from; see toobig.go.
	counters *dataplane.Counters
	told     []told // By worker.

	// Workers load, control code stores.
	mtu   atomic.Int32 // Longest inner packet by TunnelConfig.MTU.
	gates atomic.Pointer[gates]

	announced int  // Addresses in VTEP.known; VTEP.mu guards it.
	gone      bool // Likewise.
}

// TunnelConfig is what control code chooses for a tunnel.
type TunnelConfig struct { //nolint:revive // Config is the VTEP's, PeerConfig a peer's.
	// VNI is the network's identifier on the wire, 1 to wire.MaxVNI; a peer
	// has one tunnel for each.
	VNI uint32
	// Port is what the network knows the tunnel by.
	Port dataplane.PortID
	// Network takes what comes in, with Batch.In set to Port.
	Network dataplane.Sink
	// MTU bounds the inner packets in bytes where the path takes longer ones;
	// 0 means that only the path does.
	MTU int
}

// gates is the addresses of a network's gateways on this host. It never
// changes.
type gates struct{ addrs []addr }

// AddTunnel makes the tunnel of a network to a peer. The caller puts it on the
// network afterwards. It fails with ErrInUse if the peer has one with that VNI
// or another tunnel has the port.
func (v *VTEP) AddTunnel(p *Peer, c TunnelConfig) (*Tunnel, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, err := v.newTunnel(p, c)
	if err != nil {
		return nil, fmt.Errorf("add tunnel to peer %s: %w", p.name, err)
	}
	v.tunnels[t.id] = t
	p.tunnels = append(p.tunnels, t)
	p.routes.Store(newRoutes(p.tunnels))
	return t, nil
}

func (v *VTEP) newTunnel(p *Peer, c TunnelConfig) (*Tunnel, error) {
	switch {
	case p.vtep != v || p.gone:
		return nil, fmt.Errorf("the peer: %w", ErrUnknown)
	case c.VNI < 1 || c.VNI > wire.MaxVNI:
		return nil, fmt.Errorf("VNI %d: %w: want 1 to %d", c.VNI, ErrInvalid, wire.MaxVNI)
	case c.Port < 1 || c.Port >= dataplane.MaxPorts:
		return nil, fmt.Errorf("port %d: %w: want 1 to %d", c.Port, ErrInvalid, dataplane.MaxPorts-1)
	case c.Network == nil:
		return nil, fmt.Errorf("without a network: %w", ErrInvalid)
	case p.routes.Load().find(c.VNI) != nil:
		return nil, fmt.Errorf("VNI %d: %w by port %d", c.VNI, ErrInUse, p.routes.Load().find(c.VNI).id)
	case v.tunnels[c.Port] != nil:
		return nil, fmt.Errorf("port %d: %w by the tunnel to peer %s", c.Port, ErrInUse, v.tunnels[c.Port].peer.name)
	}
	t := &Tunnel{
		vtep:     v,
		peer:     p,
		vni:      c.VNI,
		id:       c.Port,
		network:  c.Network,
		mac:      tunnelMAC | wire.MAC(c.Port),
		counters: dataplane.NewCounters(len(v.workers)),
		told:     make([]told, len(v.workers)),
	}
	if err := t.setMTU(c.MTU); err != nil {
		return nil, err
	}
	t.gates.Store(v.gates[c.VNI])
	return t, nil
}

// RemoveTunnel ends a tunnel and withdraws what was announced by it. The caller
// has taken it off its network before. When it returns, workers may be in the
// tunnel until their batches end: wait for them with Engine.Do before the
// PortID is given again.
func (v *VTEP) RemoveTunnel(t *Tunnel) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t.vtep != v || t.gone {
		return fmt.Errorf("remove tunnel %d: %w", t.id, ErrUnknown)
	}
	t.gone = true
	delete(v.tunnels, t.id)
	p := t.peer
	p.tunnels = slices.DeleteFunc(p.tunnels, func(o *Tunnel) bool { return o == t })
	p.routes.Store(newRoutes(p.tunnels))
	if t.announced > 0 {
		t.announced -= v.known.removeAll(t.vni, t.id)
	}
	return nil
}

// SetMTU changes TunnelConfig.MTU. It takes effect with the next frame.
func (t *Tunnel) SetMTU(mtu int) error {
	if err := t.setMTU(mtu); err != nil {
		return fmt.Errorf("set MTU of tunnel %d: %w", t.id, err)
	}
	return nil
}

// minMTU is the shortest packet that every IPv4 host forwards (RFC 791).
const minMTU = 68

func (t *Tunnel) setMTU(mtu int) error {
	if mtu == 0 {
		mtu = maxPathMTU
	}
	if mtu < minMTU || mtu > maxPathMTU {
		return fmt.Errorf("MTU %d: %w: want %d to %d", mtu, ErrInvalid, minMTU, maxPathMTU)
	}
	t.mtu.Store(int32(mtu))
	return nil
}

// Peer returns where the tunnel leads.
func (t *Tunnel) Peer() *Peer { return t.peer }

// VNI returns the network's identifier on the wire.
func (t *Tunnel) VNI() uint32 { return t.vni }

// ID returns what the network knows the tunnel by.
func (t *Tunnel) ID() dataplane.PortID { return t.id }

// MTU returns the length in bytes of the longest inner packet, untagged, that
// the tunnel takes: the peer's MTU or TunnelConfig.MTU, whichever is less.
func (t *Tunnel) MTU() int { return min(t.peer.MTU(), int(t.mtu.Load())) }

// SetLocal says which addresses the gateways of the network have on this host,
// at most MaxLocal, for the tunnels that are there and those that come: no
// request for one of them leaves by a tunnel, and nothing that claims one
// comes in. Without any it forgets the network.
func (v *VTEP) SetLocal(vni uint32, addrs []netip.Addr) error {
	err := checkAddrs(addrs)
	if err == nil && (vni < 1 || vni > wire.MaxVNI) {
		err = fmt.Errorf("%w: want 1 to %d", ErrInvalid, wire.MaxVNI)
	}
	if err != nil {
		return fmt.Errorf("set gateway addresses of VNI %d: %w", vni, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.gates, vni)
	if len(addrs) > 0 {
		g := &gates{}
		for _, a := range addrs {
			g.addrs = append(g.addrs, addrOf(a))
		}
		v.gates[vni] = g
	}
	for _, t := range v.tunnels {
		if t.vni == vni {
			t.gates.Store(v.gates[vni])
		}
	}
	return nil
}

// Announce says that the station mac with these addresses is behind the
// tunnel: ARP and ND requests for them that would be flooded are answered here
// from now on, by this tunnel. An address that was announced for another tunnel
// of the network, or another MAC, is this one's now. The switch has to be told
// of the MAC besides (Network.Announce).
//
// It fails with ErrFull if there are too many addresses; those that found room
// stay.
func (t *Tunnel) Announce(mac wire.MAC, addrs ...netip.Addr) error {
	if mac.IsZero() || mac.IsMulticast() || mac > wire.Broadcast {
		return fmt.Errorf("announce %v: %w: want the address of one station", mac, ErrInvalid)
	}
	v := t.vtep
	v.mu.Lock()
	defer v.mu.Unlock()
	if t.gone {
		return fmt.Errorf("announce %v: tunnel %d: %w", mac, t.id, ErrUnknown)
	}
	var errs []error
	for _, a := range addrs {
		if err := v.announce(t, mac, a); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("announce %v: %w", mac, err)
	}
	return nil
}

func (v *VTEP) announce(t *Tunnel, mac wire.MAC, ip netip.Addr) error {
	a := addrOf(ip)
	if !ip.IsValid() || a.isNone() || a.isGroup() {
		return fmt.Errorf("address %v: %w: want one station's", ip, ErrInvalid)
	}
	_, old, had := v.known.find(t.vni, a)
	if !had && v.known.count >= v.maxAnnounced {
		v.refused.Announced++
		return fmt.Errorf("address %v: %w: %d are announced", ip, ErrFull, v.known.count)
	}
	if o := v.tunnels[old]; had && o != nil {
		o.announced--
	}
	v.known.set(t.vni, a, mac, t.id)
	t.announced++
	return nil
}

// Withdraw takes back what Announce said of these addresses and returns how
// many of them still stood: one that is another tunnel's or MAC's now stays.
func (t *Tunnel) Withdraw(mac wire.MAC, addrs ...netip.Addr) int {
	v := t.vtep
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, ip := range addrs {
		if !ip.IsValid() || t.gone {
			continue
		}
		a := addrOf(ip)
		if m, id, ok := v.known.find(t.vni, a); ok && m == mac && id == t.id {
			v.known.remove(t.vni, a)
			n++
		}
	}
	t.announced -= n
	return n
}
