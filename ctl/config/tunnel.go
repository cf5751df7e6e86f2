package config

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The ports that others listen on unless they say otherwise.
const (
	// VXLANPort is VXLAN's (RFC 7348 section 5, IANA's vxlan).
	VXLANPort = 4789
	// MeshPort is where members of a mesh gossip.
	MeshPort = 7946
)

// VNIOf returns the VNI of a network that has none by its spec: one derived from
// its name, so that the networks of one name are the same on all hosts.
func VNIOf(name string) uint32 {
	sum := sha256.Sum256([]byte("heddle vni " + name))
	return binary.BigEndian.Uint32(sum[:])%MaxVNI + 1
}

// Peer is a remote host that shares networks by VXLAN, without a mesh.
type Peer struct {
	Name string `json:"name" yaml:"name"`
	// Address is where its VTEP listens, IP[:PORT], IPv6 with a port in
	// brackets; the port is VXLANPort by default.
	Address string `json:"address" yaml:"address"`
	// Networks are those that it shares; without any it shares all.
	Networks []string `json:"networks,omitempty" yaml:"networks,omitempty"`
}

// Mesh is the mesh that this host is a member of; without any field it asks for
// nothing.
type Mesh struct {
	// Join are members that are asked to be let in, IP[:PORT] as Peer.Address;
	// the port is MeshPort by default.
	Join []string `json:"join,omitempty" yaml:"join,omitempty"`
}

// ParseEndpoint reads IP[:PORT], an IPv6 address with a port in brackets, where
// another host listens. It refuses names, which could come to mean another host
// while frames are under way, and addresses that no host may have.
func ParseEndpoint(s string, port uint16) (netip.AddrPort, error) {
	at, err := parseEndpoint(s, port)
	if err != nil {
		return at, err
	}
	return at, checkHost(at.Addr(), netip.PrefixFrom(at.Addr(), at.Addr().BitLen()))
}

// ParseListenAt is ParseEndpoint for an address of this host: the unspecified
// address stands for all of a family.
func ParseListenAt(s string, port uint16) (netip.AddrPort, error) {
	at, err := parseEndpoint(s, port)
	if err != nil || at.Addr().IsUnspecified() {
		return at, err
	}
	return at, checkHost(at.Addr(), netip.PrefixFrom(at.Addr(), at.Addr().BitLen()))
}

func parseEndpoint(s string, port uint16) (netip.AddrPort, error) {
	host := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") && strings.Contains(s, ":") {
		host = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		at, err := netip.ParseAddrPort(s)
		if err == nil && at.Port() == 0 {
			return netip.AddrPort{}, fmt.Errorf("%s: nobody listens at port 0: want 1 to 65535", quote(s))
		}
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s is no address: want IP[:PORT], as 192.0.2.2 or [2001:db8::2]:%d; a host's name is not looked up", quote(s), port)
		}
		a, port = at.Addr(), at.Port()
	}
	if a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%s: want an address without a zone", quote(s))
	}
	return netip.AddrPortFrom(a, port), nil
}

// Endpoint returns where the peer's VTEP listens; the zero AddrPort if that
// can't be read.
func (p *Peer) Endpoint() netip.AddrPort {
	at, err := ParseEndpoint(p.Address, VXLANPort)
	if err != nil {
		return netip.AddrPort{}
	}
	return at
}

// Shares tells whether the peer shares a network.
func (p *Peer) Shares(network string) bool {
	return len(p.Networks) == 0 || slices.Contains(p.Networks, network)
}

// Validate says everything that is wrong with the peer taken alone; nil, or an
// Errors whose paths are the fields.
func (p *Peer) Validate() error {
	c := newChecker()
	p.check(c)
	return c.errs.asError()
}

func (p *Peer) check(c checker) {
	if err := CheckName(p.Name); err != nil {
		c.field("name").refuse("%v", err)
	}
	if p.Address == "" {
		c.field("address").refuse("missing: want where the peer listens, as 192.0.2.2")
	} else if _, err := ParseEndpoint(p.Address, VXLANPort); err != nil {
		c.field("address").refuse("%v", err)
	}
	seen := make(map[string]bool, len(p.Networks))
	for i, n := range p.Networks {
		k := c.field("networks").index(i)
		k.reference(n, "network that the peer shares")
		if seen[n] {
			k.refuse("network %s is given twice", quote(n))
		}
		seen[n] = true
	}
}

// IsZero tells whether it asks for nothing.
func (m Mesh) IsZero() bool { return len(m.Join) == 0 }

// Validate says everything that is wrong with the mesh; nil, or an Errors whose
// paths are the fields.
func (m Mesh) Validate() error {
	c := newChecker()
	m.check(c)
	return c.errs.asError()
}

func (m Mesh) check(c checker) {
	c = c.field("join")
	if len(m.Join) > MaxJoin {
		c.refuse("%d members: at most %d", len(m.Join), MaxJoin)
		return
	}
	seen := make(map[netip.AddrPort]bool, len(m.Join))
	for i, s := range m.Join {
		at, err := ParseEndpoint(s, MeshPort)
		switch {
		case err != nil:
			c.index(i).refuse("%v", err)
		case seen[at]:
			c.index(i).refuse("%s is given twice", at)
		}
		seen[at] = true
	}
}

// checkPeers holds the peers against each other and against the networks.
func (c *Config) checkPeers(k checker, networks map[string]*Network) {
	byName := make(map[string]bool, len(c.Peers))
	byAddress := make(map[netip.Addr]string, len(c.Peers))
	for i := range c.Peers {
		p, k := &c.Peers[i], k.index(i)
		p.check(k)
		if p.Name != "" && byName[p.Name] {
			k.field("name").refuse("there is another peer %s", quote(p.Name))
			continue
		}
		byName[p.Name] = true
		if at := p.Endpoint(); at.IsValid() {
			// What comes is known by its address alone: senders choose their port
			// by the flow (RFC 7348 section 5).
			if owner, taken := byAddress[at.Addr()]; taken {
				k.field("address").refuse("%s is the address of peer %s", at.Addr(), quote(owner))
			}
			byAddress[at.Addr()] = p.Name
		}
		for j, n := range p.Networks {
			if n != "" && networks[n] == nil {
				k.field("networks").index(j).refuse("there is no network %s", quote(n))
			}
		}
	}
}
