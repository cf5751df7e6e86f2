package config

import (
	"net/netip"
	"strings"
)

// Validate says everything that is wrong with the network taken alone; nil, or
// an Errors whose paths are the fields.
func (n *Network) Validate() error {
	c := newChecker()
	n.check(c)
	return c.errs.asError()
}

func (n *Network) check(c checker) {
	if err := CheckName(n.Name); err != nil {
		c.field("name").refuse("%v", err)
	}
	if n.VNI > MaxVNI {
		c.field("vni").refuse("%d is out of range: want 1 to %d, or none to let swd choose", n.VNI, MaxVNI)
	}
	ipv6 := n.checkSubnets(c.field("subnets"))
	n.checkGateways(c.field("gateways"))
	switch {
	case n.MTU == 0:
	case n.MTU > MaxMTU:
		c.field("mtu").refuse("%d is out of range: want %d to %d, the most that a TAP can be set to", n.MTU, MinMTU, MaxMTU)
	case n.MTU < MinMTU:
		c.field("mtu").refuse("%d is out of range: want %d to %d", n.MTU, MinMTU, MaxMTU)
	case ipv6 && n.MTU < MinMTU6:
		c.field("mtu").refuse("%d is too small for the network's IPv6 subnet: want at least %d (RFC 8200)", n.MTU, MinMTU6)
	}
	if n.Ageing != 0 && (n.Ageing < MinAgeing || n.Ageing > MaxAgeing) {
		c.field("ageing").refuse("%s is out of range: want %s to %s", n.Ageing, MinAgeing, MaxAgeing)
	}
	if n.MaxMACs < 0 || n.MaxMACs > MaxMACs {
		c.field("max_macs").refuse("%d is out of range: want 1 to %d, or none for swd's own bound", n.MaxMACs, MaxMACs)
	}
}

// checkSubnets tells whether one of them is IPv6.
func (n *Network) checkSubnets(c checker) (ipv6 bool) {
	if len(n.Subnets) > MaxSubnets {
		c.refuse("%d subnets: at most %d", len(n.Subnets), MaxSubnets)
		return false
	}
	for i, s := range n.Subnets {
		if err := checkSubnet(s); err != nil {
			c.index(i).refuse("%v", err)
			continue
		}
		ipv6 = ipv6 || s.Addr().Is6()
		for _, t := range n.Subnets[:i] {
			if s.Overlaps(t) {
				c.index(i).refuse("%s overlaps %s", s, t)
				break
			}
		}
	}
	return ipv6
}

func (n *Network) checkGateways(c checker) {
	var has4, has6 bool
	for i, g := range n.Gateways {
		subnet, ok := subnetOf(n.Subnets, g)
		switch {
		case !g.IsValid():
			c.index(i).refuse("missing: want an address as 198.18.0.1")
		case g.Is4() && has4, g.Is6() && has6:
			c.index(i).refuse("%s is a second gateway of its family: a container has one default route of each", g)
		case g.Zone() != "":
			c.index(i).refuse("%s: want an address without a zone", g)
		case !ok:
			c.index(i).refuse("%s is in none of the network's subnets", g)
		default:
			if err := checkHost(g, subnet); err != nil {
				c.index(i).refuse("%v", err)
			}
		}
		has4, has6 = has4 || g.Is4(), has6 || g.Is6()
	}
}

