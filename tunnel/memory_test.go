package tunnel

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"unsafe"

	"heddle/dataplane"
	"heddle/tunnel/underlay"
)

// internet joins underlays in memory by their addresses.
type internet struct {
	mu    sync.Mutex
	hosts map[netip.Addr]*memUnderlay
}

// memUnderlay is an Underlay in memory. Fields are set before it is used.
type memUnderlay struct {
	net   *internet
	local netip.AddrPort
	// join hands a message of several datagrams over as one, as UDP_GRO does.
	join bool
	// tos, if not nil, is what routers make of the TOS byte.
	tos func(uint8) uint8
	// fail is what every Send ends with.
	fail dataplane.Drop

	mu    sync.Mutex
	queue [][]packet            // By worker.
	lent  [][]underlay.Datagram // By worker: what the last Recv gave.
	free  [][][]byte            // By worker: buffers that may be lent.
	sent  []underlay.Message    // With Iovs nil: what it was told to send.
	calls int
}

// packet is a datagram, or several joined.
type packet struct {
	data    []byte
	segSize int
	src     underlay.Addr
	tos     uint8
}

// poison is what a buffer holds that is no longer lent.
var poison = bytes.Repeat([]byte{0xdb}, dataplane.Headroom+dataplane.MaxFrame)

func newInternet() *internet { return &internet{hosts: map[netip.Addr]*memUnderlay{}} }

func (n *internet) host(addr string, workers int) *memUnderlay {
	u := &memUnderlay{
		net: n, local: netip.AddrPortFrom(netip.MustParseAddr(addr), 4789), join: true,
		queue: make([][]packet, workers), lent: make([][]underlay.Datagram, workers), free: make([][][]byte, workers),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[u.local.Addr()] = u
	return u
}

func (u *memUnderlay) FD(int) int            { return -1 }
func (u *memUnderlay) Local() netip.AddrPort { return u.local }
func (u *memUnderlay) Close() error          { return nil }

func (u *memUnderlay) Send(worker int, msgs []underlay.Message) {
	u.mu.Lock()
	u.calls++
	u.mu.Unlock()
	for i := range msgs {
		m := &msgs[i]
		m.Drop = u.fail
		var data []byte
		for _, iov := range m.Iovs {
			data = append(data, unsafe.Slice(iov.Base, iov.Len)...)
		}
		if len(data) != m.Len {
			panic("message length")
		}
		u.mu.Lock()
		u.sent = append(u.sent, underlay.Message{Len: m.Len, SegSize: m.SegSize, Entropy: m.Entropy, TOS: m.TOS, Frames: m.Frames, Bytes: m.Bytes})
		u.mu.Unlock()
		if m.Drop != dataplane.None {
			continue
		}
		u.net.mu.Lock()
		to := u.net.hosts[m.Dest.Addr().AddrPort().Addr()]
		u.net.mu.Unlock()
		if to == nil {
			continue
		}
		src := underlay.AddrOf(netip.AddrPortFrom(u.local.Addr(), 49152+m.Entropy))
		if to.join {
			to.receive(int(m.Entropy), packet{data, m.SegSize, src, m.TOS})
			continue
		}
		for at := 0; at < len(data); at += m.SegSize {
			piece := data[at:min(at+m.SegSize, len(data))]
			to.receive(int(m.Entropy), packet{piece, len(piece), src, m.TOS})
		}
	}
}

// receive puts a packet into a worker's queue.
func (u *memUnderlay) receive(hash int, p packet) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tos != nil {
		p.tos = u.tos(p.tos)
	}
	w := hash % len(u.queue)
	u.queue[w] = append(u.queue[w], p)
}

func (u *memUnderlay) Recv(worker int) ([]underlay.Datagram, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, d := range u.lent[worker] {
		copy(d.Buf[:d.Off+d.Len], poison) // Nobody may look at it any more.
		u.free[worker] = append(u.free[worker], u.lent[worker][i].Buf)
	}
	u.lent[worker] = u.lent[worker][:0]
	n := min(len(u.queue[worker]), dataplane.BatchSize)
	for _, p := range u.queue[worker][:n] {
		var buf []byte
		if free := u.free[worker]; len(free) > 0 {
			buf, u.free[worker] = free[len(free)-1], free[:len(free)-1]
		} else {
			buf = make([]byte, dataplane.Headroom+dataplane.MaxFrame)
		}
		copy(buf[dataplane.Headroom:], p.data)
		u.lent[worker] = append(u.lent[worker], underlay.Datagram{
			Buf: buf, Off: dataplane.Headroom, Len: len(p.data), SegSize: max(p.segSize, 1), Src: p.src, TOS: p.tos,
		})
	}
	u.queue[worker] = u.queue[worker][n:]
	return u.lent[worker], len(u.queue[worker]) > 0
}

