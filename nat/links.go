package nat

import (
	"fmt"
	"net/netip"
	"slices"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// GatewayConfig is what control code chooses for a gateway.
type GatewayConfig struct {
	// Name is what errors call it.
	Name string
	// MAC is the gateway's own on its network. The network's FDB should have it
	// as a static entry of Port, so that no frame to it is ever flooded.
	MAC wire.MAC
	// Addresses are the gateway's, each with its subnet: what containers on
	// this network may have. At least one. The IPv6 link-local address that
	// belongs to the MAC comes with them if there is one of IPv6.
	Addresses []netip.Prefix
	// MTU is the network's, in bytes of L3, MinMTU to MaxMTU.
	MTU int
	// Network takes the frames that the gateway sends, as coming in by Port.
	Network dataplane.Sink
	Port    dataplane.PortID
}

// AddGateway makes a gateway. The caller attaches it to its network under
// GatewayConfig.Port, with the role of a gateway, and doesn't attach it to the
// engine. Subnets may overlap another gateway's: each network is a world of its
// own, but for the Stack, which is with the first of these that is masqueraded.
func (n *NAT) AddGateway(c GatewayConfig) (*Gateway, error) {
	n.control.Lock()
	defer n.control.Unlock()
	g := &Gateway{nat: n, config: c, counters: dataplane.NewCounters(len(n.workers))}
	err := g.set(c.MAC, c.MTU, c.Addresses)
	if err == nil && len(c.Addresses) == 0 {
		err = fmt.Errorf("no address: %w: want at least one with its prefix length", ErrInvalid)
	}
	if err == nil && (c.Network == nil || c.Port == 0 || c.Port >= dataplane.MaxPorts) {
		err = fmt.Errorf("port %d of its network: %w", c.Port, ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("add gateway %s: %w", c.Name, err)
	}
	if hasFamily(c.Addresses, false) {
		g.addLinkLocal()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.join(&g.link, &path{sink: c.Network, id: c.Port, counters: g.counters}) {
		return nil, fmt.Errorf("add gateway %s: %w: there are %d links", c.Name, ErrFull, maxPaths-1)
	}
	n.gateways[g.path] = g
	n.gatewayList = append(n.gatewayList, g)
	return g, nil
}

// RemoveGateway ends a gateway and its connections. It fails while rules name
// it. A worker may be in it until its batch ends: wait for it with Engine.Do.
func (n *NAT) RemoveGateway(g *Gateway) error {
	n.control.Lock()
	defer n.control.Unlock()
	if n.gateways[g.path] != g {
		return fmt.Errorf("remove gateway %s: %w", g.config.Name, ErrUnknown)
	}
	for i := range n.rules {
		if r := &n.rules[i]; r.gateway == g {
			return fmt.Errorf("remove gateway %s: %w by rule %d: remove that first", g.config.Name, ErrInUse, i)
		}
	}
	n.end(func(c *conn) bool { return n.table.hosts.list[c.host].net == g.path })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gateways[g.path] = nil
	n.gatewayList = slices.DeleteFunc(n.gatewayList, func(o *Gateway) bool { return o == g })
	n.shut(&g.link)
	return nil
}

// set fills in what all links have.
func (l *link) set(mac wire.MAC, mtu int, addresses []netip.Prefix) error {
	switch {
	case mac.IsZero() || mac.IsMulticast() || mac > wire.Broadcast:
		return fmt.Errorf("MAC %v: %w: want the address of one station", mac, ErrInvalid)
	case mtu < MinMTU || mtu > MaxMTU:
		return fmt.Errorf("MTU %d: %w: want %d to %d", mtu, ErrInvalid, MinMTU, MaxMTU)
	case len(addresses) > MaxAddresses:
		return fmt.Errorf("%d addresses: %w: want at most %d", len(addresses), ErrInvalid, MaxAddresses)
	}
	l.mac, l.mtu, l.announce = mac, mtu, announcements
	l.subnets, l.ranges, l.own = nil, nil, nil
	for _, a := range addresses {
		p := prefixOf(a)
		if !a.IsValid() || a.Addr().Is4In6() || p.host.isMulticast() || p.host.isLocal() && !p.host.isLinkLocal6() || p.isBroadcast(p.host) {
			return fmt.Errorf("address %v: %w: want one that a station can have, with its prefix length", a, ErrInvalid)
		}
		if l.isOwn(p.host) {
			return fmt.Errorf("address %v: %w: it is there twice", a, ErrInvalid)
		}
		l.add(p)
	}
	return nil
}

// add gives the link an address.
func (l *link) add(p prefix) {
	l.subnets = append(l.subnets, p)
	l.own = append(l.own, p.host)
	one := addr{hi: ^uint64(0), lo: ^uint64(0)}
	if p.mask != one && !slices.ContainsFunc(l.ranges, func(r prefix) bool { return r.addr == p.addr && r.mask == p.mask }) {
		l.ranges = append(l.ranges, p)
	}
}

// addLinkLocal adds the address that a MAC gives (RFC 4291 appendix A).
func (l *link) addLinkLocal() {
	m := uint64(l.mac)
	a := addr{hi: 0xfe80 << 48, lo: (m>>24^1<<17)<<40 | 0xfffe<<24 | m&0xffffff}
	if !l.isOwn(a) {
		l.add(prefix{addr: addr{hi: 0xfe80 << 48}, mask: addr{hi: ^uint64(0)}, host: a})
	}
}

func hasFamily(as []netip.Prefix, is4 bool) bool {
	return slices.ContainsFunc(as, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
}

// join gives a link its number. The caller holds mu.
func (n *NAT) join(l *link, p *path) bool {
	for i := 1; i < maxPaths; i++ {
		if n.links[i] == nil {
			l.path = uint16(i)
			l.errors.tokens = errorBurst
			l.neighbours.init(linkNeighbours)
			l.neighbours.list = make([]neighbour, linkNeighbours+1)
			n.links[i] = l
			n.generation++
			n.paths[i].Store(p)
			return true
		}
	}
	return false
}

// shut takes the number back, and what waits for MACs. The caller holds mu.
func (n *NAT) shut(l *link) {
	n.paths[l.path].Store(nil)
	n.links[l.path] = nil
	n.generation++
	for i := range l.neighbours.list {
		for q := &l.neighbours.list[i].waiting; q.n > 0; {
			n.waiting.take(q, nil)
		}
	}
	n.fragments.reset()
}

// reset forgets all packets. Those that wait are in no queue any more.
func (fs *fragments) reset() {
	fs.n, fs.first = 0, 0
	clear(fs.heads)
	fs.store.free, fs.store.fresh, fs.store.used = 0, 1, 0
}

// SetNeighbour fixes the MAC of an address on the gateway's network: what the
// daemon knows of the containers that it has addressed. 0 forgets it.
func (g *Gateway) SetNeighbour(a netip.Addr, mac wire.MAC) error {
	return g.nat.setNeighbour(&g.link, g.config.Name, a, mac)
}

// SetNeighbour fixes the MAC of an address on the uplink: what control code
// has from the kernel's neighbour table. 0 forgets it.
func (u *Uplink) SetNeighbour(a netip.Addr, mac wire.MAC) error {
	return u.nat.setNeighbour(&u.link, u.config.Name, a, mac)
}

// ForgetNeighbours forgets all MACs but those that SetNeighbour has fixed: the
// interface was away, and may lead elsewhere now.
func (u *Uplink) ForgetNeighbours() {
	n := u.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	for i := range u.neighbours.list {
		if k := &u.neighbours.list[i]; !k.fixed {
			k.mac, k.confirmed, k.tries = 0, 0, 0
		}
	}
}

func (n *NAT) setNeighbour(l *link, name string, a netip.Addr, mac wire.MAC) error {
	if !a.IsValid() || mac.IsMulticast() || mac > wire.Broadcast {
		return fmt.Errorf("set neighbour %v of %s: %w", a, name, ErrInvalid)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	ns := &l.neighbours
	id := ns.find(0, addrOf(a))
	if id == 0 && mac != 0 {
		if id = ns.add(0, addrOf(a)); id == 0 {
			return fmt.Errorf("set neighbour %v of %s: %w: it has %d", a, name, ErrFull, linkNeighbours)
		}
		ns.list[id] = neighbour{}
	}
	if id != 0 {
		// What waits stays until the next question is answered or given up.
		ns.list[id].mac, ns.list[id].fixed = mac, mac != 0
		ns.list[id].confirmed = 0
	}
	return nil
}
