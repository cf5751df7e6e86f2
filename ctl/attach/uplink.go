package attach

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// UplinkState is what an uplink needs to know of its interface at one moment.
type UplinkState struct {
	// Present tells whether there is an interface of the name; otherwise all
	// the rest is empty. A new one of the same name has another Index: what was
	// attached to the old one went with it.
	Present bool
	Index   int
	MAC     net.HardwareAddr
	MTU     int  // In bytes of L3.
	Up      bool // Frames pass: set up, with carrier.
	// Addresses are those that connections can be made from, in the kernel's
	// order: not the tentative, duplicate, deprecated and temporary ones of
	// IPv6 (RFC 4862, RFC 8981); link-local ones are here.
	Addresses []netip.Prefix
	// NextHops are those of the main table's best default route by the
	// interface, at most one of each family, IPv4's first.
	NextHops []NextHop
}

// NextHop is a router.
type NextHop struct {
	Addr netip.Addr
	// MAC is what the kernel knows of it, confirmed lately or not; nil while
	// it knows none or has found it dead.
	MAC net.HardwareAddr
}

func (s *UplinkState) equal(o *UplinkState) bool {
	return s.Present == o.Present && s.Index == o.Index && s.MTU == o.MTU && s.Up == o.Up &&
		bytes.Equal(s.MAC, o.MAC) && slices.Equal(s.Addresses, o.Addresses) &&
		slices.EqualFunc(s.NextHops, o.NextHops, func(a, b NextHop) bool { return a.Addr == b.Addr && bytes.Equal(a.MAC, b.MAC) })
}

// Uplink returns the state of an interface. That there is none of the name is
// a state, not an error.
func (ns *Namespace) Uplink(name string) (UplinkState, error) {
	s, err := in(ns, func() (UplinkState, error) { return uplinkState(name) })
	if err != nil {
		return s, fmt.Errorf("%s: interface %s: %w", ns, name, err)
	}
	return s, nil
}

func uplinkState(name string) (s UplinkState, err error) {
	nl, err := byName(name)
	if errors.Is(err, ErrNoLink) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	l := newLink(nl)
	s = UplinkState{Present: true, Index: l.Index, MAC: l.MAC, MTU: l.MTU, Up: l.Up && l.Running}
	all, err := addresses(l.Index)
	if err != nil {
		return s, err
	}
	for _, a := range all {
		if a.usable() {
			s.Addresses = append(s.Addresses, a.prefix)
		}
	}
	for _, family := range families {
		hop, err := nextHop(l.Index, family)
		if err != nil {
			return s, err
		}
		if hop.Addr.IsValid() {
			s.NextHops = append(s.NextHops, hop)
		}
	}
	return s, nil
}

// usable tells an address that connections can be made from, now and for long.
// IPv4 gives the bit of IFA_F_TEMPORARY another meaning, IFA_F_SECONDARY.
func (a *address) usable() bool {
	const never = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY
	return a.prefix.Addr().Is4() || a.flags&never == 0
}

// nextHop returns the zero NextHop if there is none.
func nextHop(index, family int) (hop NextHop, err error) {
	routes, err := defaultRoutes(family)
	if err != nil {
		return hop, err
	}
	best := -1
	for _, r := range routes {
		gateway := gatewayBy(&r, index)
		if gateway.IsValid() && (best < 0 || r.Priority < best) {
			best, hop.Addr = r.Priority, gateway
		}
	}
	if best < 0 {
		return hop, nil
	}
	known, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, family) })
	if err != nil {
		return hop, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range known {
		// Where the kernel tells no address, it has none to tell (NUD_VALID).
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == hop.Addr && len(n.HardwareAddr) == 6 && n.State&nudDead == 0 {
			hop.MAC = n.HardwareAddr
		}
	}
	return hop, nil
}

// nudDead are the states of a neighbour without an address.
const nudDead = unix.NUD_INCOMPLETE | unix.NUD_FAILED

// gatewayBy returns the gateway of a route by an interface, of the route's own
// family; the zero Addr if it has none.
func gatewayBy(r *netlink.Route, index int) netip.Addr {
	gateway := net.IP(nil)
	if r.LinkIndex == index {
		gateway = r.Gw
	}
	for _, hop := range r.MultiPath {
		if hop.LinkIndex == index && gateway == nil {
			gateway = hop.Gw
		}
	}
	a, _ := netip.AddrFromSlice(gateway)
	return a.Unmap()
}

// ask makes the kernel resolve next hops, as if it had a packet for them
// (NTF_USE): it believes what it confirmed lately, and asks the others.
func (s *UplinkState) ask() error {
	for _, hop := range s.NextHops {
		family := unix.AF_INET6
		if hop.Addr.Is4() {
			family = unix.AF_INET
		}
		req := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK)
		req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(s.Index), Flags: netlink.NTF_USE})
		req.AddData(nl.NewRtAttr(unix.NDA_DST, hop.Addr.AsSlice()))
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("resolve next hop %s: %w", hop.Addr, err)
		}
	}
	return nil
}
