package baseline

import (
	"context"
	"errors"
	"fmt"
	"net"

	"heddle/bench/lab"
)

// What both containers of every path have.
const (
	Interface = "eth0"
	AddrA     = "198.18.0.1"
	AddrB     = "198.18.0.2"
	CIDRA     = AddrA + "/24"
	CIDRB     = AddrB + "/24"
	Addr6A    = "2001:db8::1"
	Addr6B    = "2001:db8::2"
	CIDR6A    = Addr6A + "/64"
	CIDR6B    = Addr6B + "/64"
)

// ErrNotInstalled says that what a path needs is not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Path is what joins two containers: one contender of a benchmark.
type Path struct {
	Name string
	// About is one line on what it is: version and kind of port.
	About string
	A, B  *lab.NetNS
	// Server is the address by which A reaches B's servers.
	Server string
	// External is the address that stands for A where B is, if that is another
	// network; empty where A and B share one.
	External string
	// NAT is what a path has that tracks connections; nil on one that doesn't.
	NAT *NAT
	// Hosts tells that A and B are on hosts of their own, which a tunnel joins.
	Hosts bool
	// PIDs are the path's own processes; a path in the kernel has none.
	PIDs []int
	// Count reads the path's own counters, from which a benchmark sees that
	// its traffic went through.
	Count func(context.Context) (Counts, error)
}

// Count is frames and bytes; a GSO frame counts once.
type Count struct{ Frames, Bytes uint64 }

// Counts are a path's counters at its two ports, seen from the path.
type Counts struct {
	FromA, ToA, FromB, ToB Count
	// Conns counts the connections that NAT rules have begun; 0 without NAT.
	Conns uint64
	// Tunnel counts at both ends of the tunnel; nil without one.
	Tunnel *Tunnel
}

// Tunnel is what went into the tunnel at one end and came out at the other, by
// the frames inside it.
type Tunnel struct {
	EncapA, DecapB Count // From A to B.
	EncapB, DecapA Count // From B to A.
}

// TunnelEnd is the counters of one of a tunnel's hosts: at its container's port
// and at its end of the tunnel.
type TunnelEnd struct{ From, To, Encap, Decap Count }

// TunnelCounts puts those of A's host and of B's together.
func TunnelCounts(a, b TunnelEnd) Counts {
	return Counts{
		FromA: a.From, ToA: a.To, FromB: b.From, ToB: b.To,
		Tunnel: &Tunnel{EncapA: a.Encap, DecapB: b.Decap, EncapB: b.Encap, DecapA: a.Decap},
	}
}

// end is an interface at which a path counts: one of its own, or, where it has
// none, the container's.
type end struct {
	ns     *lab.NetNS
	ifname string
	// inside tells that it is the container's, which sends what the path takes in.
	inside bool
}

// count returns what came from the container and what went to it.
func (e end) count() (from, to Count, err error) {
	s, err := e.ns.Stats(e.ifname)
	from, to = Count{s.RxFrames, s.RxBytes}, Count{s.TxFrames, s.TxBytes}
	if e.inside {
		from, to = to, from
	}
	return from, to, err
}

// countsAt reads the counters of a path at its ends.
func countsAt(a, b end) (c Counts, err error) {
	if c.FromA, c.ToA, err = a.count(); err != nil {
		return Counts{}, err
	}
	if c.FromB, c.ToB, err = b.count(); err != nil {
		return Counts{}, err
	}
	return c, nil
}

// Forget ends the connections that the path tracks, if it tracks any.
func (p *Path) Forget(ctx context.Context) error {
	if p.NAT == nil {
		return nil
	}
	return p.NAT.Flush(ctx)
}

// Isolated tells whether the path is the only way between its containers: they
// have an interface each, besides loopback.
func (p *Path) Isolated() error {
	for _, n := range []*lab.NetNS{p.A, p.B} {
		links, err := n.Netlink().LinkList()
		if err != nil {
			return fmt.Errorf("interfaces of %s: %w", n.Name, err)
		}
		ours := false
		for _, l := range links {
			a := l.Attrs()
			switch {
			case a.Name == Interface && a.Flags&net.FlagUp != 0:
				ours = true
			case a.Flags&(net.FlagUp|net.FlagLoopback) == net.FlagUp:
				return fmt.Errorf("container %s has another way out beside the path: interface %s", n.Name, a.Name)
			}
		}
		if !ours {
			return fmt.Errorf("container %s has no interface %s that is up", n.Name, Interface)
		}
	}
	return nil
}

// NewContainers makes the two namespaces of a path, without interfaces.
func NewContainers(l *lab.Lab, name string) (a, b *lab.NetNS, err error) {
	if a, err = l.NewNetNS(name + "-a"); err != nil {
		return nil, nil, err
	}
	b, err = l.NewNetNS(name + "-b")
	return a, b, err
}

// address gives both containers' interfaces their addresses.
func address(a, b *lab.NetNS) error {
	if err := a.AddAddress(Interface, CIDRA, CIDR6A); err != nil {
		return err
	}
	return b.AddAddress(Interface, CIDRB, CIDR6B)
}
