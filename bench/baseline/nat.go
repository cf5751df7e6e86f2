package baseline

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"heddle/bench/lab"
)

// What all paths to an outside have, besides Interface and AddrA.
const (
	Subnet      = "198.18.0.0/24" // A's.
	Gateway     = "198.18.0.254"
	AddrOutside = "192.0.2.1" // B's.
	AddrHost    = "192.0.2.9" // At wan0; what stands for A, unless the path has an address of its own.
	Uplink      = "wan0"      // The host's interface towards B.
	// OutsideBits is the length of the prefix that AddrOutside and AddrHost are in.
	OutsideBits = "/24"
	// PublishedPort is a TCP port of the external address that leads to the same
	// one of A.
	PublishedPort = 8080
)

// NAT is the connection table of a path.
type NAT struct {
	// MaxConns is how many connections the path tracks at most.
	MaxConns int
	// Conns counts the connections that are tracked now.
	Conns func(context.Context) (int, error)
	// Flush ends all of them.
	Flush func(context.Context) error
	// Renew ends all of them and gives the memory that they took back.
	Renew func(context.Context) error
	// Memory is what they and, for a path in userspace, everything else of it
	// take, in bytes.
	Memory func(context.Context) (uint64, error)
}

// NewOutside makes the namespaces of a path to an outside: A, without an
// interface, the host and B, which are joined and have addresses and routes.
func NewOutside(ctx context.Context, l *lab.Lab, name string) (a, host, b *lab.NetNS, err error) {
	if a, b, err = NewContainers(l, name); err != nil {
		return nil, nil, nil, err
	}
	if host, err = l.NewNetNS(name); err != nil {
		return nil, nil, nil, err
	}
	if err := l.Veth(host, Uplink, b, Interface); err != nil {
		return nil, nil, nil, err
	}
	if err := host.AddAddress(Uplink, AddrHost+OutsideBits); err != nil {
		return nil, nil, nil, err
	}
	if err := b.AddAddress(Interface, AddrOutside+OutsideBits); err != nil {
		return nil, nil, nil, err
	}
	if _, err := host.Run(ctx, "ip", "route", "add", "default", "via", AddrOutside); err != nil {
		return nil, nil, nil, err
	}
	// As many ports for a client outside as there are: the fewer times it uses
	// one again, the more of its connections are new to the path.
	if err := b.Sysctl("net/ipv4/ip_local_port_range", "1024 65535"); err != nil {
		return nil, nil, nil, err
	}
	return a, host, b, nil
}

// addressInside gives A its address, and the gateway as its way out.
func addressInside(ctx context.Context, a *lab.NetNS) error {
	if err := a.AddAddress(Interface, CIDRA); err != nil {
		return err
	}
	_, err := a.Run(ctx, "ip", "route", "add", "default", "via", Gateway)
	return err
}

// GatewayMAC returns the hardware address that A sends to B by, which a packet
// from A to B must have resolved before.
func (p *Path) GatewayMAC() (net.HardwareAddr, error) {
	link, err := p.A.Link(Interface)
	if err != nil {
		return nil, err
	}
	neighbours, err := p.A.Netlink().NeighList(link.Attrs().Index, 0)
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", p.A.Name, err)
	}
	for _, n := range neighbours {
		if n.IP.String() == Gateway && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr, nil
		}
	}
	return nil, fmt.Errorf("%s does not know the MAC of %s", p.A.Name, Gateway)
}

// readNumber reads a number from a file of /proc as a namespace sees it.
func readNumber(n *lab.NetNS, path string) (number int, err error) {
	err = n.Do(func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		number, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	return number, nil
}
