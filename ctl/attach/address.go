package attach

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// address is one of an interface's.
type address struct {
	prefix netip.Prefix
	ours   bool   // Its origin is Protocol. Never true before Linux 5.18.
	flags  uint32 // IFA_F_*.
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
		a := address{flags: uint32(msg.Flags)}
		var ip netip.Addr
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_LOCAL: // The own address where both are there.
				ip, _ = netip.AddrFromSlice(attr.Value)
			case unix.IFA_ADDRESS:
				if !ip.IsValid() {
					ip, _ = netip.AddrFromSlice(attr.Value)
				}
			case unix.IFA_FLAGS: // All of them; the header has room for 8.
				if len(attr.Value) == 4 {
					a.flags = nl.NativeEndian().Uint32(attr.Value)
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
	msg.Index = uint32(index)
	msg.Prefixlen = uint8(a.prefix.Bits())
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

// setAddresses adds what is wanted and then removes what is stale: an interface
// that loses its last IPv4 address loses its routes too.
func (c *configuration) setAddresses() error {
	before, err := addresses(c.link.Attrs().Index)
	if err != nil {
		return err
	}
	var keep, stale []address
	for _, a := range before {
		if a.ours && !slices.Contains(c.want.Addresses, a.prefix) {
			stale = append(stale, a)
		} else {
			keep = append(keep, a)
		}
	}
	// IPv6 has an address once only, whatever the prefix length.
	first := func(a address) bool {
		return a.prefix.Addr().Is6() && slices.ContainsFunc(c.want.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.prefix.Addr() })
	}
	for _, a := range stale {
		if first(a) {
			if err := c.dropAddress(a); err != nil {
				return err
			}
		}
	}
	for _, p := range c.want.Addresses {
		if slices.ContainsFunc(keep, func(a address) bool { return a.prefix == p }) {
			continue
		}
		a := address{prefix: p, ours: true}
		if err := c.addAddress(a); err != nil {
			return err
		}
		keep = append(keep, a)
	}
	for _, a := range stale {
		if !first(a) {
			if err := c.dropAddress(a); err != nil {
				return err
			}
		}
	}
	return c.restoreAddresses(keep)
}

// restoreAddresses adds those that are missing: an IPv4 address takes others of
// its subnet along when it goes (promote_secondaries is off).
func (c *configuration) restoreAddresses(keep []address) error {
	index := c.link.Attrs().Index
	have, err := addresses(index)
	if err != nil {
		return err
	}
	for _, a := range keep {
		if slices.ContainsFunc(have, func(b address) bool { return a.prefix == b.prefix }) {
			continue
		}
		if err := existing(addAddress(index, a)); err != nil {
			return fmt.Errorf("restore address %s: %w", a.prefix, err)
		}
	}
	return nil
}

func (c *configuration) addAddress(a address) error {
	index := c.link.Attrs().Index
	if err := addAddress(index, a); err != nil {
		return fmt.Errorf("add address %s: %w", a.prefix, err)
	}
	c.did(func() error { return gone(delAddress(index, a)) })
	return nil
}

func (c *configuration) dropAddress(a address) error {
	index := c.link.Attrs().Index
	if err := gone(delAddress(index, a)); err != nil {
		return fmt.Errorf("remove stale address %s: %w", a.prefix, err)
	}
	c.did(func() error { return existing(addAddress(index, a)) })
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
