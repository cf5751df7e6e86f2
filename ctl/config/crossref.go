package config

import (
	"net/netip"
	"path/filepath"
	"strconv"
)

// Validate says everything that is wrong with the config: each spec alone, and
// the specs together. It returns nil or an Errors.
//
// Together they are refused if two objects share a name, two networks a VNI,
// two ports an interface of one namespace (as far as the spec tells: a pid and
// a path that are the same namespace meet only on the host), two ports of a
// network a MAC or an address, two uplinks an interface or an address, two
// publications a listen, or two peers an address; if a port, entry, NAT or peer
// refers to what the config doesn't have; or if a network of NAT lacks its
// gateway. Subnets of two networks may overlap: a network is a world of its
// own, and a flow is told apart by its VNI.
func (c *Config) Validate() error {
	k := newChecker()
	c.check(k)
	return k.errs.asError()
}

func (c *Config) check(k checker) {
	if !k.bounded("networks", len(c.Networks), MaxNetworks) ||
		!k.bounded("ports", len(c.Ports), MaxPorts) ||
		!k.bounded("fdb", len(c.FDB), MaxStatics) ||
		!k.bounded("uplinks", len(c.Uplinks), MaxUplinks) ||
		!k.bounded("nat", len(c.NAT), MaxNAT) ||
		!k.bounded("peers", len(c.Peers), MaxPeers) {
		return
	}
	networks := c.checkNetworks(k.field("networks"))
	ports := c.checkPorts(k.field("ports"), networks)
	c.checkFDB(k.field("fdb"), networks, ports)
	uplinks := c.checkUplinks(k.field("uplinks"))
	c.checkNAT(k.field("nat"), networks, ports, uplinks)
	c.NATSettings.check(k.field("nat_settings"))
	c.checkPeers(k.field("peers"), networks)
	c.Mesh.check(k.field("mesh"))
}

// bounded refuses a list that is too long.
func (k checker) bounded(field string, n, most int) bool {
	if n > most {
		k.field(field).refuse("%d of them: at most %d", n, most)
		return false
	}
	return true
}

// checkNetworks returns the networks by name.
func (c *Config) checkNetworks(k checker) map[string]*Network {
	byName := make(map[string]*Network, len(c.Networks))
	byVNI := make(map[uint32]string, len(c.Networks))
	for i := range c.Networks {
		n, k := &c.Networks[i], k.index(i)
		n.check(k)
		if n.Name != "" && byName[n.Name] != nil {
			k.field("name").refuse("there is another network %s", quote(n.Name))
			continue
		}
		byName[n.Name] = n
		if n.VNI == 0 {
			continue
		}
		if owner, taken := byVNI[n.VNI]; taken {
			k.field("vni").refuse("%d is the VNI of network %s", n.VNI, quote(owner))
			continue
		}
		byVNI[n.VNI] = n.Name
	}
	return byName
}

// Interface is where a port's interface is: two ports with equal values are
// the same interface. Namespace is as the spec names it, empty for swd's own.
type Interface struct {
	Namespace string
	Name      string
}

// Location returns where the port's interface is, as far as the spec tells.
func (p *Port) Location() Interface {
	d := p.WithDefaults()
	at := Interface{Name: d.IfName}
	switch {
	case d.Kind == KindPacket:
		at.Name = d.Interface
	case d.NetNS != "":
		at.Namespace = filepath.Clean(d.NetNS)
	case d.PID != 0:
		at.Namespace = "pid " + strconv.Itoa(d.PID)
	case d.Container != "":
		at.Namespace = "container " + d.Container
	}
	return at
}

