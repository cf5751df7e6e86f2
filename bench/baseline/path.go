package baseline

import (
	"context"
	"errors"
	"fmt"

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
	// NAT is what a path has that translates A's address; nil on one that
	// switches.
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

// Least is what a path must have carried, and translated, at least.
type Least struct {
	AToB, BToA Count
	Conns      uint64
}

// Verify tells whether the path carried what it should have between two
// readings of its counters.
func Verify(before, after Counts, least Least) error {
	type check struct {
		where         string
		before, after Count
		least         Count
	}
	checks := []check{
		{"in from A", before.FromA, after.FromA, least.AToB},
		{"out to B", before.ToB, after.ToB, least.AToB},
		{"in from B", before.FromB, after.FromB, least.BToA},
		{"out to A", before.ToA, after.ToA, least.BToA},
	}
	if before.Tunnel != nil && after.Tunnel != nil {
		checks = append(checks,
			check{"into the tunnel at A's host", before.Tunnel.EncapA, after.Tunnel.EncapA, least.AToB},
			check{"out of the tunnel at B's host", before.Tunnel.DecapB, after.Tunnel.DecapB, least.AToB},
			check{"into the tunnel at B's host", before.Tunnel.EncapB, after.Tunnel.EncapB, least.BToA},
			check{"out of the tunnel at A's host", before.Tunnel.DecapA, after.Tunnel.DecapA, least.BToA},
		)
	}
	var errs []error
	for _, c := range checks {
		frames, bytes := c.after.Frames-c.before.Frames, c.after.Bytes-c.before.Bytes
		if c.after.Frames < c.before.Frames || c.after.Bytes < c.before.Bytes {
			errs = append(errs, fmt.Errorf("the path's counters ran backwards %s", c.where))
			continue
		}
		if frames < c.least.Frames || bytes < c.least.Bytes {
			errs = append(errs, fmt.Errorf(
				"the path counted %d frames, %d bytes %s, but at least %d frames, %d bytes were delivered: the traffic went another way",
				frames, bytes, c.where, c.least.Frames, c.least.Bytes))
		}
	}
	if conns := after.Conns - before.Conns; after.Conns < before.Conns {
		errs = append(errs, errors.New("the path's count of connections ran backwards"))
	} else if conns < least.Conns {
		errs = append(errs, fmt.Errorf("the path's NAT began %d connections, but at least %d were made: they went untranslated", conns, least.Conns))
	}
	return errors.Join(errs...)
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
