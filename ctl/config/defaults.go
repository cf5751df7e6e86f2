package config

import "slices"

// What a spec's empty fields mean.
const (
	// DefaultMTU is Ethernet's, in bytes of L3.
	DefaultMTU = 1500
	// DefaultIfName is what containers call their first interface.
	DefaultIfName = "eth0"
	// DefaultKind is the kind of a port that names none.
	DefaultKind = KindTAP
)

// WithDefaults returns the network with its empty fields filled. VNI and
// MaxMACs stay as they are: their defaults are swd's to choose.
func (n Network) WithDefaults() Network {
	n.Subnets, n.Gateways = slices.Clone(n.Subnets), slices.Clone(n.Gateways)
	if n.MTU == 0 {
		n.MTU = DefaultMTU
	}
	if n.Ageing == 0 {
		n.Ageing = DefaultAgeing
	}
	return n
}

// WithDefaults returns the port with its empty fields filled. MAC stays as it
// is: swd chooses it.
func (p Port) WithDefaults() Port {
	p.IPs = slices.Clone(p.IPs)
	if p.Kind == "" {
		p.Kind = DefaultKind
	}
	if p.IfName == "" && p.Kind != KindPacket && p.InContainer() {
		p.IfName = DefaultIfName
	}
	return p
}

// WithDefaults returns the config with every spec's empty fields filled. What
// is exported and saved is the config without them, as the user wrote it.
func (c *Config) WithDefaults() *Config {
	d := &Config{
		Networks: slices.Clone(c.Networks),
		Ports:    slices.Clone(c.Ports),
		FDB:      slices.Clone(c.FDB),
		Uplinks:  slices.Clone(c.Uplinks),
		NAT:      slices.Clone(c.NAT),

		NATSettings: c.NATSettings.WithDefaults(),
		Peers:       slices.Clone(c.Peers),
		Mesh:        c.Mesh,
	}
	for i := range d.Networks {
		d.Networks[i] = d.Networks[i].WithDefaults()
	}
	for i := range d.Ports {
		d.Ports[i] = d.Ports[i].WithDefaults()
	}
	for i := range d.Uplinks {
		d.Uplinks[i] = d.Uplinks[i].WithDefaults()
	}
	for i := range d.NAT {
		d.NAT[i] = d.NAT[i].WithDefaults()
	}
	return d
}

// InContainer tells whether the port's interface is in another namespace than
// swd's own: a path, a process or a container says which. Anybody may call it.
func (p *Port) InContainer() bool { return p.NetNS != "" || p.PID != 0 || p.Container != "" }