// take returns the messages sent since the last call.
func (u *memUnderlay) take() []underlay.Message {
	u.mu.Lock()
	defer u.mu.Unlock()
	sent := u.sent
	u.sent = nil
	return sent
}

// inject is a datagram from an address.
func (u *memUnderlay) inject(from string, tos uint8, data []byte) {
	u.receive(0, packet{data, len(data), underlay.AddrOf(netip.MustParseAddrPort(from)), tos})
}

// site is a VTEP with a network that notes what comes in.
type site struct {
	t     testing.TB
	u     *memUnderlay
	v     *VTEP
	batch *dataplane.Batch
	now   int64
}

// network is a Sink that keeps copies of what it is given.
type network struct {
	mu   sync.Mutex
	got  []received
	push func(*dataplane.Batch)
}

type received struct {
	in   dataplane.PortID
	data []byte
	f    dataplane.Frame // Owes is valid.
}

func (n *network) Push(b *dataplane.Batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := b.Sel; s != 0; s &= s - 1 {
		f := &b.Frames[dataplane.First(s)]
		if f.Off < dataplane.Headroom {
			panic("a frame without headroom")
		}
		n.got = append(n.got, received{b.In, append([]byte(nil), f.Bytes()...), dataplane.Frame{Owes: f.Owes}})
		// Whoever holds a frame may write to its headroom.
		copy(f.WithHeadroom(dataplane.Headroom)[:dataplane.Headroom], poison)
	}
	if n.push != nil {
		n.push(b)
	}
}

func (n *network) take() []received {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.got
	n.got = nil
	return got
}

func newSite(t testing.TB, u *memUnderlay) *site {
	t.Helper()
	v, err := New(Config{Workers: len(u.queue), Underlay: u})
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, u: u, v: v, batch: dataplane.NewBatch(0), now: 1}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) peer(name, addr string) *Peer {
	s.t.Helper()
	p, err := s.v.AddPeer(PeerConfig{Name: name, Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)})
	s.must(err)
	return p
}

func (s *site) tunnel(p *Peer, vni uint32, id dataplane.PortID, n dataplane.Sink) *Tunnel {
	s.t.Helper()
	t, err := s.v.AddTunnel(p, TunnelConfig{VNI: vni, Port: id, Network: n})
	s.must(err)
	return t
}

// pull has the VTEP pull and push on until nothing is left, on worker 0.
func (s *site) pull() {
	s.t.Helper()
	for {
		s.batch.Reset()
		s.batch.In, s.batch.Now = 77, s.now
		s.v.Pull(s.batch)
		if s.batch.N > 0 {
			s.v.Push(s.batch)
			if s.batch.In != 77 {
				s.t.Fatalf("Push left In %d", s.batch.In)
			}
		} else if !s.batch.More {
			return
		}
	}
}

// send pushes frames into a tunnel, in one batch.
func (s *site) send(t *Tunnel, frames ...dataplane.Frame) {
	s.t.Helper()
	b := dataplane.NewBatch(0)
	b.Now = s.now
	for _, f := range frames {
		*b.Next() = f
		b.Add()
	}
	t.Push(b)
}

// frameOf is a frame in a buffer of its own.
func frameOf(data []byte) dataplane.Frame {
	buf := make([]byte, dataplane.Headroom+len(data))
	copy(buf[dataplane.Headroom:], data)
	return dataplane.Frame{Buf: buf, Off: dataplane.Headroom, Len: len(data)}
}

// pair is two sites that are each other's peers, with a tunnel of VNI 42 on
// port 5 between them.
type pair struct {
	a, b       *site
	ta, tb     *Tunnel
	netA, netB *network
}

func newPair(t testing.TB, addrA, addrB string) *pair {
	t.Helper()
	n := newInternet()
	p := &pair{netA: &network{}, netB: &network{}}
	p.a, p.b = newSite(t, n.host(addrA, 1)), newSite(t, n.host(addrB, 1))
	p.ta = p.a.tunnel(p.a.peer("b", addrB), 42, 5, p.netA)
	p.tb = p.b.tunnel(p.b.peer("a", addrA), 42, 5, p.netB)
	return p
}
