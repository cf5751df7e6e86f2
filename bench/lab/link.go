package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth makes a pair of virtual Ethernet interfaces, one end in each
// namespace, both up and running. The namespaces may be the same.
func (l *Lab) Veth(a *NetNS, aName string, b *NetNS, bName string) error {
	l.record("ip -n", a.Name, "link add", aName, "up type veth peer name", bName, "netns", b.Name)
	l.record("ip -n", b.Name, "link set", bName, "up")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	err := a.link.LinkAdd(&netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(int(b.handle)),
	})
	if err != nil {
		return fmt.Errorf("veth %s–%s between %s and %s: %w", aName, bName, a.Name, b.Name, err)
	}
	if err := errors.Join(a.setUp(aName), b.setUp(bName)); err != nil {
		return err
	}
	return errors.Join(a.awaitRunning(aName), b.awaitRunning(bName))
}

// awaitRunning waits until an interface with a carrier is in use. The kernel does
// that a moment after the carrier came (linkwatch in net/core/link_watch.c), and
// until then loses without a word what is sent, and a bridge that gets the
// interface as a port keeps it blocked.
func (n *NetNS) awaitRunning(name string) error {
	const bound = 20 * time.Second
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		link, err := n.Link(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Since(began) > bound {
			return fmt.Errorf("interface %s in %s: its state is %v after %v", name, n.Name, link.Attrs().OperState, bound)
		}
	}
}

// AddBridge makes a kernel bridge that is up and has the given interfaces of
// the same namespace as ports.
func (n *NetNS) AddBridge(name string, ports ...string) error {
	n.lab.record("ip -n", n.Name, "link add", name, "up type bridge")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.link.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge %s in %s: %w", name, n.Name, err)
	}
	for _, port := range ports {
		n.lab.record("ip -n", n.Name, "link set", port, "master", name)
		link, err := n.Link(port)
		if err != nil {
			return err
		}
		if err := n.link.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("bridge %s in %s: adding %s: %w", name, n.Name, port, err)
		}
	}
	return n.setUp(name)
}

// Link finds an interface of the namespace.
func (n *NetNS) Link(name string) (netlink.Link, error) {
	link, err := n.link.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s in %s: %w", name, n.Name, err)
	}
	return link, nil
}

// HasLink tells whether the namespace has an interface of that name.
func (n *NetNS) HasLink(name string) bool {
	_, err := n.link.LinkByName(name)
	return err == nil
}

// MAC returns an interface's hardware address.
func (n *NetNS) MAC(name string) (net.HardwareAddr, error) {
	link, err := n.Link(name)
	if err != nil {
		return nil, err
	}
	return link.Attrs().HardwareAddr, nil
}

func (n *NetNS) setUp(name string) error {
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s in %s: up: %w", name, n.Name, err)
	}
	return nil
}

// SetUp sets an interface up or down.
func (n *NetNS) SetUp(name string, up bool) error {
	if up {
		n.lab.record("ip -n", n.Name, "link set", name, "up")
		return n.setUp(name)
	}
	n.lab.record("ip -n", n.Name, "link set", name, "down")
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkSetDown(link); err != nil {
		return fmt.Errorf("interface %s in %s: down: %w", name, n.Name, err)
	}
	return nil
}

// SetMTU sets the longest L3 packet of an interface, in bytes.
func (n *NetNS) SetMTU(name string, mtu int) error {
	n.lab.record("ip -n", n.Name, "link set", name, "mtu", strconv.Itoa(mtu))
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("interface %s in %s: mtu %d: %w", name, n.Name, mtu, err)
	}
	return nil
}

// SetMAC gives an interface another hardware address.
func (n *NetNS) SetMAC(name string, mac net.HardwareAddr) error {
	n.lab.record("ip -n", n.Name, "link set", name, "address", mac.String())
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("interface %s in %s: address %s: %w", name, n.Name, mac, err)
	}
	return nil
}

// MoveLink moves an interface into another namespace under a new name and sets
// it up there. It loses its addresses.
func (n *NetNS) MoveLink(name string, to *NetNS, newName string) error {
	n.lab.record("ip -n", n.Name, "link set", name, "netns", to.Name, "name", newName)
	n.lab.record("ip -n", to.Name, "link set", newName, "up")
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkSetNsFd(link, int(to.handle)); err != nil {
		return fmt.Errorf("interface %s in %s: moving to %s: %w", name, n.Name, to.Name, err)
	}
	if link, err = to.Link(name); err != nil {
		return err
	}
	if err := to.link.LinkSetName(link, newName); err != nil {
		return fmt.Errorf("interface %s in %s: renaming to %s: %w", name, to.Name, newName, err)
	}
	return to.setUp(newName)
}

