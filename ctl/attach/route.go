package attach

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

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

// families are walked in this order.
var families = []int{unix.AF_INET, unix.AF_INET6}

// gateway returns the wanted default route of a family; the zero Addr if none.
func (c *configuration) gateway(family int) netip.Addr {
	for _, a := range c.want.DefaultRoutes {
		if a.Is4() == (family == unix.AF_INET) {
			return a
		}
	}
	return netip.Addr{}
}

// ours tells whether an earlier Configure of the interface made the route.
func (c *configuration) ours(r netlink.Route) bool {
	return r.Protocol == Protocol && r.LinkIndex == c.link.Attrs().Index
}

// staleRoutes returns the default routes that are to go. It fails if another's
// is in the way of a wanted one.
func (c *configuration) staleRoutes() (stale []netlink.Route, err error) {
	for _, family := range families {
		have, err := defaultRoutes(family)
		if err != nil {
			return nil, err
		}
		want := c.gateway(family)
		for _, r := range have {
			switch {
			case c.ours(r) && !r.Gw.Equal(want.AsSlice()):
				stale = append(stale, r)
			case !c.ours(r) && want.IsValid():
				return nil, fmt.Errorf("%w via %s (add the port without a default route, or remove that one)", ErrDefaultRoute, describe(r))
			}
		}
	}
	return stale, nil
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

// removeRoutes goes before the addresses change, so that undoing, which goes
// backwards, finds the address that a gateway is reached by.
func (c *configuration) removeRoutes(stale []netlink.Route) error {
	for _, r := range stale {
		if err := gone(netlink.RouteDel(&r)); err != nil {
			return fmt.Errorf("remove stale default route via %s: %w", r.Gw, err)
		}
		c.did(func() error { return existing(netlink.RouteAdd(&r)) })
	}
	return nil
}

func (c *configuration) addRoutes() error {
	for _, family := range families {
		gateway := c.gateway(family)
		if !gateway.IsValid() {
			continue
		}
		have, err := defaultRoutes(family)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(have, c.ours) {
			continue // The stale ones are gone, so it is the wanted one.
		}
		r := c.route(gateway)
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("add default route via %s: %w", gateway, err)
		}
		c.did(func() error { return gone(netlink.RouteDel(&r)) })
	}
	return nil
}
