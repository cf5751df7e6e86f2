package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Protocol is the origin of the routes (rtm_protocol) and addresses
// (IFA_PROTO, from Linux 5.18) that Heddle sets: one that
// /etc/iproute2/rt_protos gives to nobody.
const Protocol = 72

// Interface is the spec of a container's interface: what Configure makes of
// one that exists.
type Interface struct {
	Name string
	MAC  net.HardwareAddr // Empty leaves it.
	MTU  int              // In bytes of L3; 0 leaves it.
	// Addresses with their prefix length. IPv6 ones are usable at once:
	// without duplicate address detection, which the switch makes pointless
	// before the port is attached to it.
	Addresses []netip.Prefix
	// DefaultRoutes are gateways, at most one of each family.
	DefaultRoutes []netip.Addr
}

// Configure gives the interface its address, MTU, addresses and default
// routes, sets it and lo up, and waits until frames pass: a TAP must have its
// queues open, and of a veth pair the other end must be up. ctx bounds the
// wait.
//
// It can be repeated: what is there is kept, and what an earlier Configure set
// that is wanted no more is removed; addresses and routes of others stay. It
// fails with ErrNoLink, with ErrDefaultRoute if the namespace has a default
// route of that family that isn't Heddle's, and with ErrNotUsable if the wait
// ended too early; everything is then as it was.
func (ns *Namespace) Configure(ctx context.Context, i Interface) error {
	err := ns.Do(func() (err error) {
		c := &configuration{want: i}
		defer func() {
			if err != nil {
				err = errors.Join(err, c.undo())
			}
		}()
		return c.apply(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s: interface %s: %w", ns, i.Name, err)
	}
	return nil
}

// configuration is one Configure under way. All of it runs inside the
// namespace.
type configuration struct {
	want  Interface
	link  netlink.Link
	undos []func() error
}

// did remembers how to put back what was just changed.
func (c *configuration) did(undo func() error) { c.undos = append(c.undos, undo) }

// undo puts everything back, the last change first. An interface that went
// away meanwhile took its changes along.
func (c *configuration) undo() error {
	var errs []error
	for _, undo := range slices.Backward(c.undos) {
		err := undo()
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("put back: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c *configuration) apply(ctx context.Context) error {
	link, err := netlink.LinkByName(c.want.Name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return ErrNoLink
	} else if err != nil {
		return fmt.Errorf("look up: %w", err)
	}
	c.link = link
	// What can be refused without a change comes first.
	stale, err := c.staleRoutes()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		c.setMAC,
		c.setMTU,
		c.enableIPv6,
		func() error { return c.setUp(c.link) },
		c.setLoopbackUp,
		func() error { return c.removeRoutes(stale) },
		c.setAddresses,
		c.addRoutes,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return c.await(ctx)
}

func (c *configuration) setMAC() error {
	before := c.link.Attrs().HardwareAddr
	if len(c.want.MAC) == 0 || bytes.Equal(before, c.want.MAC) {
		return nil
	}
	if err := netlink.LinkSetHardwareAddr(c.link, c.want.MAC); err != nil {
		return fmt.Errorf("set MAC %s: %w", c.want.MAC, err)
	}
	c.did(func() error { return netlink.LinkSetHardwareAddr(c.link, before) })
	return nil
}

func (c *configuration) setMTU() error {
	before := c.link.Attrs().MTU
	if c.want.MTU == 0 || before == c.want.MTU {
		return nil
	}
	if err := netlink.LinkSetMTU(c.link, c.want.MTU); err != nil {
		return fmt.Errorf("set MTU %d: %w", c.want.MTU, err)
	}
	c.did(func() error { return netlink.LinkSetMTU(c.link, before) })
	return nil
}

// enableIPv6 undoes what container engines do to namespaces that they give no
// IPv6 address; without an IPv6 address to set, it leaves it so.
func (c *configuration) enableIPv6() error {
	if !c.wantsIPv6() {
		return nil
	}
	path := sysctlIPv6(c.want.Name)
	before, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("an IPv6 address is asked for, but the interface can have none (the kernel has no IPv6, or its MTU is under 1280)")
	} else if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if strings.TrimSpace(string(before)) == "0" {
		return nil
	}
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		return fmt.Errorf("switch IPv6 on: %w", err)
	}
	c.did(func() error { return os.WriteFile(path, before, 0) }) //nolint:gosec // G703: the name is that of an interface that exists, so it has no slash.
	return nil
}

func (c *configuration) wantsIPv6() bool {
	for _, a := range c.want.Addresses {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

func (c *configuration) setLoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: look up: %w", err)
	}
	index := lo.Attrs().Index
	before, err := addresses(index)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		// The kernel gives it 127.0.0.1 when it comes up, and leaves it that
		// when it goes down.
		c.did(func() error {
			after, err := addresses(index)
			for _, a := range after {
				err = errors.Join(err, gone(delAddress(index, a)))
			}
			return err
		})
	}
	return c.setUp(lo)
}

func (c *configuration) setUp(link netlink.Link) error {
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", link.Attrs().Name, err)
	}
	c.did(func() error { return netlink.LinkSetDown(link) })
	return nil
}

// await returns when the interface passes frames.
func (c *configuration) await(ctx context.Context) error {
	events, err := subscribe([]option{{unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK}})
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }() // Only read from.
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer stop()
	buf := make([]byte, receiveSize)
	for {
		// The kernel reports up to a second late that a carrier came, so the
		// state is asked for after each message, whatever it says.
		now, err := netlink.LinkByIndex(c.link.Attrs().Index)
		if err != nil {
			return fmt.Errorf("it went away: %w", err)
		}
		a := now.Attrs()
		if a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_RUNNING != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0 {
			return nil
		}
		_, err = events.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return fmt.Errorf("it has no carrier (nothing holds its other end): %w: %w", ErrNotUsable, context.Cause(ctx))
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("wait for it to come up: %w", err)
		}
	}
}
