package config

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"
)

// The modes of an uplink.
const (
	ModeShared = "shared"
	ModeOwn    = "own"
)

// Uplink is a way out of the host by an interface in swd's namespace.
//
// A shared one uses the interface's MAC and addresses with the host: Ports and
// what is published are swd's, everything else stays the host's. An own one has
// a MAC and addresses of its own on the wire.
type Uplink struct {
	Name      string `json:"name"           yaml:"name"`
	Interface string `json:"interface"      yaml:"interface"`
	Mode      string `json:"mode,omitempty" yaml:"mode,omitempty"` // Empty means ModeShared.
	// Addresses are what containers are translated to, with prefix length: a
	// pool. An own uplink needs one. A shared one uses those of its interface
	// that are named here, or by default all but link-local ones.
	Addresses []string `json:"addresses,omitempty" yaml:"addresses,omitempty"`
	// NextHops lead to what is in no subnet, at most one of each family. A
	// shared uplink follows the interface's default routes by default.
	NextHops []netip.Addr `json:"next_hops,omitempty" yaml:"next_hops,omitempty"`
	// Ports is the range A-B that connections from inside are given, within
	// MinMappedPort to 65535; empty means DefaultSharedPorts or
	// DefaultOwnPorts.
	Ports string `json:"ports,omitempty" yaml:"ports,omitempty"`
	// MAC is an own uplink's; empty lets swd choose, stable over restarts.
	MAC string `json:"mac,omitempty" yaml:"mac,omitempty"`
}

// The types of NAT.
const (
	TypeMasquerade = "masquerade"
	TypePublish    = "publish"
)

// The behaviours of mapping and filtering (RFC 4787 sections 4.1 and 5).
const (
	EndpointIndependent     = "endpoint-independent"
	AddressAndPortDependent = "address-and-port-dependent"
)

// What a masquerade does with IPv6.
const (
	IPv6Translate = "translate" // As with IPv4 (NAT66).
	IPv6Route     = "route"     // Passes as it is, both ways, without connections.
)

// NAT is a masquerade or a publication. A masquerade lets a network's
// containers reach an uplink; a network has at most one. A publication leads
// what comes to ports of an uplink to a container.
type NAT struct {
	Type   string `json:"type"   yaml:"type"`
	Uplink string `json:"uplink" yaml:"uplink"`

	// These are a masquerade's.

	Network string `json:"network,omitempty" yaml:"network,omitempty"`
	// Mapping is empty for EndpointIndependent. AddressAndPortDependent lets
	// containers share ports towards different destinations.
	Mapping string `json:"mapping,omitempty" yaml:"mapping,omitempty"`
	// Filtering is empty for AddressAndPortDependent. EndpointIndependent lets
	// anybody reach a mapped endpoint; it needs that mapping, too.
	Filtering string `json:"filtering,omitempty" yaml:"filtering,omitempty"`
	IPv6      string `json:"ipv6,omitempty"      yaml:"ipv6,omitempty"` // Empty means IPv6Translate.

	// These are a publication's, as ParseListen and ParseTarget read them.

	Listen string `json:"listen,omitempty" yaml:"listen,omitempty"`
	To     string `json:"to,omitempty"     yaml:"to,omitempty"`
}

// idBytes makes ids as long as Docker's short ones.
const idBytes = 6

// ID returns what the NAT is called by: 12 hexadecimal digits that follow from
// what makes it the one it is, a masquerade's network or a publication's uplink
// and listen. It stays the same over restarts and when anything else changes.
func (n NAT) ID() string {
	key := n.Type + " " + n.Network
	if n.Type == TypePublish {
		key = n.Type + " " + n.Uplink + " " + canonicalListen(n.Listen)
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:idBytes])
}

