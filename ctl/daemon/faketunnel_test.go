package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/hashicorp/memberlist"

	"heddle/dataplane"
	"heddle/tunnel/mesh"
	"heddle/tunnel/underlay"
)

// fakeWire joins hosts in memory: datagrams of tunnels, and gossip.
type fakeWire struct {
	mu     sync.Mutex
	ports  map[netip.AddrPort]*fakeUnderlay
	gossip map[string]*fakeGossip
	cut    map[string]bool // Where nothing comes or goes.
}

// newWire joins hosts at 192.0.2.1 and so on.
func newWire(hosts ...*fakeHost) *fakeWire {
	w := &fakeWire{ports: make(map[netip.AddrPort]*fakeUnderlay), gossip: make(map[string]*fakeGossip), cut: make(map[string]bool)}
	for i, h := range hosts {
		h.wire, h.at = w, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		h.paths = make(map[netip.Addr]int)
	}
	return w
}

// fakeUnderlay is a UDP port in memory with one queue.
type fakeUnderlay struct {
	h     *fakeHost
	local netip.AddrPort // As it was asked for.
	own   netip.AddrPort

	mu    sync.Mutex
	queue []fakeDatagram
	out   []underlay.Datagram
}

type fakeDatagram struct {
	data []byte
	src  underlay.Addr
	tos  uint8
}

func (h *fakeHost) openUnderlay(at netip.AddrPort, _ int) (underlayPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.portTaken {
		return nil, fmt.Errorf("listen at %s: %w", at, syscall.EADDRINUSE)
	}
	u := &fakeUnderlay{h: h, local: at, own: netip.AddrPortFrom(h.at, at.Port())}
	if h.wire != nil {
		h.wire.mu.Lock()
		defer h.wire.mu.Unlock()
		h.wire.ports[u.own] = u
	}
	h.opened++
	return u, nil
}

func (u *fakeUnderlay) Recv(int) ([]underlay.Datagram, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out = u.out[:0]
	for _, d := range u.queue[:min(len(u.queue), dataplane.BatchSize)] {
		buf := make([]byte, dataplane.Headroom+dataplane.MaxFrame)
		copy(buf[dataplane.Headroom:], d.data)
		u.out = append(u.out, underlay.Datagram{
			Buf: buf, Off: dataplane.Headroom, Len: len(d.data), SegSize: len(d.data), Src: d.src, TOS: d.tos,
		})
	}
	u.queue = u.queue[len(u.out):]
	return u.out, len(u.queue) > 0
}

func (u *fakeUnderlay) Send(_ int, msgs []underlay.Message) {
	for i := range msgs {
		m := &msgs[i]
		var all []byte
		for _, v := range m.Iovs {
			all = append(all, unsafe.Slice(v.Base, v.Len)...)
		}
		to := u.h.wire.port(m.Dest.Addr().AddrPort())
		for len(all) > 0 && to != nil {
			n := min(m.SegSize, len(all))
			to.put(fakeDatagram{bytes.Clone(all[:n]), underlay.AddrOf(netip.AddrPortFrom(u.h.address(), 50000)), m.TOS})
			all = all[n:]
		}
		m.Drop = dataplane.None
	}
}

func (w *fakeWire) port(at netip.AddrPort) *fakeUnderlay {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ports[at]
}

func (u *fakeUnderlay) put(d fakeDatagram) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) < 1000 {
		u.queue = append(u.queue, d)
	}
}

func (u *fakeUnderlay) FD(int) int            { return -1 }
func (u *fakeUnderlay) Local() netip.AddrPort { return u.local }
func (u *fakeUnderlay) lost() uint64          { return 0 }

func (u *fakeUnderlay) Close() error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	u.h.opened--
	if u.h.wire != nil {
		u.h.wire.mu.Lock()
		defer u.h.wire.mu.Unlock()
		delete(u.h.wire.ports, u.own)
	}
	return nil
}

func (u *fakeUnderlay) paths(to []netip.Addr) []path {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	all := make([]path, len(to))
	for i, a := range to {
		switch mtu, set := u.h.paths[a]; {
		case !set:
			all[i].mtu = 1500
		case mtu == 0:
			all[i].err = syscall.EHOSTUNREACH
		default:
			all[i].mtu = mtu
		}
	}
	return all
}

// address is at; a test may change it.
func (h *fakeHost) address() netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *fakeHost) source(to netip.Addr) (netip.Addr, error) {
	at := h.address()
	if !at.IsValid() {
		return netip.Addr{}, fmt.Errorf("a way to %s: %w", to, syscall.ENETUNREACH)
	}
	return at, nil
}

func (h *fakeHost) addresses() ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsValid() {
		return nil, nil
	}
	all := []netip.Addr{h.at}
	for _, l := range h.links {
		if l.ns == "" {
			for _, p := range l.o.ips {
				all = append(all, p.Addr())
			}
		}
	}
	return all, nil
}

func (h *fakeHost) gossip(c *mesh.Config) {
	g := &fakeGossip{
		wire: h.wire, at: netip.AddrPortFrom(h.address(), c.Bind.Port()), closed: make(chan struct{}),
		packets: make(chan *memberlist.Packet, 1000), streams: make(chan net.Conn, 10),
	}
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	h.wire.gossip[g.at.String()] = g
	c.Transport = g
}

// fakeGossip is a memberlist.Transport of a wire.
type fakeGossip struct {
	wire    *fakeWire
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
}

func (g *fakeGossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.at.Addr().AsSlice(), int(g.at.Port()), nil
}

func (g *fakeGossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *fakeGossip) StreamCh() <-chan net.Conn           { return g.streams }

// to returns who listens at an address, nil if nobody does or a cut is between.
func (g *fakeGossip) to(addr string) *fakeGossip {
	g.wire.mu.Lock()
	defer g.wire.mu.Unlock()
	if g.wire.cut[g.at.String()] || g.wire.cut[addr] {
		return nil
	}
	return g.wire.gossip[addr]
}

func (g *fakeGossip) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if to := g.to(addr); to != nil {
		from := net.UDPAddrFromAddrPort(g.at)
		select {
		case to.packets <- &memberlist.Packet{Buf: bytes.Clone(b), From: from, Timestamp: now}:
		default: // Its queue is full, as a socket's.
		}
	}
	return now, nil
}

func (g *fakeGossip) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	to := g.to(addr)
	if to == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	here, there := net.Pipe()
	select {
	case to.streams <- there:
		return here, nil
	case <-to.closed:
		return nil, errors.Join(syscall.ECONNREFUSED, here.Close(), there.Close())
	}
}

func (g *fakeGossip) Shutdown() error {
	g.wire.mu.Lock()
	defer g.wire.mu.Unlock()
	if g.wire.gossip[g.at.String()] == g {
		delete(g.wire.gossip, g.at.String())
		close(g.closed)
	}
	return nil
}

func netipAddr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func netipAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
