package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"heddle/ctl/config"
)

// lookupTimeout is how long hosts' names are looked up.
const lookupTimeout = 10 * time.Second

// hostName is a host's name (RFC 1123 2.1), with a port or without. Its last
// label doesn't begin with a digit: that would be an address that is mistyped.
var hostName = regexp.MustCompile(`^((?:[A-Za-z0-9_-]+\.)*[A-Za-z_][A-Za-z0-9_-]*\.?)(:[0-9]+)?$`)

// lookup finds the addresses of a name, as net.Resolver.LookupNetIP does.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// joinTries replaces the names among hosts, ADDR[:PORT] or NAME[:PORT], by their
// addresses. It returns what to join in turn until it works: the IPv4 addresses
// and then the IPv6 ones, since a mesh is of one family and a name may be of
// both. What is no name stays as it is, for swd to judge. It fails if a name
// doesn't resolve.
func joinTries(ctx context.Context, find lookup, hosts []string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var v4, v6 []string
	named4, named6 := false, false
	for _, h := range hosts {
		m := hostName.FindStringSubmatch(h)
		if _, err := config.ParseEndpoint(h, config.MeshPort); err == nil || m == nil {
			v4, v6 = append(v4, h), append(v6, h)
			continue
		}
		addrs, err := find(ctx, "ip", m[1])
		if err != nil {
			return nil, fmt.Errorf("the address of host %s: %w", m[1], err)
		}
		for _, a := range addrs {
			if a = a.Unmap(); a.Is4() {
				v4, named4 = append(v4, a.String()+m[2]), true
			} else {
				v6, named6 = append(v6, withPort(a, m[2])), true
			}
		}
	}
	var tries [][]string
	if named4 || !named6 {
		tries = append(tries, distinct(v4))
	}
	if named6 {
		tries = append(tries, distinct(v6))
	}
	return tries, nil
}

// withPort writes an IPv6 address with a port, ":PORT" or empty.
func withPort(a netip.Addr, port string) string {
	if port == "" {
		return a.String()
	}
	return net.JoinHostPort(a.String(), strings.TrimPrefix(port, ":"))
}

// distinct leaves out addresses that stand before: two names may have one.
func distinct(all []string) []string {
	var once []string
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
