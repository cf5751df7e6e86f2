package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"heddle/ctl/config"
	"heddle/tunnel/mesh"
	"heddle/tunnel/underlay"
)

// hostUnderlay is the tunnels' UDP port of this machine.
type hostUnderlay struct {
	*underlay.Underlay
	m       *machine
	workers int
}

// lost adds up the workers' sockets; one that can't be asked has lost nothing.
func (u hostUnderlay) lost() (sum uint64) {
	for w := range u.workers {
		n, _ := u.Lost(w)
		sum += uint64(n)
	}
	return sum
}

func (m *machine) openUnderlay(at netip.AddrPort, workers int) (underlayPort, error) {
	var u *underlay.Underlay
	err := m.step("underlay", func() error {
		return m.own.Do(func() (err error) {
			u, err = underlay.Open(underlay.Config{Local: at, Workers: workers})
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return hostUnderlay{u, m, workers}, nil
}

func (u hostUnderlay) paths(to []netip.Addr) []path {
	all := make([]path, len(to))
	err := u.m.own.Do(func() error {
		for i, a := range to {
			all[i].mtu, all[i].err = u.PathMTU(a)
		}
		return nil
	})
	for i := range all {
		all[i].err = cmp.Or(err, all[i].err)
	}
	return all
}

// source is what a socket that is connected there is bound to; nothing is sent.
func (m *machine) source(to netip.Addr) (from netip.Addr, err error) {
	err = m.own.Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, config.VXLANPort)))
		if err != nil {
			var why syscall.Errno
			if errors.As(err, &why) {
				err = why
			}
			return fmt.Errorf("a way to %s: %w", to, err)
		}
		defer func() { _ = c.Close() }()
		at, ok := c.LocalAddr().(*net.UDPAddr)
		if !ok {
			return fmt.Errorf("a way to %s: %w", to, unix.EADDRNOTAVAIL)
		}
		from = at.AddrPort().Addr().Unmap().WithZone("")
		return nil
	})
	return from, err
}

// addresses are those of the interfaces, with the broadcast address of each
// IPv4 subnet.
func (m *machine) addresses() (all []netip.Addr, err error) {
	var nets []net.Addr
	err = m.own.Do(func() error {
		nets, err = net.InterfaceAddrs()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the host's addresses: %w", err)
	}
	for _, a := range nets {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		all = append(all, p.Addr().WithZone(""))
		if p.Addr().Is4() && p.Bits() < 31 {
			all = append(all, lastOf(p))
		}
	}
	return all, nil
}

// lastOf returns the broadcast address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// gossip leaves it to the mesh to open sockets.
func (m *machine) gossip(*mesh.Config) {}