// subnetOf returns the subnet that the address is in.
func subnetOf(subnets []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, s := range subnets {
		if s.Contains(a) {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

// Validate says everything that is wrong with the port taken alone; nil, or an
// Errors whose paths are the fields.
func (p *Port) Validate() error {
	c := newChecker()
	p.check(c)
	return c.errs.asError()
}

func (p *Port) check(c checker) {
	if err := CheckName(p.Name); err != nil {
		c.field("name").refuse("%v", err)
	}
	c.field("network").reference(p.Network, "network that the port is on")
	switch p.Kind {
	case "", KindTAP, KindVeth:
		p.checkMade(c)
	case KindPacket:
		p.checkExisting(c)
	default:
		c.field("kind").refuse("%s is no kind of port: want %s, %s or %s", quote(p.Kind), KindTAP, KindVeth, KindPacket)
	}
	p.checkLocator(c)
	if p.IfName != "" {
		if err := CheckIfName(p.IfName); err != nil {
			c.field("ifname").refuse("%v", err)
		}
	}
	if p.Interface != "" {
		if err := CheckIfName(p.Interface); err != nil {
			c.field("interface").refuse("%v", err)
		}
	}
	if p.MAC != "" {
		if _, err := ParseMAC(p.MAC); err != nil {
			c.field("mac").refuse("%v", err)
		}
	}
	p.checkIPs(c.field("ips"))
}

// checkMade holds a port whose interface swd makes against the combinations
// that make sense.
func (p *Port) checkMade(c checker) {
	kind := p.WithDefaults().Kind
	if p.Interface != "" {
		c.field("interface").refuse("only a packet port takes an interface that exists: a %s port makes its own, named by ifname", kind)
	}
	if p.InContainer() {
		if p.DefaultRoute && len(p.IPs) == 0 {
			c.field("default_route").refuse("needs an address: add one to ips")
		}
		return
	}
	if kind == KindVeth {
		c.refuse("a veth port needs a namespace for its end: give one of netns, pid and container")
		return
	}
	if p.IfName == "" {
		c.refuse("a tap port without netns, pid or container is in swd's own namespace and needs an ifname")
	}
	if p.DefaultRoute {
		c.field("default_route").refuse("the port is in swd's own namespace, whose default route swd leaves alone")
	}
}

// checkExisting holds a packet port against what it can't have, as its
// interface is made and configured by somebody else.
func (p *Port) checkExisting(c checker) {
	if p.Interface == "" {
		c.field("interface").refuse("missing: a packet port needs an interface that exists")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"netns", p.NetNS != ""},
		{"pid", p.PID != 0},
		{"container", p.Container != ""},
		{"ifname", p.IfName != ""},
		{"ips", len(p.IPs) > 0},
		{"mac", p.MAC != ""},
		{"default_route", p.DefaultRoute},
	} {
		if f.set {
			c.field(f.name).refuse("a packet port takes its interface as it is, in swd's own namespace: leave it out")
		}
	}
}

func (p *Port) checkLocator(c checker) {
	var given []string
	if p.NetNS != "" {
		given = append(given, "netns")
		if err := checkNetNS(p.NetNS); err != nil {
			c.field("netns").refuse("%v", err)
		}
	}
	if p.PID != 0 {
		given = append(given, "pid")
		if p.PID < 0 || p.PID > MaxPID {
			c.field("pid").refuse("%d is no process id: want 1 to %d", p.PID, MaxPID)
		}
	}
	if p.Container != "" {
		given = append(given, "container")
		if len(p.Container) > MaxContainer || !containerRE.MatchString(p.Container) {
			c.field("container").refuse("%s is no container name or id", quote(p.Container))
		}
	}
	if len(given) > 1 {
		c.refuse("%s all name the namespace: give one of them", strings.Join(given, " and "))
	}
}

func (p *Port) checkIPs(c checker) {
	if len(p.IPs) > MaxIPs {
		c.refuse("%d addresses: at most %d", len(p.IPs), MaxIPs)
		return
	}
	seen := make(map[netip.Addr]bool, len(p.IPs))
	auto := false
	for i, s := range p.IPs {
		if s == AutoIP {
			if auto {
				c.index(i).refuse("%q twice: it takes one address of each of the network's families", AutoIP)
			}
			auto = true
			continue
		}
		ip, err := ParseIP(s)
		switch {
		case err != nil:
			c.index(i).refuse("%v", err)
		case seen[ip.Addr()]:
			c.index(i).refuse("%s is given twice", ip.Addr())
		}
		seen[ip.Addr()] = true
	}
}

// Validate says everything that is wrong with the entry taken alone; nil, or
// an Errors whose paths are the fields.
func (s *Static) Validate() error {
	c := newChecker()
	s.check(c)
	return c.errs.asError()
}

func (s *Static) check(c checker) {
	if s.MAC == "" {
		c.field("mac").refuse("missing: want an address as 02:00:00:00:00:01")
	} else if _, err := ParseMAC(s.MAC); err != nil {
		c.field("mac").refuse("%v", err)
	}
	c.field("network").reference(s.Network, "network of the entry")
	c.field("port").reference(s.Port, "port behind which the address is")
}

// reference refuses what can't be the name of the object that is wanted.
func (c checker) reference(name, wanted string) {
	if name == "" {
		c.refuse("missing: name the %s", wanted)
	} else if err := CheckName(name); err != nil {
		c.refuse("%v", err)
	}
}
