package attach

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Stack is the spec of the interface by which the host's own stack and
// containers reach each other.
type Stack struct {
	MTU    int // In bytes of L3.
	Routes []StackRoute
}

// StackRoute leads the host to a network.
type StackRoute struct {
	Subnet netip.Prefix
	// Source is the host's address to its containers, one that it has.
	Source netip.Addr
	MTU    int // The network's.
}

// stackMetric makes every other route to the same subnet better: the host's own
// configuration wins, and so does a host port on the network.
const stackMetric = 1 << 24

// ConfigureStack makes an interface that Heddle has made, a TAP whose queues
// are open, what the spec says, and sets it up: without ARP, neighbour discovery
// and addresses of its own. It can be repeated: routes that are wanted no more
// go. It fails with ErrNoLink. A failure leaves what was done by then; the next
// one that doesn't fail makes all right.
func (ns *Namespace) ConfigureStack(name string, s Stack) error {
	err := ns.Do(func() error {
		link, err := byName(name)
		if err != nil {
			return err
		}
		if err := setUpStack(link, s.MTU); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if err := routeStack(link.Attrs().Index, s.Routes); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", ns, err)
	}
	return nil
}

func setUpStack(link netlink.Link, mtu int) error {
	a := link.Attrs()
	if a.RawFlags&unix.IFF_NOARP == 0 {
		if err := netlink.LinkSetARPOff(link); err != nil {
			return fmt.Errorf("set NOARP: %w", err)
		}
	}
	if a.MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU %d: %w", mtu, err)
		}
	}
	if a.Flags&net.FlagUp != 0 {
		return nil
	}
	// A kernel without IPv6 has no such mode, and needs none.
	if err := netlink.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); err != nil &&
		!errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("set no link-local address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// routeStack makes the routes by an interface those that are wanted.
func routeStack(index int, want []StackRoute) error {
	var have []netlink.Route
	for _, family := range families {
		all, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_MAIN, Protocol: Protocol},
				netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		have = append(have, all...)
	}
	var errs []error
	for _, r := range have {
		if !slices.ContainsFunc(want, func(w StackRoute) bool { return r.Dst != nil && w.Subnet.Masked().String() == r.Dst.String() }) {
			if err := gone(netlink.RouteDel(&r)); err != nil {
				errs = append(errs, fmt.Errorf("remove the route to %s: %w", r.Dst, err))
			}
		}
	}
	for _, w := range want {
		r := w.route(index)
		same := func(o netlink.Route) bool {
			return o.Dst != nil && o.Dst.String() == r.Dst.String() && o.Src.Equal(r.Src) && o.MTU == r.MTU
		}
		if slices.ContainsFunc(have, same) {
			continue
		}
		if err := netlink.RouteReplace(&r); err != nil {
			errs = append(errs, fmt.Errorf("add the route to %s from %s: %w", w.Subnet, w.Source, err))
		}
	}
	return errors.Join(errs...)
}

func (w *StackRoute) route(index int) netlink.Route {
	a := w.Subnet.Masked().Addr()
	return netlink.Route{
		LinkIndex: index,
		Dst:       &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(w.Subnet.Bits(), a.BitLen())},
		Src:       w.Source.AsSlice(),
		MTU:       w.MTU,
		Scope:     netlink.SCOPE_LINK,
		Protocol:  Protocol,
		Priority:  stackMetric,
		Table:     unix.RT_TABLE_MAIN,
	}
}