// NATSettings are lifetimes and limits of connections, for all uplinks. An
// empty field means the default.
type NATSettings struct {
	// These are how long a connection lives after the last packet from inside,
	// MinLifetime to MaxLifetime. SCTP has TCP's.

	TCPEstablished Duration `json:"tcp_established,omitzero" yaml:"tcp_established,omitempty"`
	TCPTransitory  Duration `json:"tcp_transitory,omitzero"  yaml:"tcp_transitory,omitempty"` // Opening or closing.
	TCPReset       Duration `json:"tcp_reset,omitzero"       yaml:"tcp_reset,omitempty"`      // After a RST in the window.
	UDP            Duration `json:"udp,omitzero"             yaml:"udp,omitempty"`
	UDPOneWay      Duration `json:"udp_one_way,omitzero"     yaml:"udp_one_way,omitempty"` // Nobody has answered yet.
	ICMP           Duration `json:"icmp,omitzero"            yaml:"icmp,omitempty"`        // Queries.

	// These are what one container's address may hold; 0 means three quarters
	// of what the others leave.

	MaxContainerConns int `json:"max_container_conns,omitempty" yaml:"max_container_conns,omitempty"` // At most MaxConns.
	MaxContainerPorts int `json:"max_container_ports,omitempty" yaml:"max_container_ports,omitempty"` // At most MaxContainerPorts.
}

// What an uplink's and NATSettings' empty fields mean.
const (
	DefaultMode = ModeShared
	// DefaultSharedPorts begins above the ports that Linux gives its own
	// connections (net.ipv4.ip_local_port_range).
	DefaultSharedPorts = "61000-65535"
	DefaultOwnPorts    = "1024-65535"

	DefaultTCPEstablished = Duration(7440 * time.Second) // RFC 5382 REQ-5.
	DefaultTCPTransitory  = Duration(240 * time.Second)  // RFC 5382 REQ-5.
	DefaultTCPReset       = Duration(10 * time.Second)
	DefaultUDP            = Duration(300 * time.Second) // RFC 4787 REQ-5.
	DefaultUDPOneWay      = Duration(30 * time.Second)
	DefaultICMP           = Duration(60 * time.Second) // RFC 5508 REQ-2.
	// DefaultConns is how many connections swd holds unless it is told
	// otherwise when it starts.
	DefaultConns = 1_000_000
)

// WithDefaults returns the uplink with its empty fields filled. MAC, and the
// Addresses and NextHops of a shared one, stay as they are: they are swd's to
// choose or the interface's.
func (u Uplink) WithDefaults() Uplink {
	u.Addresses, u.NextHops = slices.Clone(u.Addresses), slices.Clone(u.NextHops)
	if u.Mode == "" {
		u.Mode = DefaultMode
	}
	if r, err := ParsePortRange(u.Ports); err == nil {
		u.Ports = r.String()
	}
	if u.Ports == "" {
		u.Ports = DefaultSharedPorts
		if u.Mode == ModeOwn {
			u.Ports = DefaultOwnPorts
		}
	}
	return u
}

// WithDefaults returns the NAT with its empty fields filled, and Listen and To
// as their String writes them, so that two that ask for the same are equal.
func (n NAT) WithDefaults() NAT {
	if n.Type != TypeMasquerade {
		n.Listen = canonicalListen(n.Listen)
		if t, err := ParseTarget(n.To); err == nil {
			n.To = t.String()
		}
		return n
	}
	if n.Mapping == "" {
		n.Mapping = EndpointIndependent
	}
	if n.Filtering == "" {
		n.Filtering = AddressAndPortDependent
	}
	if n.IPv6 == "" {
		n.IPv6 = IPv6Translate
	}
	return n
}

// WithDefaults returns the settings with their empty lifetimes filled. The
// limits stay as they are: what others leave is known only while swd runs.
func (s NATSettings) WithDefaults() NATSettings {
	for _, l := range s.lifetimes() {
		if *l.value == 0 {
			*l.value = l.standard
		}
	}
	return s
}

// lifetime is a field of NATSettings.
type lifetime struct {
	name     string
	value    *Duration
	standard Duration
}

func (s *NATSettings) lifetimes() []lifetime {
	return []lifetime{
		{"tcp_established", &s.TCPEstablished, DefaultTCPEstablished},
		{"tcp_transitory", &s.TCPTransitory, DefaultTCPTransitory},
		{"tcp_reset", &s.TCPReset, DefaultTCPReset},
		{"udp", &s.UDP, DefaultUDP},
		{"udp_one_way", &s.UDPOneWay, DefaultUDPOneWay},
		{"icmp", &s.ICMP, DefaultICMP},
	}
}