// DeleteLink deletes an interface, and with a veth end its peer.
func (n *NetNS) DeleteLink(name string) error {
	n.lab.record("ip -n", n.Name, "link del", name)
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.link.LinkDel(link); err != nil {
		return fmt.Errorf("interface %s in %s: delete: %w", name, n.Name, err)
	}
	return nil
}

// AddAddress gives an interface addresses with their prefix length. IPv6 ones
// can be used at once (no duplicate address detection).
func (n *NetNS) AddAddress(name string, cidrs ...string) error {
	link, err := n.Link(name)
	if err != nil {
		return err
	}
	for _, cidr := range cidrs {
		n.lab.record("ip -n", n.Name, "address add", cidr, "dev", name, "nodad")
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return fmt.Errorf("interface %s in %s: %w", name, n.Name, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.link.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("interface %s in %s: address %s: %w", name, n.Name, cidr, err)
		}
	}
	return nil
}

// SetCongestion has TCP connections of the namespace use a congestion control
// from their beginning: it is an attribute of its IPv4 routes, those that are
// there now. A program's TCP_CONGESTION after connect(2) is no substitute: if
// the default is BBR, the socket goes on pacing (sk_pacing_status). Nor is the
// sysctl, which refuses what the machine doesn't allow everybody.
func (n *NetNS) SetCongestion(control string) error {
	routes, err := n.link.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", n.Name, err)
	}
	for _, r := range routes {
		if r.Congctl == control {
			continue
		}
		to := "default"
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			to = r.Dst.String()
		}
		if r.Gw != nil {
			to += " via " + r.Gw.String()
		}
		link, err := n.link.LinkByIndex(r.LinkIndex)
		if err != nil {
			return fmt.Errorf("route %s of %s: its interface: %w", to, n.Name, err)
		}
		n.lab.record("ip -n", n.Name, "route change", to, "dev", link.Attrs().Name, "congctl", control)
		r.Congctl = control
		if err := n.link.RouteReplace(&r); err != nil {
			return fmt.Errorf("route %s of %s: congestion control %s: %w", to, n.Name, control, err)
		}
	}
	return nil
}

// Stats counts what an interface took in (Rx) and gave out (Tx), seen from the
// namespace's stack; a GSO frame counts once.
type Stats struct {
	RxFrames, RxBytes, RxDropped uint64
	TxFrames, TxBytes, TxDropped uint64
}

// Stats reads an interface's counters (IFLA_STATS64).
func (n *NetNS) Stats(name string) (Stats, error) {
	link, err := n.Link(name)
	if err != nil {
		return Stats{}, err
	}
	s := link.Attrs().Statistics
	if s == nil {
		return Stats{}, fmt.Errorf("interface %s in %s: the kernel gave no counters", name, n.Name)
	}
	return Stats{
		RxFrames: s.RxPackets, RxBytes: s.RxBytes, RxDropped: s.RxDropped,
		TxFrames: s.TxPackets, TxBytes: s.TxBytes, TxDropped: s.TxDropped,
	}, nil
}

// offloads are the features that decide how frames leave and enter a
// container's stack, by the names of `ethtool -K`.
var offloads = []string{"tx", "sg", "tso", "gso", "gro", "tx-udp-segmentation"}

// SetOffloads switches checksum, scatter-gather, segmentation and coalescing
// offloads of an interface on or off by ethtool.
func (n *NetNS) SetOffloads(ctx context.Context, name string, on bool) error {
	state := "off"
	if on {
		state = "on"
	}
	args := []string{"ethtool", "-K", name}
	for _, feature := range offloads {
		args = append(args, feature, state)
	}
	_, err := n.Run(ctx, args...)
	return err
}

// TAP makes a TAP device in the namespace, which ends with the descriptor that it
// returns and the caller closes. What is written there, behind a virtio-net header
// (linux/if_tun.h, IFF_VNET_HDR), comes in by the interface.
func (n *NetNS) TAP(ifname string) (fd int, err error) {
	err = n.Do(func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq(ifname)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("make TAP %s: %w", ifname, err), unix.Close(fd))
		}
		return nil
	})
	return fd, err
}
