package proxy

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A datagram is at most this long, with room for the control message that says
// where it was sent to.
const (
	maxDatagram = 65535
	maxControl  = 64
)

// datagram is a buffer for one. There are as many as are carried at a moment:
// a socket that waits has none.
type datagram struct {
	b       [maxDatagram]byte
	control [maxControl]byte
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// clientKey tells a UDP client from others of the port.
type clientKey struct {
	from netip.AddrPort
	// to is the control message that says where it sent to, and says the same
	// to the kernel when an answer is sent (IP_PKTINFO of ip(7), RFC 3542 6.1).
	to string
}

// client is a UDP session.
type client struct {
	key      clientKey
	listener *net.UDPConn
	inside   *net.UDPConn
	timeouts *Timeouts
	answered atomic.Bool
}

func (c *client) end() { _ = c.inside.Close() } // It has ended already, then.

// touch makes it last on from now. Both directions call it: one that has found
// no answer yet must not cut short what the other has just made of the first.
func (c *client) touch() {
	for {
		answered, limit := c.answered.Load(), c.timeouts.UDPOneWay
		if answered {
			limit = c.timeouts.UDP
		}
		_ = c.inside.SetReadDeadline(time.Now().Add(limit)) // It fails when it is closed.
		if c.answered.Load() == answered {
			return
		}
	}
}

// local returns the address that it sent to.
func (k *clientKey) local() netip.Addr {
	messages, err := unix.ParseSocketControlMessage([]byte(k.to))
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:])) // struct in_pktinfo: ipi_addr.
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data)).Unmap()
		}
	}
	return netip.Addr{}
}

// port is the clients of a socket.
type port struct {
	held   *held
	socket *net.UDPConn

	mu      sync.Mutex
	clients map[clientKey]*client
}

// receive carries the datagrams that come to a socket to the containers.
func (s *holder) receive(socket *net.UDPConn) {
	p := &port{held: s.port, socket: socket, clients: make(map[clientKey]*client)}
	for {
		d, n, oob, from, err := await(socket)
		if s.isClosed() {
			return
		}
		if err != nil { // No memory; UDP has hardly another reason.
			s.pause()
			continue
		}
		p.forward(clientKey{from, string(d.control[:oob])}, d.b[:n])
		datagrams.Put(d)
	}
}

// await waits for a datagram and then takes a buffer for it, which the caller
// gives back unless there is an error.
func await(socket *net.UDPConn) (d *datagram, n, oob int, from netip.AddrPort, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, 0, 0, from, err
	}
	var name unix.Sockaddr
	var received error
	err = raw.Read(func(fd uintptr) bool {
		d = datagrams.Get().(*datagram)
		for {
			n, oob, _, name, received = unix.Recvmsg(int(fd), d.b[:], d.control[:], 0)
			if received != unix.EINTR {
				break
			}
		}
		if received != nil {
			datagrams.Put(d)
		}
		return received != unix.EAGAIN
	})
	if err == nil {
		err = received
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		from = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return d, n, oob, from, err
}

// forward sends a datagram on; the client's first makes a session.
func (p *port) forward(key clientKey, b []byte) {
	p.mu.Lock()
	c := p.clients[key]
	p.mu.Unlock()
	if c == nil {
		if c = p.open(key); c == nil {
			return
		}
	}
	c.touch()
	_, _ = c.inside.Write(b) // What can't be sent is lost, as on any way.
}

func (p *port) open(key clientKey) *client {
	to := p.held.pick(key.local())
	l := to.l
	if l == nil || !l.admit() {
		return nil
	}
	inside, err := l.dial("udp", to.offset)
	if err != nil {
		l.failed.Add(1)
		l.leave()
		return nil
	}
	c := &client{key: key, listener: p.socket, inside: inside.(*net.UDPConn), timeouts: &l.proxy.config.Timeouts}
	if !l.add(c) {
		c.end()
		l.leave()
		return nil
	}
	p.mu.Lock()
	p.clients[key] = c
	p.mu.Unlock()
	carry := func() {
		c.answer()
		p.mu.Lock()
		delete(p.clients, key)
		p.mu.Unlock()
		l.remove(c)
		c.end()
		l.leave()
	}
	if !l.begin(carry) {
		c.end()
		carry() // Which ends at once.
		return nil
	}
	return c
}

// answer carries what comes from the container, until nothing has come for too
// long or the container's port is closed (ECONNREFUSED).
func (c *client) answer() {
	for {
		d, n, _, _, err := await(c.inside)
		if err != nil {
			return
		}
		c.answered.Store(true)
		c.touch()
		_, _, _ = c.listener.WriteMsgUDPAddrPort(d.b[:n], []byte(c.key.to), c.key.from)
		datagrams.Put(d)
	}
}
