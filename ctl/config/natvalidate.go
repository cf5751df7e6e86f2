package config

import "net/netip"

// families are IP families, as bits.
type families uint8

const (
	ipv4 families = 1 << iota
	ipv6
)

func familyOf(a netip.Addr) families {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// String names them in errors.
func (f families) String() string {
	return [...]string{"no", "IPv4", "IPv6", "IPv4 or IPv6"}[f]
}

// Validate says everything that is wrong with the uplink taken alone; nil, or
// an Errors whose paths are the fields.
func (u *Uplink) Validate() error {
	c := newChecker()
	u.check(c)
	return c.errs.asError()
}

func (u *Uplink) check(c checker) {
	if err := CheckName(u.Name); err != nil {
		c.field("name").refuse("%v", err)
	}
	if u.Interface == "" {
		c.field("interface").refuse("missing: name the interface by which the uplink leaves the host")
	} else if err := CheckIfName(u.Interface); err != nil {
		c.field("interface").refuse("%v", err)
	}
	switch u.Mode {
	case "", ModeShared:
		if u.MAC != "" {
			c.field("mac").refuse("a shared uplink has its interface's: leave it out, or take mode %s", ModeOwn)
		}
	case ModeOwn:
		if len(u.Addresses) == 0 {
			c.field("addresses").refuse("missing: an uplink of its own needs an address, which no one else on its network has")
		}
	default:
		c.field("mode").refuse("%s is no mode: want %s or %s", quote(u.Mode), ModeShared, ModeOwn)
	}
	if u.MAC != "" {
		if _, err := ParseMAC(u.MAC); err != nil {
			c.field("mac").refuse("%v", err)
		}
	}
	if u.Ports != "" {
		r, err := ParsePortRange(u.Ports)
		if err != nil {
			c.field("ports").refuse("%v", err)
		} else if r.First < MinMappedPort {
			c.field("ports").refuse("%s is out of range: want a part of %d-65535", r, MinMappedPort)
		}
	}
	u.checkAddresses(c.field("addresses"))
	u.checkNextHops(c.field("next_hops"))
}

func (u *Uplink) checkAddresses(c checker) {
	if len(u.Addresses) > MaxAddresses {
		c.refuse("%d addresses: at most %d", len(u.Addresses), MaxAddresses)
		return
	}
	seen := make(map[netip.Addr]bool, len(u.Addresses))
	for i, s := range u.Addresses {
		ip, err := ParseIP(s)
		switch {
		case err != nil:
			c.index(i).refuse("%v", err)
			continue
		case ip.Addr().IsLinkLocalUnicast():
			c.index(i).refuse("%s is link-local: nothing beyond the link could answer it", ip.Addr())
		case seen[ip.Addr()]:
			c.index(i).refuse("%s is given twice", ip.Addr())
		}
		seen[ip.Addr()] = true
	}
}

func (u *Uplink) checkNextHops(c checker) {
	var subnets []netip.Prefix
	var alone families // Those with an address that is a subnet by itself.
	own := make(map[netip.Addr]bool, len(u.Addresses))
	for _, s := range u.Addresses {
		if ip, err := ParseIP(s); err == nil {
			subnets, own[ip.Addr()] = append(subnets, ip.Masked()), true
			if ip.IsSingleIP() {
				alone |= familyOf(ip.Addr())
			}
		}
	}
	var had families
	for i, hop := range u.NextHops {
		subnet, in := subnetOf(subnets, hop)
		switch {
		case !hop.IsValid():
			c.index(i).refuse("missing: want an address as 192.0.2.1")
			continue
		case hop.Zone() != "":
			c.index(i).refuse("%s: want an address without a zone", hop)
		case had&familyOf(hop) != 0:
			c.index(i).refuse("%s is a second next hop of its family", hop)
		case own[hop]:
			c.index(i).refuse("%s is an address of the uplink itself", hop)
		case !in && len(subnets) > 0 && alone&familyOf(hop) == 0 && (hop.Is4() || !hop.IsLinkLocalUnicast()):
			c.index(i).refuse("%s is in none of the subnets of the uplink's addresses; give the address as a /%d if the next hop is on the link all the same", hop, hop.BitLen())
		default:
			if !in {
				subnet = netip.PrefixFrom(hop, hop.BitLen())
			}
			if err := checkHost(hop, subnet); err != nil {
				c.index(i).refuse("%v", err)
			}
		}
		had |= familyOf(hop)
	}
}

// Validate says everything that is wrong with the NAT taken alone; nil, or an
// Errors whose paths are the fields.
func (n *NAT) Validate() error {
	c := newChecker()
	n.check(c)
	return c.errs.asError()
}

func (n *NAT) check(c checker) {
	c.field("uplink").reference(n.Uplink, "uplink")
	var others []string
	switch n.Type {
	case TypeMasquerade:
		n.checkMasquerade(c)
		others = n.given("listen", "to")
	case TypePublish:
		n.checkPublication(c)
		others = n.given("network", "mapping", "filtering", "ipv6")
	case "":
		c.field("type").refuse("missing: want %s or %s", TypeMasquerade, TypePublish)
	default:
		c.field("type").refuse("%s is no type of NAT: want %s or %s", quote(n.Type), TypeMasquerade, TypePublish)
	}
	for _, name := range others {
		c.field(name).refuse("type %s has none: leave it out", n.Type)
	}
}

// given returns those of the fields that are not empty.
func (n *NAT) given(names ...string) (given []string) {
	fields := map[string]string{
		"network": n.Network, "mapping": n.Mapping, "filtering": n.Filtering, "ipv6": n.IPv6, "listen": n.Listen, "to": n.To,
	}
	for _, name := range names {
		if fields[name] != "" {
			given = append(given, name)
		}
	}
	return given
}

func (n *NAT) checkMasquerade(c checker) {
	c.field("network").reference(n.Network, "network whose containers reach the uplink")
	for _, f := range []struct{ name, value, a, b string }{
		{"mapping", n.Mapping, EndpointIndependent, AddressAndPortDependent},
		{"filtering", n.Filtering, EndpointIndependent, AddressAndPortDependent},
		{"ipv6", n.IPv6, IPv6Translate, IPv6Route},
	} {
		if f.value != "" && f.value != f.a && f.value != f.b {
			c.field(f.name).refuse("%s: want %s or %s", quote(f.value), f.a, f.b)
		}
	}
	if n.Mapping == AddressAndPortDependent && n.Filtering == EndpointIndependent {
		c.field("filtering").refuse("%s filtering needs %s mapping: a port that containers share leads to no one of them", EndpointIndependent, EndpointIndependent)
	}
}

func (n *NAT) checkPublication(c checker) {
	if n.Listen == "" {
		c.field("listen").refuse("missing: want [IP:]PORT[-PORT]/PROTO, as 8080/tcp")
	}
	if n.To == "" {
		c.field("to").refuse("missing: want PORTNAME:PORT[-PORT] or IP:PORT[-PORT], as web:80")
	}
	listen, err1 := ParseListen(n.Listen)
	to, err2 := ParseTarget(n.To)
	if err1 != nil && n.Listen != "" {
		c.field("listen").refuse("%v", err1)
	}
	if err2 != nil && n.To != "" {
		c.field("to").refuse("%v", err2)
	}
	if err1 != nil || err2 != nil {
		return
	}
	if listen.Ports.Len() != to.Ports.Len() {
		c.field("to").refuse("%s and %s differ in length, %d and %d ports: each port leads to one",
			listen.Ports, to.Ports, listen.Ports.Len(), to.Ports.Len())
	}
	if to.Addr.IsValid() && listen.families()&familyOf(to.Addr) == 0 {
		c.field("to").refuse("%s is no %s address, as that which is listened on", to.Addr, listen.families())
	}
}

// families returns those on which it listens.
func (l Listen) families() families {
	if !l.Addr.IsValid() {
		return ipv4 | ipv6
	}
	return familyOf(l.Addr)
}

// Validate says everything that is wrong with the settings; nil, or an Errors
// whose paths are the fields.
func (s NATSettings) Validate() error {
	c := newChecker()
	s.check(c)
	return c.errs.asError()
}

func (s NATSettings) check(c checker) {
	for _, l := range s.lifetimes() {
		if v := *l.value; v != 0 && (v < MinLifetime || v > MaxLifetime) {
			c.field(l.name).refuse("%s is out of range: want %s to %s", v, MinLifetime, MaxLifetime)
		}
	}
	if s.MaxContainerConns < 0 || s.MaxContainerConns > MaxConns {
		c.field("max_container_conns").refuse("%d is out of range: want 1 to %d, or none for three quarters of what the others leave", s.MaxContainerConns, MaxConns)
	}
	if s.MaxContainerPorts < 0 || s.MaxContainerPorts > MaxContainerPorts {
		c.field("max_container_ports").refuse("%d is out of range: want 1 to %d, or none for three quarters of what the others leave", s.MaxContainerPorts, MaxContainerPorts)
	}
}
