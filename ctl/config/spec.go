package config

import "net/netip"

// Config is everything a user has asked for.
type Config struct {
	Networks []Network `json:"networks,omitempty" yaml:"networks,omitempty"`
	Ports    []Port    `json:"ports,omitempty"    yaml:"ports,omitempty"`
	// FDB holds the static entries.
	FDB     []Static `json:"fdb,omitempty"     yaml:"fdb,omitempty"`
	Uplinks []Uplink `json:"uplinks,omitempty" yaml:"uplinks,omitempty"`
	NAT     []NAT    `json:"nat,omitempty"     yaml:"nat,omitempty"`
	// NATSettings holds for all NAT; without any field it asks for nothing.
	NATSettings NATSettings `json:"nat_settings,omitzero" yaml:"nat_settings,omitempty"`
	// Peers are the static ones; those of the mesh are found.
	Peers []Peer `json:"peers,omitempty" yaml:"peers,omitempty"`
	Mesh  Mesh   `json:"mesh,omitzero"   yaml:"mesh,omitempty"`
}

// Network is one broadcast domain.
type Network struct {
	Name string `json:"name" yaml:"name"`
	// VNI is the VXLAN network identifier, 1 to 2^24-1; 0 lets swd choose.
	VNI uint32 `json:"vni,omitempty" yaml:"vni,omitempty"`
	// Subnets are what `--ip auto` takes addresses from; a network needs none.
	Subnets []netip.Prefix `json:"subnets,omitempty" yaml:"subnets,omitempty"`
	// Gateways are the default routes of the containers, at most one of each
	// family, each inside a subnet.
	Gateways []netip.Addr `json:"gateways,omitempty" yaml:"gateways,omitempty"`
	// MTU is the longest L3 packet in bytes, 68 to 65521 (1280 up with an
	// IPv6 subnet); 0 means DefaultMTU.
	MTU int `json:"mtu,omitempty" yaml:"mtu,omitempty"`
	// Ageing is how long a silent MAC stays known, 1 s to 1,000,000 s; 0 means
	// DefaultAgeing.
	Ageing Duration `json:"ageing,omitzero" yaml:"ageing,omitempty"`
	// MaxMACs bounds the network's FDB entries; 0 means the daemon's bound.
	MaxMACs int `json:"max_macs,omitempty" yaml:"max_macs,omitempty"`
	// Isolated ports reach the gateway only, not each other.
	Isolated bool `json:"isolated,omitempty" yaml:"isolated,omitempty"`
}

// The kinds of port.
const (
	KindTAP    = "tap"
	KindVeth   = "veth"
	KindPacket = "packet"
)

// Port is one interface on a network. A tap or veth port lives in the
// namespace that one of NetNS, PID and Container names; a tap port without any
// lives in swd's own.
type Port struct {
	Name    string `json:"name"           yaml:"name"`
	Network string `json:"network"        yaml:"network"`
	Kind    string `json:"kind,omitempty" yaml:"kind,omitempty"` // Empty means KindTAP.

	NetNS     string `json:"netns,omitempty"     yaml:"netns,omitempty"`     // A path, as /run/netns/NAME.
	PID       int    `json:"pid,omitempty"       yaml:"pid,omitempty"`       // A process in the namespace.
	Container string `json:"container,omitempty" yaml:"container,omitempty"` // A Docker or podman name or id.

	// IfName is the interface made by a tap or veth port; empty means
	// DefaultIfName inside a container.
	IfName string `json:"ifname,omitempty" yaml:"ifname,omitempty"`
	// Interface is the existing interface of a packet port.
	Interface string `json:"interface,omitempty" yaml:"interface,omitempty"`

	// IPs are addresses with prefix length; AutoIP among them, at most once,
	// stands for a free one of each of the network's families.
	IPs          []string `json:"ips,omitempty"           yaml:"ips,omitempty"`
	MAC          string   `json:"mac,omitempty"           yaml:"mac,omitempty"` // Empty lets swd choose, stable over restarts.
	DefaultRoute bool     `json:"default_route,omitempty" yaml:"default_route,omitempty"`
}

// Static is an FDB entry that neither ages nor moves.
type Static struct {
	MAC     string `json:"mac"     yaml:"mac"`
	Network string `json:"network" yaml:"network"`
	Port    string `json:"port"    yaml:"port"`
}
