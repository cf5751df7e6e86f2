package attach

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// address is one of an interface's.
type address struct {
	prefix netip.Prefix
	ours   bool // Its origin is Protocol. Never true before Linux 5.18.
}

// addresses lists those of an interface of the thread's namespace.
func addresses(index int) ([]address, error) {
	raw, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []address
	for _, m := range raw {
		msg := nl.DeserializeIfAddrmsg(m)
		if int(msg.Index) != index {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		var a address
		var ip netip.Addr
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_LOCAL: // The own address where both are there.
				ip, _ = netip.AddrFromSlice(attr.Value)
			case unix.IFA_ADDRESS:
				if !ip.IsValid() {
					ip, _ = netip.AddrFromSlice(attr.Value)
				}
			case ifaProto:
				a.ours = len(attr.Value) == 1 && attr.Value[0] == Protocol
			}
		}
		a.prefix = netip.PrefixFrom(ip, int(msg.Prefixlen))
		all = append(all, a)
	}
	return all, nil
}

// changeAddress adds (RTM_NEWADDR) or deletes (RTM_DELADDR) one.
func changeAddress(command, flags, index int, a address) error {
	family := unix.AF_INET6
	if a.prefix.Addr().Is4() {
		family = unix.AF_INET
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index = uint32(index)              //nolint:gosec // Interface numbers are positive.
	msg.Prefixlen = uint8(a.prefix.Bits()) //nolint:gosec // 0 to 128.
	req := nl.NewNetlinkRequest(command, flags|unix.NLM_F_ACK)
	req.AddData(msg)
	ip := a.prefix.Addr().AsSlice()
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	if family == unix.AF_INET6 {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if a.prefix.Bits() < 31 { // RFC 3021: longer prefixes have no broadcast address.
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(a.prefix)))
	}
	if a.ours {
		req.AddData(nl.NewRtAttr(ifaProto, []byte{Protocol}))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) []byte {
	ip := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		ip[bit/8] |= 0x80 >> (bit % 8)
	}
	return ip[:]
}

func addAddress(index int, a address) error {
	return changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, a)
}

func delAddress(index int, a address) error {
	return changeAddress(unix.RTM_DELADDR, 0, index, a)
}

func (c *configuration) setAddresses() error {
	index := c.link.Attrs().Index
	have, err := addresses(index)
	if err != nil {
		return err
	}
	for _, a := range have {
		if !a.ours || slices.Contains(c.want.Addresses, a.prefix) {
			continue
		}
		if err := delAddress(index, a); err != nil {
			return fmt.Errorf("remove stale address %s: %w", a.prefix, err)
		}
		c.did(func() error { return existing(addAddress(index, a)) })
	}
	// Removing an IPv4 address takes others of its subnet along
	// (promote_secondaries is off), so what is left is asked for again.
	left, err := addresses(index)
	if err != nil {
		return err
	}
	has := func(all []address, p netip.Prefix) bool {
		return slices.ContainsFunc(all, func(a address) bool { return a.prefix == p })
	}
	for _, a := range have {
		// Those of others that went along are put back, like the wanted ones.
		if !a.ours && !has(left, a.prefix) {
			if err := existing(addAddress(index, a)); err != nil {
				return fmt.Errorf("restore address %s: %w", a.prefix, err)
			}
		}
	}
	for _, p := range c.want.Addresses {
		if has(left, p) {
			continue
		}
		a := address{prefix: p, ours: true}
		if err := addAddress(index, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
		if !has(have, p) {
			c.did(func() error { return delAddress(index, a) })
		}
	}
	return nil
}

// existing makes of "it is there already" a success.
func existing(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// gone makes of "it isn't there" a success.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// defaultRoutes lists the main table's of a family.
func defaultRoutes(family int) ([]netlink.Route, error) {
	all, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return slices.DeleteFunc(all, func(r netlink.Route) bool {
		ones := 0
		if r.Dst != nil {
			ones, _ = r.Dst.Mask.Size()
		}
		return ones > 0 || r.Type != unix.RTN_UNICAST
	}), nil
}

// routePlan is what setRoutes does.
type routePlan struct{ remove, add []netlink.Route }

// planRoutes finds out what is to be done, and whether another's default route
// is in the way.
func (c *configuration) planRoutes() (p routePlan, err error) {
	index := c.link.Attrs().Index
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		want := slices.IndexFunc(c.want.DefaultRoutes, func(a netip.Addr) bool { return a.Is4() == (family == unix.AF_INET) })
		have, err := defaultRoutes(family)
		if err != nil {
			return p, err
		}
		there := false
		for _, r := range have {
			ours := r.Protocol == Protocol && r.LinkIndex == index
			switch {
			case ours && want >= 0 && r.Gw.Equal(c.want.DefaultRoutes[want].AsSlice()):
				there = true
			case ours:
				p.remove = append(p.remove, r)
			case want >= 0:
				return p, fmt.Errorf("%w via %s (add the port without a default route, or remove that one)", ErrDefaultRoute, describe(r))
			}
		}
		if want >= 0 && !there {
			p.add = append(p.add, c.route(c.want.DefaultRoutes[want]))
		}
	}
	return p, nil
}

func describe(r netlink.Route) string {
	device := fmt.Sprintf("interface number %d", r.LinkIndex)
	if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
		device = link.Attrs().Name
	}
	if len(r.Gw) == 0 {
		return device
	}
	return r.Gw.String() + " dev " + device
}

func (c *configuration) route(gateway netip.Addr) netlink.Route {
	r := netlink.Route{
		LinkIndex: c.link.Attrs().Index,
		Gw:        gateway.AsSlice(),
		Protocol:  Protocol,
		Table:     unix.RT_TABLE_MAIN,
	}
	covered := slices.ContainsFunc(c.want.Addresses, func(p netip.Prefix) bool { return p.Contains(gateway) })
	if !covered {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	return r
}

func (c *configuration) setRoutes(p routePlan) error {
	for _, r := range p.remove {
		// It may have gone along with its address.
		if err := gone(netlink.RouteDel(&r)); err != nil {
			return fmt.Errorf("remove stale default route via %s: %w", r.Gw, err)
		}
		c.did(func() error { return existing(netlink.RouteAdd(&r)) })
	}
	for _, r := range p.add {
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("add default route via %s: %w", r.Gw, err)
		}
		c.did(func() error { return gone(netlink.RouteDel(&r)) })
	}
	return nil
}
