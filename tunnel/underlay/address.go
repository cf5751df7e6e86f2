package underlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Addr is an address and port as tables hold them: 24 bytes without pointers,
// comparable. IPv4 addresses are IPv4-mapped (RFC 4291 2.5.5.2), as in
// wire.Flow.
type Addr struct {
	Hi, Lo uint64 // The address as two big-endian words.
	Port   uint16
}

// AddrOf returns the compact form of ap; a zone is left out.
func AddrOf(ap netip.AddrPort) Addr {
	b := ap.Addr().As16()
	return Addr{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]), ap.Port()}
}

// AddrPort returns the address for people, IPv4's unmapped.
func (a Addr) AddrPort() netip.AddrPort {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), a.Port)
}

// Dest is where messages go: a peer's address as the kernel wants it, and what
// was learnt about sending to it. NewDest makes it. All workers may send to one
// Dest at the same time.
type Dest struct {
	// Immutable after NewDest.
	addr  Addr
	name  [unix.SizeofSockaddrInet6]byte // struct sockaddr_in or sockaddr_in6.
	nameN uint32

	// perDatagram is at most 0 as long as the kernel segments messages to this
	// destination; otherwise they are sent one datagram at a time, for so many
	// messages before it is tried again.
	perDatagram atomic.Int32
}

// NewDest prepares a destination. The address must be a unicast one without a
// zone, the port not 0. One of another family than the Underlay's is unreachable:
// messages to it are dropped, TxDown.
func NewDest(to netip.AddrPort) (*Dest, error) {
	ip := to.Addr().Unmap()
	switch {
	case !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast():
		return nil, fmt.Errorf("peer address %s: not one host's address", to)
	case ip.Zone() != "":
		return nil, fmt.Errorf("peer address %s: link-local addresses with a zone can't be used; give a global one", to)
	case to.Port() == 0:
		return nil, fmt.Errorf("peer address %s: port 0", to)
	}
	d := &Dest{addr: AddrOf(to)}
	d.nameN = putSockaddr(&d.name, netip.AddrPortFrom(ip, to.Port()))
	return d, nil
}

// Addr returns the destination's address in compact form.
func (d *Dest) Addr() Addr { return d.addr }

// Segments tells whether the kernel segments what goes to this destination;
// false where its route or device has refused UDP_SEGMENT and every datagram is
// a message of its own. It is as of now: it is tried again from time to time.
func (d *Dest) Segments() bool { return d.perDatagram.Load() <= 0 }

// putSockaddr writes struct sockaddr_in (ip(7)) or sockaddr_in6 (ipv6(7)) and
// returns its length.
func putSockaddr(b *[unix.SizeofSockaddrInet6]byte, ap netip.AddrPort) uint32 {
	*b = [unix.SizeofSockaddrInet6]byte{}
	binary.BigEndian.PutUint16(b[2:], ap.Port())
	if ip := ap.Addr().Unmap(); ip.Is4() {
		binary.NativeEndian.PutUint16(b[:], unix.AF_INET)
		a := ip.As4()
		copy(b[4:], a[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(b[:], unix.AF_INET6)
	a := ap.Addr().As16()
	copy(b[8:], a[:])
	return unix.SizeofSockaddrInet6
}
