package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Config is what an Underlay is opened from.
type Config struct {
	// Local is the address and port to receive on, in the network namespace
	// of the calling thread. An unspecified address is all of its family. It
	// decides the family: a peer of the other one can't be reached.
	Local netip.AddrPort
	// Workers is the number of receive sockets, 1 to dataplane.MaxWorkers. 0
	// means 1.
	Workers int
	// ZeroChecksum sends datagrams without a UDP checksum (RFC 7348 section 5
	// allows it), each a message of its own: the kernel cuts none without a
	// checksum. Received ones without are taken in any case.
	ZeroChecksum bool
	// SourcePorts is how many source ports flows are spread over, a power of
	// two up to MaxSourcePorts, each a socket. 0 means MaxSourcePorts.
	SourcePorts int
}

// MaxSourcePorts bounds Config.SourcePorts: the bits of a worker's set of them.
const MaxSourcePorts = 64

// Source ports are taken from here on (RFC 7348 section 5, RFC 6335).
const (
	firstSourcePort = 49152
	endSourcePort   = 65536
)

// Underlay is a UDP port of the host's that all workers share. Open makes it.
//
// Recv and Send are for the worker that they name, all workers at the same
// time. The rest is for control code, from any goroutine.
type Underlay struct {
	// Immutable after Open.
	family    *family
	local     netip.AddrPort
	receivers []*receiver
	outs      []*sender
	sources   []int // Descriptors to send from.
	segments  bool  // The kernel knows UDP_SEGMENT, and there are checksums.

	mu     sync.Mutex // Guards closed, and the descriptors against Lost.
	closed bool
}

// Open opens the sockets. On failure nothing is left open. A port that is taken
// already wraps unix.EADDRINUSE and says who is likely to have it.
func Open(c Config) (*Underlay, error) {
	u, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("underlay %s: %w", c.Local, err)
	}
	return u, nil
}

func open(c Config) (_ *Underlay, err error) {
	workers, ports := c.Workers, c.SourcePorts
	if workers == 0 {
		workers = 1
	}
	if ports == 0 {
		ports = MaxSourcePorts
	}
	ip := c.Local.Addr().Unmap()
	switch {
	case workers < 1 || workers > dataplane.MaxWorkers:
		return nil, fmt.Errorf("%d workers: want 1 to %d", workers, dataplane.MaxWorkers)
	case ports < 1 || ports > MaxSourcePorts || ports&(ports-1) != 0:
		return nil, fmt.Errorf("%d source ports: want a power of two up to %d", ports, MaxSourcePorts)
	case !ip.IsValid() || ip.IsMulticast() || ip.Zone() != "":
		return nil, errors.New("want an address of this host without a zone, or 0.0.0.0 or [::] for all")
	}
	u := &Underlay{family: familyOf(ip), local: netip.AddrPortFrom(ip, c.Local.Port())}
	defer func() {
		if err != nil {
			_ = u.Close()
		}
	}()
	for i := range workers {
		fd, err := u.family.newReceiver(u.local, i == 0)
		if err != nil {
			return nil, err
		}
		r, err := newReceiver(fd)
		if err != nil {
			return nil, err
		}
		u.receivers = append(u.receivers, r)
		u.outs = append(u.outs, &sender{})
		if i == 0 { // The port that the kernel has chosen, if it was to.
			if u.local, err = boundTo(fd); err != nil {
				return nil, err
			}
		}
	}
	next := firstSourcePort
	for range ports {
		fd, port, err := u.family.newSender(ip, next, endSourcePort, c.ZeroChecksum)
		if err != nil {
			return nil, err
		}
		u.sources = append(u.sources, fd)
		next = port + 1
	}
	_, err = unix.GetsockoptInt(u.sources[0], unix.SOL_UDP, unix.UDP_SEGMENT)
	u.segments = err == nil && !c.ZeroChecksum
	return u, nil
}

// FD returns the descriptor that becomes readable when Recv has something.
func (u *Underlay) FD(worker int) int { return u.receivers[worker].fd }

// Local returns the address and port it was opened with; the port that the
// kernel chose where that was 0.
func (u *Underlay) Local() netip.AddrPort { return u.local }

// PathMTU returns the length in bytes of the longest IP packet that the kernel
// thinks reaches dst: the device's MTU, the route's or what an ICMP error has
// said, whichever is least. A forged error can make it as low as 552 (IPv4).
func (u *Underlay) PathMTU(dst netip.Addr) (int, error) {
	mtu, err := u.pathMTU(dst.Unmap())
	if err != nil {
		return 0, fmt.Errorf("path MTU to %s: %w", dst, err)
	}
	return mtu, nil
}

func (u *Underlay) pathMTU(dst netip.Addr) (int, error) {
	if familyOf(dst) != u.family {
		return 0, fmt.Errorf("not an address of the same family as %s: %w", u.local.Addr(), unix.EAFNOSUPPORT)
	}
	fd, err := u.family.newSocket()
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := bind(fd, netip.AddrPortFrom(u.local.Addr(), 0)); err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(dst, 4789))); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	mtu, err := unix.GetsockoptInt(fd, u.family.level, u.family.mtu)
	if err != nil {
		return 0, fmt.Errorf("getsockopt IP_MTU: %w", err)
	}
	return mtu, nil
}

// Lost returns how many datagrams the kernel has dropped since Open at a
// worker's socket: because it was full, or their checksum wrong. Short ones with
// a wrong checksum (up to 76 bytes) are dropped before, and only in the host's
// counter UdpInCsumErrors.
func (u *Underlay) Lost(worker int) (uint32, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return 0, net.ErrClosed
	}
	const drops = 8 // SK_MEMINFO_DROPS (linux/sock_diag.h).
	var info [drops + 1]uint32
	n := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(u.receivers[worker].fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("getsockopt SO_MEMINFO: %w", errno)
	}
	return info[drops], nil
}

// Close closes the sockets and gives back the memory of what Recv returned, which
// nobody may look at any more. No Recv or Send may run or follow. A second Close
// does nothing.
func (u *Underlay) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	var errs []error
	for _, r := range u.receivers {
		errs = append(errs, r.close())
	}
	for _, fd := range u.sources {
		errs = append(errs, unix.Close(fd))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the underlay %s: %w", u.local, err)
	}
	return nil
}
