package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// knownUplink is an uplink with its addresses read.
type knownUplink struct {
	*Uplink
	addresses map[netip.Addr]bool // None if they are the interface's.
	families  families            // Both if they are the interface's.
}

// checkUplinks returns the uplinks by name. Two may not have the same
// interface, nor an address; the interface of a port in swd's own namespace isn't
// an uplink's.
func (c *Config) checkUplinks(k checker) map[string]*knownUplink {
	byName := make(map[string]*knownUplink, len(c.Uplinks))
	byAddress := make(map[netip.Addr]string)
	byInterface := make(map[string]string, len(c.Uplinks))
	for i := range c.Ports {
		if at := c.Ports[i].Location(); at.Namespace == "" {
			byInterface[at.Name] = "port " + quote(c.Ports[i].Name)
		}
	}
	for i := range c.Uplinks {
		u, k := &c.Uplinks[i], k.index(i)
		u.check(k)
		if u.Name != "" && byName[u.Name] != nil {
			k.field("name").refuse("there is another uplink %s", quote(u.Name))
			continue
		}
		known := &knownUplink{Uplink: u, addresses: make(map[netip.Addr]bool)}
		byName[u.Name] = known
		if owner, taken := byInterface[u.Interface]; taken && u.Interface != "" {
			k.field("interface").refuse("%s is taken by %s", quote(u.Interface), owner)
		}
		byInterface[u.Interface] = "uplink " + quote(u.Name)
		for j, s := range u.Addresses {
			ip, err := ParseIP(s)
			if err != nil {
				continue
			}
			if owner, taken := byAddress[ip.Addr()]; taken && owner != u.Name {
				k.field("addresses").index(j).refuse("%s is an address of uplink %s", ip.Addr(), quote(owner))
			}
			byAddress[ip.Addr()] = u.Name
			known.addresses[ip.Addr()] = true
			known.families |= familyOf(ip.Addr())
		}
		if known.families == 0 {
			known.families = ipv4 | ipv6
		}
	}
	return byName
}

// natChecker holds NAT against what it refers to.
type natChecker struct {
	*Config
	networks map[string]*Network
	ports    map[string]*Port
	uplinks  map[string]*knownUplink
	// byIP are the ports by their addresses.
	byIP map[inNetwork]*Port

	masquerades map[string]*NAT // By network.
	routed      []routedSubnet
	groups      map[listenGroup][]published
	order       []listenGroup // The keys of groups, as they came.
}

// inNetwork is an address on a network, which is a world of its own.
type inNetwork struct {
	network string
	addr    netip.Addr
}

// routedSubnet is an IPv6 subnet of a network whose IPv6 is routed.
type routedSubnet struct {
	netip.Prefix
	network string
	index   int // Into Config.NAT.
}

// listenGroup is what publications share whose ranges may collide: those with
// an address are apart from those without, which they win over.
type listenGroup struct {
	uplink, proto string
	addr          netip.Addr // 0.0.0.0 and :: stand for any of a family.
}

// published is a publication's range in a group.
type published struct {
	PortRange
	index int // Into Config.NAT.
}

// checkNAT holds each masquerade and publication against its uplink, network
// and port, and them against each other: a network is masqueraded once, and of
// two publications that overlap one is the more specific.
func (c *Config) checkNAT(k checker, networks map[string]*Network, ports map[string]*Port, uplinks map[string]*knownUplink) {
	n := &natChecker{
		Config: c, networks: networks, ports: ports, uplinks: uplinks, byIP: make(map[inNetwork]*Port),
		masquerades: make(map[string]*NAT), groups: make(map[listenGroup][]published),
	}
	for i := range c.Ports {
		for _, s := range c.Ports[i].IPs {
			if ip, err := ParseIP(s); err == nil {
				n.byIP[inNetwork{c.Ports[i].Network, ip.Addr()}] = &c.Ports[i]
			}
		}
	}
	for i := range c.NAT {
		spec, k := &c.NAT[i], k.index(i)
		spec.check(k)
		u := uplinks[spec.Uplink]
		if u == nil && spec.Uplink != "" {
			k.field("uplink").refuse("there is no uplink %s", quote(spec.Uplink))
		}
		switch spec.Type {
		case TypeMasquerade:
			n.checkMasquerade(k, i, u)
		case TypePublish:
			n.checkPublication(k, i, u)
		}
	}
	n.checkRouted(k)
	refused := make(map[int]bool)
	for _, g := range n.order {
		n.checkGroup(k, n.groups[g], refused)
	}
}

