package daemon

import (
	"net/http"
	"net/netip"
	"slices"

	"heddle/ctl/config"
)

// chooseIPs replaces each automatic address of a port by a free one: the k-th
// of one of the network's subnets from the k-th on that has room. kept are
// addresses that the port has had and may keep.
func (d *Daemon) chooseIPs(spec *config.Port, kept []string) error {
	if !slices.Contains(spec.IPs, config.AutoIP) {
		return nil
	}
	n := d.networks[spec.Network].spec
	used := make(map[netip.Addr]bool)
	for _, p := range d.ports {
		if p.spec.Network != spec.Network || p.spec.Name == spec.Name {
			continue
		}
		markUsed(used, p.spec.IPs)
	}
	markUsed(used, spec.IPs)
	for _, g := range n.Gateways {
		used[g] = true
	}
	spec.IPs = slices.Clone(spec.IPs)
	subnets := n.Subnets
	for i, s := range spec.IPs {
		if s != config.AutoIP {
			continue
		}
		ip, at := keptIP(subnets, used, kept)
		for at = max(at, 0); !ip.IsValid() && at < len(subnets); at++ {
			ip = freeIP(subnets[at], used)
		}
		if !ip.IsValid() {
			return fail(http.StatusConflict, "no address is free in the subnets of network %s", n.Name)
		}
		used[ip.Addr()] = true
		spec.IPs[i] = ip.String()
		subnets = slices.DeleteFunc(slices.Clone(subnets), func(s netip.Prefix) bool { return s.Contains(ip.Addr()) })
	}
	return nil
}

// keptIP returns the first kept address that is free in one of the subnets.
func keptIP(subnets []netip.Prefix, used map[netip.Addr]bool, kept []string) (netip.Prefix, int) {
	for _, k := range kept {
		ip, err := config.ParseIP(k)
		if err != nil || used[ip.Addr()] {
			continue
		}
		for at, s := range subnets {
			if s.Contains(ip.Addr()) && s.Bits() == ip.Bits() {
				return ip, at
			}
		}
	}
	return netip.Prefix{}, 0
}

func markUsed(used map[netip.Addr]bool, ips []string) {
	for _, s := range ips {
		if ip, err := config.ParseIP(s); err == nil {
			used[ip.Addr()] = true
		}
	}
}

// freeIP returns the lowest free address of a subnet that a host may have, the
// zero Prefix if there is none. It tries no more addresses than are used, and
// those that no host may have.
func freeIP(subnet netip.Prefix, used map[netip.Addr]bool) netip.Prefix {
	a := subnet.Masked().Addr()
	for range len(used) + 3 {
		if !subnet.Contains(a) {
			break
		}
		ip := netip.PrefixFrom(a, subnet.Bits())
		if _, err := config.ParseIP(ip.String()); err == nil && !used[a] {
			return ip
		}
		a = a.Next()
	}
	return netip.Prefix{}
}
