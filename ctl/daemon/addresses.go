package daemon

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"net/netip"
	"slices"

	"heddle/ctl/config"
)

// chooseIPs replaces a port's automatic address by a free one of each of the
// network's families. kept are addresses that the port has had and may keep,
// beside are those that others ask for in the same change.
func (d *Daemon) chooseIPs(spec *config.Port, kept []string, beside map[netip.Addr]bool) error {
	at := slices.Index(spec.IPs, config.AutoIP)
	if at < 0 {
		return nil
	}
	n := d.networks[spec.Network].spec
	used := make(map[netip.Addr]bool, len(beside))
	maps.Copy(used, beside)
	for _, p := range d.ports {
		if p.spec.Network == spec.Network && p.spec.Name != spec.Name {
			markUsed(used, p.spec.IPs)
		}
	}
	markUsed(used, spec.IPs)
	for _, g := range n.Gateways {
		used[g] = true
	}
	d.announcedIn(n, used)
	var chosen []string
	for _, family := range []string{"IPv4", "IPv6"} {
		subnets := subnetsOf(n, family == "IPv4")
		if len(subnets) == 0 {
			continue
		}
		ip := keptIP(subnets, used, kept)
		for i := 0; !ip.IsValid() && i < len(subnets); i++ {
			ip = freeIP(subnets[i], d.firstIP(subnets[i]), used)
		}
		if !ip.IsValid() {
			return fail(http.StatusConflict, "no address is free in the %s subnets of network %s", family, n.Name)
		}
		chosen = append(chosen, ip.String())
	}
	spec.IPs = slices.Replace(slices.Clone(spec.IPs), at, at+1, chosen...)
	if len(spec.IPs) > config.MaxIPs {
		return fail(http.StatusConflict, "%d addresses with those for %q: at most %d", len(spec.IPs), config.AutoIP, config.MaxIPs)
	}
	return spec.ValidateOn(&n) // A default route may need another address than was free.
}

// subnetsOf returns a network's subnets of one family, that of the gateway
// first: only from there a default route works.
func subnetsOf(n config.Network, v4 bool) []netip.Prefix {
	var first, rest []netip.Prefix
	for _, s := range n.Subnets {
		switch {
		case s.Addr().Is4() != v4:
		case slices.ContainsFunc(n.Gateways, s.Contains):
			first = append(first, s)
		default:
			rest = append(rest, s)
		}
	}
	return append(first, rest...)
}

// keptIP returns the first kept address that is free in one of the subnets,
// the zero Prefix if there is none.
func keptIP(subnets []netip.Prefix, used map[netip.Addr]bool, kept []string) netip.Prefix {
	for _, k := range kept {
		ip, err := config.ParseIP(k)
		if err == nil && !used[ip.Addr()] && slices.Contains(subnets, ip.Masked()) {
			return ip
		}
	}
	return netip.Prefix{}
}

func markUsed(used map[netip.Addr]bool, ips []string) {
	for _, s := range ips {
		if ip, err := config.ParseIP(s); err == nil {
			used[ip.Addr()] = true
		}
	}
}

// firstIP is where the search for a free address begins: at the subnet's first
// one, in a mesh at one that depends on this host's name, so that hosts that add
// ports at the same time don't choose the same.
func (d *Daemon) firstIP(subnet netip.Prefix) netip.Addr {
	first := subnet.Masked().Addr()
	if d.mesh == nil {
		return first
	}
	sum := sha256.Sum256([]byte("heddle address " + d.opts.Node))
	b := first.AsSlice()
	// The lowest 16 bits of the host's part are enough to be spread over.
	at := binary.BigEndian.Uint16(sum[:]) & uint16(1<<min(first.BitLen()-subnet.Bits(), 16)-1)
	b[len(b)-2] |= byte(at >> 8)
	b[len(b)-1] |= byte(at)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// freeIP returns the first free address of a subnet that a host may have, from
// an address of it on and then from its lowest one; the zero Prefix if there is
// none. It tries no more addresses than are used, and those that no host may
// have.
func freeIP(subnet netip.Prefix, from netip.Addr, used map[netip.Addr]bool) netip.Prefix {
	a, round := from, false
	for range len(used) + 6 {
		if !subnet.Contains(a) {
			if round {
				break
			}
			a, round = subnet.Masked().Addr(), true
		}
		ip := netip.PrefixFrom(a, subnet.Bits())
		if _, err := config.ParseIP(ip.String()); err == nil && !used[a] {
			return ip
		}
		a = a.Next()
	}
	return netip.Prefix{}
}
