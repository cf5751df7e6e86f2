package attach

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Link is what is known of an interface at one moment.
type Link struct {
	Name  string
	Index int
	// Kind is the driver's kind as rtnetlink names it: veth, tun (a TAP too),
	// bridge, or device for hardware.
	Kind  string
	MAC   net.HardwareAddr
	MTU   int    // In bytes of L3.
	Alias string // Set by whoever owns the interface; see Port.
	Up    bool   // Set up by an administrator (IFF_UP).
	// Running means that frames pass: up, with carrier (IFF_RUNNING).
	Running  bool
	Ethernet bool // Its frames are Ethernet's; false for lo and for tunnels of L3.
	// MasterIndex is the bridge, bond or VRF that it is a port of; 0 for none.
	MasterIndex int
}

const aliasPrefix = "heddle:"

// Port returns the name of the Heddle port that the interface was made for.
func (l Link) Port() (port string, ours bool) {
	return strings.CutPrefix(l.Alias, aliasPrefix)
}

func newLink(nl netlink.Link) Link {
	a := nl.Attrs()
	return Link{
		Name:        a.Name,
		Index:       a.Index,
		Kind:        nl.Type(),
		MAC:         slices.Clone(a.HardwareAddr), // It may point into a receive buffer.
		MTU:         a.MTU,
		Alias:       a.Alias,
		Up:          a.Flags&net.FlagUp != 0,
		Running:     a.Flags&net.FlagRunning != 0,
		Ethernet:    a.EncapType == "ether",
		MasterIndex: a.MasterIndex,
	}
}

// byName looks an interface up in the thread's namespace.
func byName(name string) (netlink.Link, error) {
	nl, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("interface %s: %w", name, ErrNoLink)
	case err != nil:
		return nil, fmt.Errorf("interface %s: look up: %w", name, err)
	}
	return nl, nil
}

// Link returns the facts of an interface. It fails with ErrNoLink.
func (ns *Namespace) Link(name string) (Link, error) {
	return in(ns, func() (Link, error) {
		nl, err := byName(name)
		if err != nil {
			return Link{}, fmt.Errorf("%s: %w", ns, err)
		}
		return newLink(nl), nil
	})
}

// LinkAt returns the facts of the interface with a number, whatever its name is
// by now. It fails with ErrNoLink.
func (ns *Namespace) LinkAt(index int) (Link, error) {
	return in(ns, func() (Link, error) {
		nl, err := netlink.LinkByIndex(index)
		var missing netlink.LinkNotFoundError
		switch {
		case errors.As(err, &missing):
			return Link{}, fmt.Errorf("%s: interface number %d: %w", ns, index, ErrNoLink)
		case err != nil:
			return Link{}, fmt.Errorf("%s: interface number %d: look up: %w", ns, index, err)
		}
		return newLink(nl), nil
	})
}

// Owned returns the interfaces of the namespace that Heddle made, of all
// ports: a start compares it with its ports to find what a killed swd left.
func (ns *Namespace) Owned() ([]Link, error) {
	return in(ns, func() ([]Link, error) {
		all, err := dump(netlink.LinkList)
		if err != nil {
			return nil, fmt.Errorf("%s: list interfaces: %w", ns, err)
		}
		var ours []Link
		for _, nl := range all {
			if l := newLink(nl); strings.HasPrefix(l.Alias, aliasPrefix) {
				ours = append(ours, l)
			}
		}
		return ours, nil
	})
}

// dump repeats a listing that changed while it was read (netlink(7),
// NLM_F_DUMP_INTR), a bounded number of times.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 8 {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// Claim marks an interface that Heddle has just made as that of a port. It
// fails with ErrTaken if it carries another alias.
func (ns *Namespace) Claim(name, port string) error {
	return ns.Do(func() error {
		nl, err := byName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", ns, err)
		}
		switch alias := nl.Attrs().Alias; alias {
		case aliasPrefix + port:
			return nil
		case "":
			if err := netlink.LinkSetAlias(nl, aliasPrefix+port); err != nil {
				return fmt.Errorf("%s: interface %s: set alias: %w", ns, name, err)
			}
			return nil
		default:
			return fmt.Errorf("%s: interface %s: its alias is %q: %w", ns, name, alias, ErrTaken)
		}
	})
}

// Delete deletes an interface that Heddle made for a port; of a pair, both
// ends, by the host's, which alone shows whether a swd uses it. It fails with
// ErrNoLink, and with ErrTaken if it isn't the port's, is the container's end
// of a pair, or is used by a process: the caller has closed its own queues and
// Silence.
func (ns *Namespace) Delete(name, port string) error {
	return ns.Do(func() error {
		nl, err := byName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", ns, err)
		}
		if nl.Attrs().Alias != aliasPrefix+port {
			return fmt.Errorf("%s: interface %s: not made for port %s: %w", ns, name, port, ErrTaken)
		}
		if nl.Type() == "veth" && name != HostName(port) {
			return fmt.Errorf("%s: interface %s: it goes with its other end, %s on the host: %w", ns, name, HostName(port), ErrTaken)
		}
		if why := held(nl); why != "" {
			return fmt.Errorf("%s: interface %s: %s: %w", ns, name, why, ErrTaken)
		}
		return remove(nl)
	})
}

// held says how a live process uses an interface that Heddle made, "" if none
// is known to.
func held(nl netlink.Link) string {
	if tun, ok := nl.(*netlink.Tuntap); ok && tun.Queues > 0 {
		return "a running process has it open"
	}
	if attached(nl.Attrs().Index) {
		return "a running swd uses it"
	}
	return ""
}

func remove(nl netlink.Link) error {
	if err := netlink.LinkDel(nl); err != nil {
		return fmt.Errorf("interface %s: delete: %w", nl.Attrs().Name, err)
	}
	return nil
}

// Free returns the facts of an existing interface that a packet port may take,
// and fails with ErrTaken if it is enslaved, was made for a port, is in use by
// a running swd (see Silence and Share), or carries no Ethernet.
func (ns *Namespace) Free(name string) (Link, error) {
	return in(ns, func() (Link, error) {
		nl, err := byName(name)
		if err != nil {
			return Link{}, fmt.Errorf("%s: %w", ns, err)
		}
		l := newLink(nl)
		if why := taken(l); why != "" {
			return l, fmt.Errorf("%s: interface %s: %s: %w", ns, name, why, ErrTaken)
		}
		if !l.Ethernet {
			return l, fmt.Errorf("%s: interface %s: it carries no Ethernet frames; use another", ns, name)
		}
		return l, nil
	})
}

func taken(l Link) string {
	if l.MasterIndex != 0 {
		master := fmt.Sprintf("interface number %d", l.MasterIndex)
		if nl, err := netlink.LinkByIndex(l.MasterIndex); err == nil {
			master = nl.Type() + " " + nl.Attrs().Name
		}
		return fmt.Sprintf("it is part of %s (take it out with: ip link set %s nomaster)", master, l.Name)
	}
	if port, ours := l.Port(); ours {
		return "it was made for port " + port
	}
	if attached(l.Index) {
		return "a running swd uses it"
	}
	return ""
}