func (n *natChecker) checkMasquerade(k checker, index int, u *knownUplink) {
	spec := &n.NAT[index]
	network := n.networks[spec.Network]
	if network == nil {
		if spec.Network != "" {
			k.field("network").refuse("there is no network %s", quote(spec.Network))
		}
		return
	}
	if owner := n.masquerades[spec.Network]; owner != nil {
		k.field("network").refuse("network %s has a masquerade already, by uplink %s (%s)", quote(spec.Network), quote(owner.Uplink), owner.ID())
		return
	}
	n.masquerades[spec.Network] = spec
	have, ok := n.gateways(k.field("network"), network)
	switch {
	case !ok:
	case u != nil && have&u.families == 0:
		k.field("uplink").refuse("uplink %s has no %s address, which is what network %s has a gateway for", quote(u.Name), have, quote(network.Name))
	case spec.IPv6 == IPv6Route && have&ipv6 == 0:
		k.field("ipv6").refuse("network %s has no IPv6 gateway to be routed by", quote(network.Name))
	case spec.IPv6 == IPv6Route:
		for _, s := range network.Subnets {
			if s.Addr().Is6() {
				n.routed = append(n.routed, routedSubnet{s, network.Name, index})
			}
		}
	}
}

// checkRouted refuses routed networks whose IPv6 subnets overlap: what comes
// from outside would belong to either.
func (n *natChecker) checkRouted(k checker) {
	slices.SortFunc(n.routed, func(a, b routedSubnet) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()), cmp.Compare(a.index, b.index))
	})
	var around routedSubnet
	for _, r := range n.routed {
		if around.network == "" || !around.Overlaps(r.Prefix) {
			around = r
			continue
		}
		owner, later := around, r
		if owner.index > later.index {
			owner, later = later, owner
		}
		if owner.network != later.network {
			k.index(later.index).field("ipv6").refuse("%s of network %s overlaps %s of network %s, whose IPv6 is routed too: an address has to be in one of them",
				later.Prefix, quote(later.network), owner.Prefix, quote(owner.network))
		}
	}
}

// gateways returns the families in which swd is a network's gateway. It refuses
// a network that has none, or whose gateway is a port.
func (n *natChecker) gateways(k checker, network *Network) (f families, ok bool) {
	for _, g := range network.Gateways {
		f |= familyOf(g)
		if p := n.byIP[inNetwork{network.Name, g}]; p != nil {
			k.refuse("the gateway %s of network %s is the address of port %s: NAT needs swd to be the gateway", g, quote(network.Name), quote(p.Name))
			return f, false
		}
	}
	if f == 0 {
		k.refuse("network %s has no gateway by which its containers reach an uplink", quote(network.Name))
	}
	return f, f != 0
}

func (n *natChecker) checkPublication(k checker, index int, u *knownUplink) {
	spec := &n.NAT[index]
	listen, err := ParseListen(spec.Listen)
	if err != nil {
		return
	}
	if u != nil {
		n.join(listen, index)
		switch {
		case !listen.IsAny() && len(u.addresses) > 0 && !u.addresses[listen.Addr]:
			k.field("listen").refuse("%s is no address of uplink %s", listen.Addr, quote(u.Name))
		case listen.families()&u.families == 0:
			k.field("listen").refuse("uplink %s has no %s address", quote(u.Name), listen.families())
		}
	}
	to, err := ParseTarget(spec.To)
	if err != nil {
		return
	}
	can := listen.families()
	if u != nil {
		can &= u.families
	}
	if to.Addr.IsValid() {
		n.checkAddress(k.field("to"), to.Addr)
		if f := familyOf(to.Addr); can != 0 && can&f == 0 && listen.families()&f != 0 {
			k.field("to").refuse("uplink %s has no %s address for %s to be reached by", quote(spec.Uplink), f, to.Addr)
		}
		return
	}
	n.checkPort(k.field("to"), to.Port, can)
}