// checkPorts returns the ports by name.
func (c *Config) checkPorts(k checker, networks map[string]*Network) map[string]*Port {
	type onNetwork[T comparable] struct {
		network string
		value   T
	}
	byName := make(map[string]*Port, len(c.Ports))
	byPlace := make(map[Interface]string, len(c.Ports))
	byMAC := make(map[onNetwork[[6]byte]]string, len(c.Ports))
	byIP := make(map[onNetwork[netip.Addr]]string, len(c.Ports))
	for i := range c.Ports {
		p, k := &c.Ports[i], k.index(i)
		p.check(k)
		if p.Name != "" && byName[p.Name] != nil {
			k.field("name").refuse("there is another port %s", quote(p.Name))
			continue
		}
		byName[p.Name] = p
		if at := p.Location(); at.Name != "" {
			if owner, taken := byPlace[at]; taken {
				k.refuse("interface %s is taken by port %s in the same namespace", quote(at.Name), quote(owner))
			}
			byPlace[at] = p.Name
		}
		if mac, err := ParseMAC(p.MAC); err == nil {
			key := onNetwork[[6]byte]{p.Network, mac}
			if owner, taken := byMAC[key]; taken {
				k.field("mac").refuse("%s is the address of port %s on the same network", p.MAC, quote(owner))
			}
			byMAC[key] = p.Name
		}
		for j, s := range p.IPs {
			ip, err := ParseIP(s)
			if err != nil {
				continue
			}
			key := onNetwork[netip.Addr]{p.Network, ip.Addr()}
			if owner, taken := byIP[key]; taken && owner != p.Name {
				k.field("ips").index(j).refuse("%s is an address of port %s on the same network", ip.Addr(), quote(owner))
			}
			byIP[key] = p.Name
		}
		n := networks[p.Network]
		switch {
		case n != nil:
			p.checkOn(k, n)
		case p.Network != "":
			k.field("network").refuse("there is no network %s", quote(p.Network))
		}
	}
	return byName
}

// ValidateOn says what is wrong with the port on its network: an address
// outside its subnets (link-local ones may be), an automatic address without a
// subnet to take it from, a default route without a gateway that the port's
// addresses reach. It returns nil or an Errors.
func (p *Port) ValidateOn(n *Network) error {
	c := newChecker()
	p.checkOn(c, n)
	return c.errs.asError()
}

func (p *Port) checkOn(c checker, n *Network) {
	var auto bool
	var own []netip.Prefix
	for i, s := range p.IPs {
		if s == AutoIP {
			auto = true
			if len(n.Subnets) == 0 {
				c.field("ips").index(i).refuse("network %s has no subnet to take an address from", quote(n.Name))
			}
			continue
		}
		ip, err := ParseIP(s)
		if err != nil {
			continue
		}
		own = append(own, ip.Masked())
		if _, in := subnetOf(n.Subnets, ip.Addr()); !in && n.hasFamily(ip.Addr()) && !ip.Addr().IsLinkLocalUnicast() {
			c.field("ips").index(i).refuse("%s is in none of the subnets of network %s", ip.Addr(), quote(n.Name))
		}
	}
	if !p.DefaultRoute {
		return
	}
	if len(n.Gateways) == 0 {
		c.field("default_route").refuse("network %s has no gateway", quote(n.Name))
		return
	}
	for _, g := range n.Gateways {
		if _, in := subnetOf(own, g); in || auto {
			return
		}
	}
	c.field("default_route").refuse("none of the port's addresses reaches a gateway of network %s", quote(n.Name))
}

// hasFamily tells whether a subnet is of the address's family.
func (n *Network) hasFamily(a netip.Addr) bool {
	for _, s := range n.Subnets {
		if s.Addr().Is4() == a.Is4() {
			return true
		}
	}
	return false
}

func (c *Config) checkFDB(k checker, networks map[string]*Network, ports map[string]*Port) {
	type station struct {
		network string
		mac     [6]byte
	}
	seen := make(map[station]bool, len(c.FDB))
	for i := range c.FDB {
		s, k := &c.FDB[i], k.index(i)
		s.check(k)
		if s.Network != "" && networks[s.Network] == nil {
			k.field("network").refuse("there is no network %s", quote(s.Network))
		}
		switch p := ports[s.Port]; {
		case p == nil && s.Port != "":
			k.field("port").refuse("there is no port %s", quote(s.Port))
		case p != nil && p.Network != s.Network:
			k.field("port").refuse("port %s is on network %s", quote(s.Port), quote(p.Network))
		}
		if mac, err := ParseMAC(s.MAC); err == nil {
			if seen[station{s.Network, mac}] {
				k.field("mac").refuse("there is another entry for %s on network %s", s.MAC, quote(s.Network))
			}
			seen[station{s.Network, mac}] = true
		}
	}
}
