package nat

import (
	"fmt"
	"net/netip"
	"slices"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Mode is how an uplink lives on its interface.
type Mode uint8

// The modes.
const (
	// Shared uses the interface's MAC and addresses with the host: the uplink
	// owns its ports and publications, everything else is the host's.
	Shared Mode = iota
	// Own has a MAC and addresses of its own and answers for them.
	Own
)

// The ports that inside endpoints are given, by default.
var (
	sharedPorts = PortRange{61000, 65535}
	ownPorts    = PortRange{1024, 65535}
)

// UplinkConfig is what control code chooses for an uplink.
type UplinkConfig struct {
	// Name is what errors call it.
	Name string
	Mode Mode
	// MAC is the uplink's own, or in Shared the interface's.
	MAC wire.MAC
	// Addresses are the uplink's, or in Shared the interface's, each with its
	// subnet. Containers share those of a family: a pool. At most MaxAddresses.
	Addresses []netip.Prefix
	// NextHop leads to what is in no subnet, for IPv4 and for IPv6: the zero
	// Addr, or a station of this link's, which needn't be in a subnet itself.
	NextHop4, NextHop6 netip.Addr
	// MTU is the interface's, in bytes of L3, MinMTU to MaxMTU.
	MTU int
	// Ports are what inside endpoints are given; zero means 61000–65535 in
	// Shared and 1024–65535 in Own. ICMP identifiers come from it too.
	Ports PortRange
	// Port is the interface's: the caller attaches it to the engine with the
	// Uplink as its sink.
	Port dataplane.Port
}

// AddUplink makes an uplink.
func (n *NAT) AddUplink(c UplinkConfig) (*Uplink, error) {
	n.control.Lock()
	defer n.control.Unlock()
	u := &Uplink{nat: n, seed: randomSeed()}
	err := u.configure(&c, nil)
	if err == nil && len(n.uplinkList) == MaxUplinks {
		err = fmt.Errorf("%w: there are %d", ErrFull, MaxUplinks)
	}
	if err != nil {
		return nil, fmt.Errorf("add uplink %s: %w", c.Name, err)
	}
	u.counters = c.Port.Counters()
	if err := n.admitUplink(u); err != nil {
		return nil, fmt.Errorf("add uplink %s: %w", c.Name, err)
	}
	n.paint()
	return u, nil
}

// admitUplink makes an uplink known to workers.
func (n *NAT) admitUplink(u *Uplink) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.join(&u.link, &path{port: u.config.Port}) {
		return fmt.Errorf("%w: there are %d links", ErrFull, maxPaths-1)
	}
	if err := n.lend(u); err != nil {
		n.shut(&u.link)
		return err
	}
	n.uplinks[u.path] = u
	n.uplinkList = append(n.uplinkList, u)
	return nil
}

// configure checks c, fills in its zero fields and makes u what it says, which
// may take old's place.
func (u *Uplink) configure(c *UplinkConfig, old *Uplink) error {
	if c.Port == nil {
		return fmt.Errorf("no port: %w", ErrInvalid)
	}
	if c.Mode > Own {
		return fmt.Errorf("mode %d: %w", c.Mode, ErrInvalid)
	}
	if c.Ports == (PortRange{}) {
		c.Ports = sharedPorts
		if c.Mode == Own {
			c.Ports = ownPorts
		}
	}
	if c.Ports.First == 0 || c.Ports.First > c.Ports.Last {
		return fmt.Errorf("ports %v: %w: want 1-65535 or a part of it", c.Ports, ErrInvalid)
	}
	var l link
	if err := l.set(c.MAC, c.MTU, c.Addresses); err != nil {
		return err
	}
	for _, a := range l.own {
		if o := u.nat.uplinkOwning(a); o != nil && o != old {
			return fmt.Errorf("address %v: %w by uplink %s", a.netip(), ErrInUse, o.config.Name)
		}
	}
	for i, hop := range [2]netip.Addr{c.NextHop4, c.NextHop6} {
		a := addrOf(hop)
		if hop.IsValid() && (a.is4() != (i == 0) || l.isOwn(a) || a.isMulticast() || a.isLocal() && !a.isLinkLocal6()) {
			return fmt.Errorf("next hop %v: %w: want another station's address", hop, ErrInvalid)
		}
	}
	u.mac, u.mtu, u.subnets, u.ranges, u.own = l.mac, l.mtu, l.subnets, l.ranges, l.own
	u.announce = l.announce
	u.quiet = c.Mode == Shared
	u.nextHop = [2]addr{addrOf(c.NextHop4), addrOf(c.NextHop6)}
	if hasFamily(c.Addresses, false) && c.Mode == Own {
		u.addLinkLocal()
	}
	if u.nextHop[1].isLinkLocal6() && !containedIn(u.subnets, u.nextHop[1]) {
		u.addLinkLocal()
	}
	u.config = *c
	return nil
}

