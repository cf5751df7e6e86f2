package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"heddle/ctl/attach"
)

// bindPort binds a port in the thread's namespace. The zero Addr means all. It
// returns nil if the kernel doesn't have the protocol: so nobody can use it.
func bindPort(proto uint8, a netip.Addr, port int) (io.Closer, error) {
	host := ""
	if a.IsValid() {
		host = a.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	config := net.ListenConfig{Control: toLoopback}
	config.SetMultipathTCP(false) // To the host itself there is one path.
	switch proto {
	case unix.IPPROTO_TCP:
		return config.Listen(context.Background(), "tcp", address)
	case unix.IPPROTO_UDP:
		return config.ListenPacket(context.Background(), "udp", address)
	case unix.IPPROTO_SCTP:
		return bindSCTP(a, port)
	}
	return nil, fmt.Errorf("protocol %d: want TCP, UDP or SCTP", proto)
}

// toLoopback makes a socket get what the host sends to itself, and nothing
// else. (Bound to the loopback interface it wouldn't get what is sent to the
// addresses of others.)
func toLoopback(network, _ string, c syscall.RawConn) error {
	var err error
	controlled := c.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, loopbackOnly)
		// The answer to a datagram is to come from where that was sent to.
		switch {
		case err != nil:
		case network == "udp4":
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		case network == "udp6":
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return errors.Join(controlled, err)
}

// loopbackOnly passes what came by the loopback interface, which has the same
// index in every namespace (LOOPBACK_IFINDEX). Connections inherit it.
var loopbackOnly = assemble(
	bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1, SkipFalse: 1},
	bpf.RetConstant{Val: 1<<32 - 1},
	bpf.RetConstant{Val: 0},
)

func assemble(program ...bpf.Instruction) *unix.SockFprog {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(err) // The programs are this file's.
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
}

func bindSCTP(a netip.Addr, port int) (io.Closer, error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: port}
	switch {
	case a.Unmap().Is4():
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	case a.IsValid():
		to = &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	if err := unix.Bind(fd, to); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), f.Close())
	}
	return f, nil
}

var protoNames = map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}

// explain says what is in the way of a bind.
func (p *Proxy) explain(proto uint8, a netip.Addr, port int, err error) error {
	name := fmt.Sprintf("%d/%s", port, protoNames[proto])
	if a.IsValid() {
		name = netip.AddrPortFrom(a, uint16(port)).String() + "/" + protoNames[proto]
	}
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: the host has no such address: %w", name, err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%s: each port takes a file: %w (raise LimitNOFILE, or publish fewer)", name, err)
	case !errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: %w", name, err)
	}
	what := "the host uses it"
	if proto != unix.IPPROTO_SCTP {
		// Without an answer the error is only less clear.
		holders, _ := p.config.Host.Holders(proto, attach.PortRange{First: uint16(port), Last: uint16(port)})
		for _, h := range holders {
			if on := h.Local.Addr(); on == a || on.IsUnspecified() || !a.IsValid() {
				what = "the host uses " + h.String()
				break
			}
		}
	}
	return fmt.Errorf("%s: %s: %w (publish another port, or end that)", name, what, attach.ErrPortInUse)
}
