package underlay

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Buffers of the sockets in bytes; the kernel books about twice as much. What
// is beyond is dropped: counted by Lost on the way in, TxQueueFull on the way
// out. Without CAP_NET_ADMIN they are what net.core.rmem_max and wmem_max allow.
const (
	// receiveBuffer bridges 3 ms at 20 Gb/s while the worker does something else.
	receiveBuffer = 8 << 20
	// sendBuffer holds eight super-packets that the device has not sent yet:
	// 64 MB for all source ports together.
	sendBuffer = 512 << 10
)

// family is what differs between IPv4 and IPv6.
type family struct {
	domain, level           int
	recvTOS, tos            int // Control message types.
	mtuDiscover, mtuProbe   int
	mtu                     int
	noCheckLevel, noCheckTX int
}

var (
	ipv4 = family{
		unix.AF_INET, unix.SOL_IP, unix.IP_RECVTOS, unix.IP_TOS,
		unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_MTU,
		unix.SOL_SOCKET, unix.SO_NO_CHECK,
	}
	ipv6 = family{
		unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS,
		unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_MTU,
		unix.SOL_UDP, unix.UDP_NO_CHECK6_TX,
	}
)

func familyOf(a netip.Addr) *family {
	if a.Is4() {
		return &ipv4
	}
	return &ipv6
}

// option is a socket option of an integer value.
type option struct {
	name              string
	level, opt, value int
}

// newSocket returns a UDP socket with the given options.
func (f *family) newSocket(options ...option) (_ int, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("open a UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if f.domain == unix.AF_INET6 {
		options = append(options, option{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return -1, fmt.Errorf("setsockopt %s: %w", o.name, err)
		}
	}
	return fd, nil
}

// newReceiver returns a socket that receives at local. The first of several
// binds alone, so that it notices another socket at the port, and lets the others
// join it afterwards.
func (f *family) newReceiver(local netip.AddrPort, first bool) (int, error) {
	options := []option{{"IP_RECVTOS", f.level, f.recvTOS, 1}}
	if f == &ipv6 { // RFC 6935: the tunnel's choice; IPv4 takes them anyway.
		options = append(options, option{"UDP_NO_CHECK6_RX", unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1})
	}
	reusePort := option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}
	if !first {
		options = append(options, reusePort)
	}
	fd, err := f.newSocket(options...)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // Before Linux 5.0: one datagram each.
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	err = bind(fd, local)
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("another program has UDP port %d, likely the kernel's own vxlan device or another swd "+
			"(see `ss -ulnp sport = %d` and `ip -d link show type vxlan`): %w", local.Port(), local.Port(), err)
	} else if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = fmt.Errorf("no interface has the address %s: %w", local.Addr(), err)
	}
	if err == nil && first {
		err = unix.SetsockoptInt(fd, reusePort.level, reusePort.opt, reusePort.value)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// refuseAll is a classic BPF program that drops every packet.
var refuseAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}

// newSender returns a socket that sends from the first free port at local's
// address from port on, below limit, and that port. It receives nothing.
func (f *family) newSender(local netip.Addr, port, limit int, zeroChecksum bool) (fd, bound int, err error) {
	options := []option{{"IP_MTU_DISCOVER", f.level, f.mtuDiscover, f.mtuProbe}}
	if zeroChecksum {
		options = append(options, option{"SO_NO_CHECK", f.noCheckLevel, f.noCheckTX, 1})
	}
	fd, err = f.newSocket(options...)
	if err != nil {
		return -1, 0, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	filter := unix.SockFprog{Len: uint16(len(refuseAll)), Filter: &refuseAll[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter); err != nil {
		return -1, 0, fmt.Errorf("setsockopt SO_ATTACH_FILTER: %w", err)
	}
	for ; port < limit; port++ {
		err = bind(fd, netip.AddrPortFrom(local, uint16(port)))
		if !errors.Is(err, unix.EADDRINUSE) {
			return fd, port, err
		}
	}
	return -1, 0, fmt.Errorf("no UDP port from %d on is free to send from: %w", firstSourcePort, unix.EADDRINUSE)
}

// setBuffer sets a socket buffer's size: beyond the system's limit if the
// process may, otherwise as far as it goes.
func setBuffer(fd, force, opt, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, size)
	}
}

func bind(fd int, to netip.AddrPort) error {
	if err := unix.Bind(fd, sockaddr(to)); err != nil {
		return fmt.Errorf("bind to %s: %w", to, err)
	}
	return nil
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

// boundTo returns where a socket is bound.
func boundTo(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getsockname: %w", err)
}
