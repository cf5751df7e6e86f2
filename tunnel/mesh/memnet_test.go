package mesh

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// memNet is a network in memory: UDP with delay and loss, TCP by pipes, and
// cuts. It runs on whatever clock its goroutines see.
type memNet struct {
	mu    sync.Mutex
	hosts map[string]*memHost // By address and port.
	cut   func(from, to string) bool
	loss  float64
	delay time.Duration // One way; half of it again at random.

	// What was sent, headers left out: UDP, TCP both ways, and of that the streams
	// in which only who dialled spoke, which an exchange of states is not.
	bytes, streamBytes, oneWayBytes atomic.Int64
}

func newMemNet() *memNet {
	return &memNet{hosts: map[string]*memHost{}, delay: 500 * time.Microsecond}
}

// set changes the network's weather.
func (n *memNet) set(cut func(from, to string) bool, loss float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut, n.loss = cut, loss
}

// memHost is one address of it, a memberlist.Transport.
type memHost struct {
	net     *memNet
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
}

// listen opens an address; what listened there before is cut off.
func (n *memNet) listen(addr netip.AddrPort) *memHost {
	h := &memHost{net: n, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr.String()] = h
	return h
}

// route returns who is reached at an address, or nil, and whether the way is
// cut.
func (h *memHost) route(to string) (*memHost, bool) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut != nil && n.cut(h.addr.String(), to) {
		return nil, true
	}
	return n.hosts[to], false
}

func (h *memHost) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}

func (h *memHost) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	h.net.bytes.Add(int64(len(b)))
	to, _ := h.route(addr)
	h.net.mu.Lock()
	loss, delay := h.net.loss, h.net.delay
	h.net.mu.Unlock()
	if to == nil || rand.Float64() < loss {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(h.addr)}
	time.AfterFunc(delay+rand.N(delay/2+1), func() {
		p.Timestamp = time.Now()
		select {
		case to.packets <- p:
		case <-to.done:
		default: // A full socket buffer.
		}
	})
	return now, nil
}

func (h *memHost) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h *memHost) StreamCh() <-chan net.Conn           { return h.streams }

func (h *memHost) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, cut := h.route(addr)
	if to == nil {
		if cut {
			time.Sleep(timeout) // A black hole.
			return nil, errors.New("dial: i/o timeout")
		}
		return nil, errors.New("dial: connection refused")
	}
	near, far := net.Pipe()
	select {
	case to.streams <- far:
		return &memConn{Conn: near, net: h.net}, nil
	case <-to.done:
		return nil, errors.New("dial: connection refused")
	}
}

func (h *memHost) Shutdown() error {
	h.net.mu.Lock()
	if h.net.hosts[h.addr.String()] == h {
		delete(h.net.hosts, h.addr.String())
	}
	h.net.mu.Unlock()
	close(h.done)
	for {
		select {
		case c := <-h.streams:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// memConn counts what passes either way at the end that dialled.
type memConn struct {
	net.Conn
	net        *memNet
	read, sent atomic.Int64
}

func (c *memConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.net.streamBytes.Add(int64(n))
	c.read.Add(int64(n))
	return n, err
}

func (c *memConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.net.streamBytes.Add(int64(n))
	c.sent.Add(int64(n))
	return n, err
}

func (c *memConn) Close() error {
	if c.read.Load() == 0 {
		c.net.oneWayBytes.Add(c.sent.Swap(0))
	}
	return c.Conn.Close()
}
