package attach

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Veth is the spec of a veth port's pair.
type Veth struct {
	Port string // The port's name; it goes into the alias of both ends.

	Container *Namespace
	Inner     string           // The name of the container's end.
	MAC       net.HardwareAddr // Of the container's end; empty lets the kernel choose.

	Host  *Namespace
	Outer string // The name of the host's end: HostName(Port).

	MTU int // Of both ends, in bytes of L3; 0 means 1500.
}

// halfMade is the group of a host's end that has no alias yet. It is set by
// the same message that makes the pair, so that what a swd leaves that is
// killed in between can be recognised.
const halfMade = 0x68656464

// CreateVeth makes the pair, or takes over the one that a swd before this one
// left, as adopted tells. The container's end is made inside its namespace and
// left down and without addresses: Configure does the rest. The host's end is
// up, answers no ARP, has no address and no IPv6. Offloads that AF_PACKET
// can't express are off on both. It fails with ErrLinkExists if the
// container's namespace has an interface of that name, and with ErrTaken if
// the host's end exists and isn't the port's, or is that of a running swd: one
// that Silence keeps the host's stack off. Before Linux 6.6 a running swd
// can't be told from one that was killed.
func CreateVeth(v Veth) (adopted bool, err error) {
	if v.MTU == 0 {
		v.MTU = 1500
	}
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("veth pair %s in %s, %s in %s: %w", v.Outer, v.Host, v.Inner, v.Container, err)
	}
	adopted, err = v.adopt()
	if err != nil {
		return fail(err)
	}
	if !adopted {
		if err := v.make(); err != nil {
			return fail(err)
		}
	}
	if err := v.settle(); err != nil {
		if !adopted {
			err = errors.Join(err, v.Host.Delete(v.Outer, v.Port))
		}
		return fail(err)
	}
	return adopted, nil
}

// adopt takes the pair over if it is there, and removes what is the port's and
// isn't a pair.
func (v *Veth) adopt() (bool, error) {
	inner, err := in(v.Container, func() (netlink.Link, error) { return byName(v.Inner) })
	if err != nil && !errors.Is(err, ErrNoLink) {
		return false, err
	}
	adopted := false
	err = v.Host.Do(func() error {
		outer, err := byName(v.Outer)
		if errors.Is(err, ErrNoLink) {
			return nil
		} else if err != nil {
			return err
		}
		a := outer.Attrs()
		ours := a.Alias == aliasPrefix+v.Port || a.Alias == "" && a.Group == halfMade
		if outer.Type() != "veth" || !ours {
			return fmt.Errorf("%s: not made for port %s (name the port otherwise): %w", v.Outer, v.Port, ErrTaken)
		}
		if why := held(outer); why != "" {
			return fmt.Errorf("%s: %s (name the port otherwise, or remove the port of that name there): %w", v.Outer, why, ErrTaken)
		}
		if a.Alias != "" && inner != nil && inner.Type() == "veth" && inner.Attrs().Alias == a.Alias &&
			inner.Attrs().Index == a.ParentIndex && inner.Attrs().ParentIndex == a.Index {
			adopted = true
			return nil
		}
		return remove(outer)
	})
	if err != nil || adopted {
		return adopted, err
	}
	// The other end may have been the one that was removed.
	_, err = v.Container.Link(v.Inner)
	switch {
	case err == nil:
		return false, fmt.Errorf("%s has a %s: %w", v.Container, v.Inner, ErrLinkExists)
	case !errors.Is(err, ErrNoLink):
		return false, err
	}
	return false, nil
}

// make makes both ends in one message, so that neither is ever seen elsewhere.
func (v *Veth) make() error {
	return v.Container.fd(func(fd int) error {
		return v.Host.Do(func() error {
			a := netlink.NewLinkAttrs()
			a.Name, a.MTU, a.Group = v.Outer, v.MTU, halfMade
			pair := netlink.NewVeth(a)
			pair.PeerName = v.Inner
			pair.PeerMTU = uint32(v.MTU)
			pair.PeerHardwareAddr = v.MAC
			pair.PeerNamespace = netlink.NsFd(fd)
			if err := netlink.LinkAdd(pair); err != nil {
				return fmt.Errorf("create: %w", err)
			}
			err := v.mark(pair)
			if err != nil {
				err = errors.Join(err, remove(pair))
			}
			return err
		})
	})
}

// mark gives both ends their alias. The host's end gets its own first: from
// then on it is known, and so is the pair.
func (v *Veth) mark(pair netlink.Link) error {
	if err := netlink.LinkSetAlias(pair, aliasPrefix+v.Port); err != nil {
		return fmt.Errorf("%s: set alias: %w", v.Outer, err)
	}
	if err := v.Container.Claim(v.Inner, v.Port); err != nil {
		return err
	}
	if err := netlink.LinkSetGroup(pair, 0); err != nil {
		return fmt.Errorf("%s: reset group: %w", v.Outer, err)
	}
	return nil
}

// settle brings both ends to where they should be, whatever they were.
func (v *Veth) settle() error {
	err := v.Container.Do(func() error {
		inner, err := byName(v.Inner)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(inner, v.MTU); err != nil {
			return fmt.Errorf("%s: set MTU %d: %w", v.Inner, v.MTU, err)
		}
		_, err = switchOff(v.Inner, inexpressible)
		return err
	})
	if err != nil {
		return err
	}
	return v.Host.Do(func() error {
		outer, err := byName(v.Outer)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(outer, v.MTU); err != nil {
			return fmt.Errorf("%s: set MTU %d: %w", v.Outer, v.MTU, err)
		}
		if _, err := switchOff(v.Outer, inexpressible); err != nil {
			return err
		}
		if err := mute(outer); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(outer); err != nil {
			return fmt.Errorf("%s: set up: %w", v.Outer, err)
		}
		return nil
	})
}

// mute leaves the host's stack no reason to send anything by the interface.
func mute(outer netlink.Link) error {
	name := outer.Attrs().Name
	if err := netlink.LinkSetARPOff(outer); err != nil {
		return fmt.Errorf("%s: switch ARP off: %w", name, err)
	}
	err := netlink.LinkSetIP6AddrGenMode(outer, nl.IN6_ADDR_GEN_MODE_NONE)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%s: switch IPv6 addresses off: %w", name, err)
	}
	// Without it the kernel still joins multicast groups and reports them.
	// Where /proc/sys can't be written (a container), it has no address to
	// answer from all the same.
	err = os.WriteFile(sysctlIPv6(name), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s: switch IPv6 off: %w", name, err)
	}
	return nil
}

// sysctlIPv6 is the switch of an interface of the calling thread's namespace.
// It doesn't exist if the kernel has no IPv6.
func sysctlIPv6(name string) string { return "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6" }
