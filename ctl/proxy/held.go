package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// heldKey is a port of a protocol.
type heldKey struct {
	proto uint8
	port  uint16
}

// held is a port that is held for all publications that have it: they share its
// sockets, and what comes is for the one that is most specific where it came to.
type held struct {
	key    heldKey
	claims atomic.Pointer[[]claim] // As published; replaced, never changed.

	// Proxy.mu guards these. The zero Addr stands for all addresses of both
	// families.
	sockets map[netip.Addr]*holder
}

// claim is what a publication has of a port.
type claim struct {
	l      *Listener
	offset int // Of the port from the publication's first.
}

// holder is a socket that holds a port, and the goroutine that serves it.
type holder struct {
	port   *held
	socket io.Closer // *net.TCPListener, *net.UDPConn, or for SCTP *os.File.
	closed chan struct{}
	done   sync.WaitGroup
}

// pick returns whose a session is that came to an address of the host's; the
// zero claim if it is nobody's.
func (h *held) pick(local netip.Addr) (best claim) {
	rank, width := 0, 0
	for _, c := range *h.claims.Load() {
		r, w := c.l.fits(local), int(c.l.pub.Ports.Last-c.l.pub.Ports.First)
		if r > rank || r == rank && r > 0 && w < width {
			best, rank, width = c, r, w
		}
	}
	return best
}

// fits tells how specific a publication is for an address: 0 if it isn't for
// that; less for one of all addresses than for one that has it, and of the former
// more for that to whose uplink it belongs.
func (l *Listener) fits(local netip.Addr) int {
	all := len(l.pub.Addrs) == 0
	for _, a := range l.pub.Addrs {
		if a.Unmap() == local {
			return 3
		}
		all = all || a == netip.IPv4Unspecified() && local.Is4()
	}
	if home := l.home.Load(); !all {
		return 0
	} else if home != nil && slices.Contains(*home, local) {
		return 2
	}
	return 1
}

// wanted returns the addresses at which the port is to be bound.
func (h *held) wanted() (addrs []netip.Addr) {
	all4 := false
	for _, c := range *h.claims.Load() {
		if len(c.l.pub.Addrs) == 0 {
			return []netip.Addr{{}}
		}
		for _, a := range c.l.pub.Addrs {
			all4 = all4 || a == netip.IPv4Unspecified()
			if !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	if all4 {
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() && !a.IsUnspecified() })
	}
	return addrs
}

// hold adds a publication's claim on a port. On failure nothing has changed.
// The caller holds mu and is inside the host's namespace.
func (p *Proxy) hold(key heldKey, c claim) error {
	h := p.held[key]
	if h == nil {
		h = &held{key: key, sockets: make(map[netip.Addr]*holder)}
		h.claims.Store(new([]claim))
		p.held[key] = h
	}
	was := *h.claims.Load()
	now := append(slices.Clone(was), c)
	h.claims.Store(&now)
	err := p.rebind(h, here)
	if err != nil {
		h.claims.Store(&was)
		err = errors.Join(err, p.rebind(h, here))
	}
	return err
}

// release takes it back. The caller holds mu.
func (p *Proxy) release(key heldKey, l *Listener) error {
	h := p.held[key]
	if h == nil {
		return nil
	}
	now := slices.DeleteFunc(slices.Clone(*h.claims.Load()), func(c claim) bool { return c.l == l })
	h.claims.Store(&now)
	return p.rebind(h, p.config.Host.Do)
}

// here does something where the thread is.
func here(do func() error) error { return do() }

// rebind makes the sockets those that are wanted: one for all addresses can't be
// beside one for an address. inHost does something in the host's namespace. The
// caller holds mu.
func (p *Proxy) rebind(h *held, inHost func(func() error) error) error {
	want := h.wanted()
	var errs []error
	for a, s := range h.sockets {
		if !slices.Contains(want, a) {
			errs = append(errs, s.close())
			delete(h.sockets, a)
		}
	}
	if len(want) == 0 {
		delete(p.held, h.key)
		return errors.Join(errs...)
	}
	want = slices.DeleteFunc(want, func(a netip.Addr) bool { return h.sockets[a] != nil })
	if len(want) == 0 {
		return errors.Join(errs...)
	}
	err := inHost(func() error {
		for _, a := range want {
			socket, err := bindPort(h.key.proto, a, int(h.key.port))
			if err != nil {
				return p.explain(h.key.proto, a, int(h.key.port), err)
			}
			if socket != nil {
				h.sockets[a] = h.serve(socket)
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// serve starts to carry what comes to a socket.
func (h *held) serve(socket io.Closer) *holder {
	s := &holder{port: h, socket: socket, closed: make(chan struct{})}
	switch socket := socket.(type) {
	case *net.TCPListener:
		s.done.Go(func() { s.accept(socket) })
	case *net.UDPConn:
		s.done.Go(func() { s.receive(socket) })
	}
	return s
}

// close ends it and waits until it has.
func (s *holder) close() error {
	close(s.closed)
	err := s.socket.Close()
	s.done.Wait()
	return err
}

func (s *holder) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// pause waits a little when the host has no descriptor or memory left.
func (s *holder) pause() {
	for _, c := range *s.port.claims.Load() {
		c.l.failed.Add(1)
	}
	select {
	case <-s.closed:
	case <-time.After(50 * time.Millisecond):
	}
}
