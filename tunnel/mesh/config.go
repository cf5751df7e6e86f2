package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"

	"github.com/hashicorp/memberlist"

	"heddle/dataplane/wire"
)

// DefaultPort is the UDP and TCP port of the gossip where an address names
// none.
const DefaultPort = 7946

// Bounds. What goes beyond is refused and counted in Stats.Refused.
const (
	MaxMembers     = 1024    // Members that are known, failed ones included; the one that failed first makes room.
	MaxEndpoints   = 65536   // Endpoints that one member announces.
	MaxTable       = 1 << 20 // Endpoints of all other members that are kept.
	MaxNetworks    = 4096    // Networks that one member announces.
	MaxEndpointIPs = 8       // Addresses of one endpoint.
	MaxKeys        = 2       // Keys at one time: the old and the new one, while they change.
	MaxName        = 63      // Bytes of a member's or a network's name.
	MaxVNI         = 1<<24 - 1
)

// Config is what a Mesh is made from.
type Config struct {
	// Name is this host's, unique in the mesh: 1 to MaxName of a-z, 0-9, '_',
	// '.' and '-', beginning with a letter or digit.
	Name string

	// Bind is where gossip is received, by UDP and TCP. Port 0 lets the kernel
	// choose one. Not used with a Transport.
	Bind netip.AddrPort

	// Advertise is where the other members reach this one; the zero value
	// stands for Bind. Needed if Bind's address is unspecified. Port 0 stands
	// for the port that is bound.
	Advertise netip.AddrPort

	// VTEP is where this host receives VXLAN: what the others send frames to.
	VTEP netip.AddrPort

	// Keys are 16, 24 or 32 bytes each (AES-128, -192, -256 in GCM); the first
	// one encrypts, all decrypt. None means that gossip is neither encrypted
	// nor authenticated.
	Keys [][]byte

	// Known are addresses (HOST[:PORT]) at which members were once. They are
	// tried in the background, from the start and for as long as no member is
	// there.
	Known []string

	// Transport replaces the sockets; for tests. The mesh shuts it down.
	Transport memberlist.Transport

	// Log takes what is worth a line; may be nil. Called from any goroutine.
	Log func(level slog.Level, message string)

	// Handler is told of changes; may be nil.
	Handler Handler
}

// Handler is told what changes in the mesh, this host excepted. The calls come
// from one goroutine. They tell the state at the time of the call: changes that
// undo each other while a call is under way are not told. A member is up
// before any endpoint of its is told, and its endpoints are gone before it is
// down.
type Handler interface {
	// MemberUp tells that a member has come, or come back.
	MemberUp(m Member)
	// MemberChanged tells that a member has another address, VTEP or other
	// networks.
	MemberChanged(m Member)
	// MemberDown tells that a member has failed or left; m.State says which.
	MemberDown(m Member)

	// EndpointAdded tells that an endpoint has come up behind a member, its
	// Owner.
	EndpointAdded(e Endpoint)
	// EndpointChanged tells that an endpoint has another owner or other IPs.
	// Either owner may be this host: one that this host announced and that has
	// moved away is no longer announced by it.
	EndpointChanged(old, e Endpoint)
	// EndpointRemoved tells that an endpoint is nowhere any more.
	EndpointRemoved(e Endpoint)

	// NameTaken tells that another live host has this host's name (err is an
	// ErrNameTaken). The mesh has been left; Close it.
	NameTaken(err error)
}

// Network is a network that a member has: an L2 segment and its VNI.
type Network struct {
	Name string
	VNI  uint32
}

// Endpoint is a MAC address in a network, and the IP addresses that it answers
// ARP and neighbour discovery for.
type Endpoint struct {
	VNI      uint32 // 1 to MaxVNI.
	MAC      wire.MAC
	IPs      []netip.Addr // At most MaxEndpointIPs; without zones.
	Owner    string       // The member that it is behind; not read by Announce.
	Mobility uint32       // How often it has moved (RFC 7432 section 7.7); not read by Announce.
}

// ErrNameTaken is the error, wrapped with the address of the other host, when
// a live member has this host's name already.
var ErrNameTaken = errors.New("the name is taken")

// ErrClosed is returned by methods of a Mesh that was left or closed.
var ErrClosed = errors.New("the mesh has been left")

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)

// check says what is wrong with the configuration.
func (c *Config) check() error {
	if !nameRE.MatchString(c.Name) {
		return fmt.Errorf("%q is no name of a host: want 1 to %d of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit", c.Name, MaxName)
	}
	if !c.VTEP.IsValid() || c.VTEP.Addr().IsUnspecified() || c.VTEP.Port() == 0 {
		return fmt.Errorf("%s is no VTEP that others can send to: give an address of this host and a port", c.VTEP)
	}
	if c.Transport == nil {
		if !c.Bind.IsValid() {
			return errors.New("no address to listen at: give one, as 0.0.0.0:7946")
		}
		adv := c.Advertise.Addr()
		if !adv.IsValid() {
			adv = c.Bind.Addr()
		}
		if adv.IsUnspecified() {
			return fmt.Errorf("%s is no address that other hosts can reach: say which of this host's addresses to advertise", adv)
		}
	}
	if len(c.Keys) > MaxKeys {
		return fmt.Errorf("%d keys: at most %d can be live at one time", len(c.Keys), MaxKeys)
	}
	for _, k := range c.Keys {
		if err := checkKey(k); err != nil {
			return err
		}
	}
	return nil
}

// check says what is wrong with an endpoint that is to be announced.
func (e Endpoint) check() error {
	switch {
	case e.VNI == 0 || e.VNI > MaxVNI:
		return fmt.Errorf("announce %s: VNI %d is not in 1 to %d", e.MAC, e.VNI, MaxVNI)
	case e.MAC.IsZero() || e.MAC.IsMulticast() || e.MAC > wire.Broadcast:
		return fmt.Errorf("announce %s: no station has this address", e.MAC)
	case len(e.IPs) > MaxEndpointIPs:
		return fmt.Errorf("announce %s: %d IP addresses, at most %d are told", e.MAC, len(e.IPs), MaxEndpointIPs)
	}
	for _, ip := range e.IPs {
		if !ip.IsValid() || ip.IsMulticast() || ip.IsUnspecified() || ip.Zone() != "" {
			return fmt.Errorf("announce %s: %q is no address of a station", e.MAC, ip)
		}
	}
	return nil
}