// lend enters the uplink's addresses as external ones. The caller holds mu.
func (n *NAT) lend(u *Uplink) error {
	tb := &n.table
	u.exts = [2][]uint16{}
	size := 2
	for size < 2*len(u.config.Addresses) {
		size *= 2
	}
	if len(u.config.Addresses) == 1 {
		size = 2
	} else {
		size = max(size, 4)
	}
	u.index = make([]extCell, size)
	for _, p := range u.config.Addresses {
		a := addrOf(p.Addr())
		if a.isLinkLocal6() {
			continue
		}
		id := slices.IndexFunc(tb.exts, func(e external) bool { return e.addr == a && e.uplink == u.path && !e.gone })
		if id < 0 {
			id = slices.IndexFunc(tb.exts[1:], func(e external) bool { return e.gone }) + 1
			if id == 0 {
				if len(tb.exts) == 1<<16 {
					return fmt.Errorf("address %v: %w", p, ErrFull)
				}
				tb.exts = append(tb.exts, external{})
				id = len(tb.exts) - 1
			}
			tb.exts[id] = external{addr: a, uplink: u.path}
		}
		e := &tb.exts[id]
		for cl := range classes {
			if e.pools[cl] == nil {
				e.pools[cl] = &pool{}
			}
			e.pools[cl].bound(u.config.Ports)
			if p := e.pools[cl]; p.closed == nil && (cl == tcp || cl == sctp) {
				p.closed = &closedPorts{ring: make([]closedPort, powerOfTwo(int(p.last-p.first)+1))}
			}
		}
		family := 1
		if a.is4() {
			family = 0
		}
		u.exts[family] = append(u.exts[family], uint16(id))
		i := uint64(0)
		if size > 2 {
			mask := uint64(size - 1)
			for i = hash(u.seed, a, addr{}, 0) & mask; u.index[i].ext != 0; {
				i = (i + 1) & mask
			}
		}
		u.index[i] = extCell{addr: a, ext: uint16(id)}
	}
	n.countShared(u)
	return nil
}

// bound sets which ports are given.
func (p *pool) bound(r PortRange) {
	if p.first != r.First || p.last != r.Last {
		p.closed = nil // They come back when their time is over.
	}
	p.first, p.last = r.First, r.Last
	p.free = 0
	for port := int(r.First); port <= int(r.Last); port++ {
		if !p.isUsed(uint16(port)) {
			p.free++
		}
	}
}