// checkAddress holds the address that a publication leads to against the
// networks.
func (n *natChecker) checkAddress(k checker, a netip.Addr) {
	var in []*Network
	for i := range n.Networks {
		network := &n.Networks[i]
		subnet, ok := subnetOf(network.Subnets, a)
		if !ok || n.networks[network.Name] != network {
			continue
		}
		in = append(in, network)
		if err := checkHost(a, subnet); err != nil {
			k.refuse("%v", err)
			return
		}
		if slices.Contains(network.Gateways, a) {
			k.refuse("%s is the gateway of network %s, not a container", a, quote(network.Name))
			return
		}
	}
	if slices.ContainsFunc(in, func(o *Network) bool { return len(o.Gateways) > 0 }) {
		in = slices.DeleteFunc(in, func(o *Network) bool { return len(o.Gateways) == 0 })
	}
	switch len(in) {
	case 0:
		k.refuse("%s is in no network's subnets", a)
	case 1:
		if have, ok := n.gateways(k, in[0]); ok && have&familyOf(a) == 0 {
			k.refuse("network %s has no %s gateway", quote(in[0].Name), familyOf(a))
		}
	default:
		k.refuse("%s is in the subnets of networks %s and %s: name a port instead", a, quote(in[0].Name), quote(in[1].Name))
	}
}

// checkPort holds the port that a publication leads to in one of the families
// against the ports.
func (n *natChecker) checkPort(k checker, name string, can families) {
	p := n.ports[name]
	if p == nil {
		k.refuse("there is no port %s", quote(name))
		return
	}
	network := n.networks[p.Network]
	if network == nil {
		return
	}
	if len(p.IPs) == 0 {
		k.refuse("port %s has no address: give it one, or write the container's instead of its name", quote(name))
		return
	}
	gateways, ok := n.gateways(k, network)
	if !ok {
		return
	}
	var have families
	for _, s := range p.IPs {
		if s == AutoIP {
			for _, subnet := range network.Subnets {
				have |= familyOf(subnet.Addr())
			}
		} else if ip, err := ParseIP(s); err == nil {
			if _, in := subnetOf(network.Subnets, ip.Addr()); in {
				have |= familyOf(ip.Addr())
			}
		}
	}
	switch {
	case have == 0:
		k.refuse("port %s has no address in a subnet of network %s", quote(name), quote(network.Name))
	case have&gateways == 0:
		k.refuse("port %s has no %s address, which is what network %s has a gateway for", quote(name), gateways, quote(network.Name))
	case can != 0 && have&gateways&can == 0:
		k.refuse("port %s has no %s address, which is what the publication listens on", quote(name), can)
	}
}

// join adds a publication to the groups in which its range may collide.
func (n *natChecker) join(l Listen, index int) {
	addrs := []netip.Addr{l.Addr}
	if !l.Addr.IsValid() {
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, a := range addrs {
		g := listenGroup{n.NAT[index].Uplink, l.Proto, a}
		if n.groups[g] == nil {
			n.order = append(n.order, g)
		}
		n.groups[g] = append(n.groups[g], published{l.Ports, index})
	}
}

// checkGroup refuses ranges that are the same as another, or that cross one so
// that neither is the narrower. Sorted by their first port, the wider first,
// each needs to be held only against the ranges that it lies in, a stack.
func (n *natChecker) checkGroup(k checker, group []published, refused map[int]bool) {
	slices.SortFunc(group, func(a, b published) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(b.Last, a.Last), cmp.Compare(a.index, b.index))
	})
	var around []published
	for _, r := range group {
		add := true
		for len(around) > 0 && add {
			top := around[len(around)-1]
			switch {
			case top.Last < r.First:
				around = around[:len(around)-1]
				continue
			case top.PortRange != r.PortRange && r.Last <= top.Last:
			case top.index > r.index:
				n.refuseTwice(k, r, top, refused)
				around = around[:len(around)-1]
				continue
			default:
				n.refuseTwice(k, top, r, refused)
				add = false
			}
			break
		}
		if add {
			around = append(around, r)
		}
	}
}

// refuseTwice refuses the later of two publications once.
func (n *natChecker) refuseTwice(k checker, owner, later published, refused map[int]bool) {
	if refused[later.index] {
		return
	}
	refused[later.index] = true
	o := &n.NAT[owner.index]
	how := "is published"
	if owner.PortRange != later.PortRange {
		how = fmt.Sprintf("overlaps %s, and neither lies in the other, which is published", o.Listen)
	}
	k.index(later.index).field("listen").refuse("%s %s on uplink %s already, to %s (%s)",
		canonicalListen(n.NAT[later.index].Listen), how, quote(o.Uplink), o.To, o.ID())
}