// Configure changes an uplink as the interface has changed: addresses, MAC,
// MTU, next hops, ports. Connections of addresses that are gone end; others go
// on, also with ports that new ones wouldn't get. Mode and Port stay.
func (u *Uplink) Configure(c UplinkConfig) error {
	n := u.nat
	n.control.Lock()
	defer n.control.Unlock()
	if n.uplinks[u.path] != u || c.Mode != u.config.Mode || c.Port != u.config.Port {
		return fmt.Errorf("configure uplink %s: its mode or port: %w: add another uplink instead", u.config.Name, ErrInvalid)
	}
	for i := range n.rules {
		r := &n.rules[i]
		if r.uplink == u && r.listen != (addr{}) &&
			!slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return addrOf(p.Addr()) == r.listen }) {
			return fmt.Errorf("configure uplink %s: address %v: %w by publication %s: remove that first", u.config.Name, r.listen.netip(), ErrInUse, r.name)
		}
	}
	fresh := &Uplink{nat: n}
	fresh.path = u.path
	if err := fresh.configure(&c, u); err != nil {
		return fmt.Errorf("configure uplink %s: %w", u.config.Name, err)
	}
	n.mu.Lock()
	for id := range n.table.exts {
		e := &n.table.exts[id]
		if id > 0 && e.uplink == u.path && !e.gone && !fresh.isOwn(e.addr) {
			e.uplink = u.path // Until its connections have ended.
			e.pools = [classes]*pool{}
			for cl := range classes {
				e.pools[cl] = &pool{first: 1}
			}
			e.rules = [classes]*[1 << 16]uint16{}
		}
	}
	u.mac, u.mtu, u.subnets, u.ranges, u.own = fresh.mac, fresh.mtu, fresh.subnets, fresh.ranges, fresh.own
	u.nextHop, u.quiet, u.announce = fresh.nextHop, fresh.quiet, announcements
	u.neighbours.hop = [2]uint16{}
	n.generation++
	u.config = fresh.config
	err := n.lend(u)
	n.mu.Unlock()
	n.paint()
	gone := func(ext uint16) bool {
		return n.table.exts[ext].uplink == u.path && u.extOf(n.table.exts[ext].addr) == 0
	}
	n.end(func(k *conn) bool { return gone(k.ext) })
	n.mu.Lock()
	for id := 1; id < len(n.table.exts); id++ {
		if gone(uint16(id)) {
			n.table.exts[id] = external{gone: true}
		}
	}
	n.mu.Unlock()
	return err
}

// RemoveUplink ends an uplink and its connections. It fails while rules name
// it. A worker may be in it until its batch ends: detach its port from the
// engine first.
func (n *NAT) RemoveUplink(u *Uplink) error {
	n.control.Lock()
	defer n.control.Unlock()
	if n.uplinks[u.path] != u {
		return fmt.Errorf("remove uplink %s: %w", u.config.Name, ErrUnknown)
	}
	for i := range n.rules {
		if n.rules[i].uplink == u {
			return fmt.Errorf("remove uplink %s: %w by rule %d: remove that first", u.config.Name, ErrInUse, i)
		}
	}
	n.mu.Lock()
	n.uplinkList = slices.DeleteFunc(n.uplinkList, func(o *Uplink) bool { return o == u })
	n.mu.Unlock()
	n.end(func(c *conn) bool { return n.table.exts[c.ext].uplink == u.path })
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := 1; id < len(n.table.exts); id++ {
		if e := &n.table.exts[id]; e.uplink == u.path {
			*e = external{gone: true}
		}
	}
	n.uplinks[u.path] = nil
	n.shut(&u.link)
	return nil
}

// Swap puts another Port object in the uplink's port's place; see Engine.Swap.
func (u *Uplink) Swap(p dataplane.Port) {
	n := u.nat
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	u.config.Port, u.counters = p, p.Counters()
	n.paths[u.path].Store(&path{port: p})
}

// Owned returns the ports of a protocol (wire.ProtoTCP, ProtoUDP, ProtoSCTP,
// or ProtoICMP for identifiers) that are the uplink's and not the host's, a bit
// for each: what a program on a shared interface has to keep from the host's
// stack. It changes with the rules.
func (u *Uplink) Owned(proto uint8) (ports [1 << 16 / 64]uint64) {
	u.nat.control.Lock()
	defer u.nat.control.Unlock()
	for p := int(u.config.Ports.First); p <= int(u.config.Ports.Last); p++ {
		ports[p/64] |= 1 << (p % 64)
	}
	for i := range u.nat.rules {
		r := &u.nat.rules[i]
		if !r.publish || r.uplink != u || [...]uint8{tcp: wire.ProtoTCP, udp: wire.ProtoUDP, sctp: wire.ProtoSCTP}[r.class] != proto {
			continue
		}
		for p := int(r.first); p <= int(r.last); p++ {
			ports[p/64] |= 1 << (p % 64)
		}
	}
	return ports
}
