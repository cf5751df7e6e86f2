package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// Bounds and defaults.
const (
	// DefaultPeers is what Config takes for 0 peers, MaxPeers bounds it.
	DefaultPeers = 4000
	MaxPeers     = 1 << 16
	// DefaultAnnounced is what Config takes for 0 announced addresses,
	// MaxAnnounced bounds it.
	DefaultAnnounced = 1_000_000
	MaxAnnounced     = 1 << 26
	// MaxLocal bounds the gateway addresses of one VNI, and the addresses of
	// the host itself that SetAddrs takes.
	MaxLocal = 1024
	// MinPathMTU is the least path MTU that is believed: IPv6's (RFC 8200 5).
	// A forged report can't push a path below.
	MinPathMTU = 1280
	// DefaultPathMTU is what a PeerConfig takes for 0.
	DefaultPathMTU = 1500
	maxPathMTU     = 65535
	// Overhead4 and Overhead6 are what a tunnel takes of a path's MTU: the
	// outer IP, UDP and VXLAN headers and the inner Ethernet header. An inner
	// packet is that much shorter, and shorter again by each inner VLAN tag.
	Overhead4 = wire.IPv4MinHdrLen + wire.UDPHdrLen + wire.VXLANHdrLen + wire.EthHdrLen
	Overhead6 = wire.IPv6HdrLen + wire.UDPHdrLen + wire.VXLANHdrLen + wire.EthHdrLen
)

// What control methods fail with, wrapped with the operation and its object.
var (
	ErrInvalid = errors.New("out of bounds")
	ErrInUse   = errors.New("in use")
	ErrUnknown = errors.New("not there")
	ErrFull    = errors.New("no room")
)

// Underlay is the UDP port that a VTEP sends and receives by:
// underlay.Underlay, or a double in memory.
type Underlay interface {
	// Recv and Send are as underlay.Underlay has them.
	Recv(worker int) (in []underlay.Datagram, more bool)
	Send(worker int, msgs []underlay.Message)
	// FD returns the descriptor that becomes readable when Recv has
	// something, or -1 if it is to be polled.
	FD(worker int) int
	// Local returns the address and port that it receives at; the address may
	// be unspecified, and tells the family.
	Local() netip.AddrPort
	Close() error
}

var _ Underlay = (*underlay.Underlay)(nil)

// Config is what a VTEP is made from.
type Config struct {
	// Workers is the number of workers that pull and push, at least 1.
	Workers int
	// Underlay is closed by VTEP.Close.
	Underlay Underlay
	// MaxPeers bounds the peers; 0 means DefaultPeers.
	MaxPeers int
	// MaxAnnounced bounds the announced addresses of all networks, at 43 to 85
	// bytes each; 0 means DefaultAnnounced.
	MaxAnnounced int
}

// VTEP is this host's end of all tunnels (RFC 7348 4): one engine port for what
// comes in, one Tunnel for each peer and network for what goes out.
//
// Pull and Push are for workers. The other methods are for control code, from
// any goroutine but a worker's.
type VTEP struct {
	// Immutable after New.
	under        Underlay
	local        netip.AddrPort
	v6           bool
	maxPeers     int
	maxAnnounced int
	workers      []worker
	counters     *dataplane.Counters

	// Workers load, control code stores.
	ends  atomic.Pointer[ends]
	known neighbours

	mu      sync.Mutex // Held by one control method at a time; guards what follows.
	peers   []*Peer
	own     []addr // What SetAddrs said, and local.
	tunnels map[dataplane.PortID]*Tunnel
	gates   map[uint32]*gates // By VNI; only of networks that have some.
	refused Refused
}

// Peer is another host. Its methods are for control code.
type Peer struct {
	// Immutable.
	vtep *VTEP
	name string
	to   netip.AddrPort
	addr addr
	dest *underlay.Dest

	routes atomic.Pointer[routes]
	// maxLen is the longest inner frame in bytes, tags included.
	maxLen  atomic.Int32
	pathMTU atomic.Int32
	// heard is the Batch.Now of the last datagram, to the second, 0 for none.
	heard atomic.Int64

	tunnels []*Tunnel // VTEP.mu guards it.
	gone    bool      // Likewise.
}

// PeerConfig is what control code chooses for a peer.
type PeerConfig struct {
	// Name is for people and errors.
	Name string
	// Addr is its VTEP's address and port, of the underlay's family; port 0
	// means the port of this VTEP. Datagrams from any port of that address are
	// the peer's.
	Addr netip.AddrPort
	// PathMTU is the longest IP packet in bytes that reaches it; 0 means
	// DefaultPathMTU. See SetPathMTU.
	PathMTU int
}

// New returns a VTEP without peers. It takes over the underlay, also where it
// fails.
func New(c Config) (*VTEP, error) {
	v, err := newVTEP(c)
	if err != nil {
		if c.Underlay != nil {
			_ = c.Underlay.Close()
		}
		return nil, fmt.Errorf("new VTEP: %w", err)
	}
	return v, nil
}

func newVTEP(c Config) (*VTEP, error) {
	if c.MaxPeers == 0 {
		c.MaxPeers = DefaultPeers
	}
	if c.MaxAnnounced == 0 {
		c.MaxAnnounced = DefaultAnnounced
	}
	switch {
	case c.Underlay == nil:
		return nil, fmt.Errorf("without an underlay: %w", ErrInvalid)
	case c.Workers < 1 || c.Workers > dataplane.MaxWorkers:
		return nil, fmt.Errorf("%d workers: %w: want 1 to %d", c.Workers, ErrInvalid, dataplane.MaxWorkers)
	case c.MaxPeers < 1 || c.MaxPeers > MaxPeers:
		return nil, fmt.Errorf("%d peers: %w: want 1 to %d", c.MaxPeers, ErrInvalid, MaxPeers)
	case c.MaxAnnounced < 1 || c.MaxAnnounced > MaxAnnounced:
		return nil, fmt.Errorf("%d announced addresses: %w: want 1 to %d", c.MaxAnnounced, ErrInvalid, MaxAnnounced)
	}
	v := &VTEP{
		under:        c.Underlay,
		local:        c.Underlay.Local(),
		maxPeers:     c.MaxPeers,
		maxAnnounced: c.MaxAnnounced,
		workers:      make([]worker, c.Workers),
		counters:     dataplane.NewCounters(c.Workers),
		tunnels:      map[dataplane.PortID]*Tunnel{},
		gates:        map[uint32]*gates{},
	}
	v.v6 = v.local.Addr().Unmap().Is6()
	v.own = v.localAddrs(nil)
	v.known.init()
	v.publish()
	for i := range v.workers {
		v.workers[i].init(v, i)
	}
	return v, nil
}

// Local returns the address and port that the VTEP receives at.
func (v *VTEP) Local() netip.AddrPort { return v.local }

// Close implements dataplane.Port: it closes the underlay. The engine has let
// go of the VTEP, and the networks of its tunnels.
func (v *VTEP) Close() error { return v.under.Close() }

// publish makes the peers' and own addresses what workers see.
func (v *VTEP) publish() { v.ends.Store(newEnds(v.peers, v.own, v.local.Port())) }

// SetAddrs says which addresses the host itself has, at most MaxLocal: what
// the VTEP receives at if its own address is unspecified, directed broadcasts
// included. Only Guard looks at them.
func (v *VTEP) SetAddrs(addrs []netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return fmt.Errorf("set the host's addresses: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.own = v.localAddrs(addrs)
	v.publish()
	return nil
}

// localAddrs returns the addresses and that of the VTEP, if it has one.
func (v *VTEP) localAddrs(addrs []netip.Addr) []addr {
	var own []addr
	if ip := v.local.Addr(); ip.IsValid() && !ip.IsUnspecified() {
		own = append(own, addrOf(ip))
	}
	for _, a := range addrs {
		own = append(own, addrOf(a))
	}
	return own
}

func checkAddrs(addrs []netip.Addr) error {
	if len(addrs) > MaxLocal {
		return fmt.Errorf("%d addresses: %w: at most %d", len(addrs), ErrFull, MaxLocal)
	}
	if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }) {
		return fmt.Errorf("%v: %w: want addresses of interfaces", addrs, ErrInvalid)
	}
	return nil
}

// AddPeer makes a peer, without tunnels. It fails with ErrInUse if another has
// its address, ErrFull if there are too many, and ErrInvalid if the address is
// not one host's of the underlay's family.
func (v *VTEP) AddPeer(c PeerConfig) (*Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, err := v.newPeer(c)
	if err != nil {
		return nil, fmt.Errorf("add peer %s: %w", c.Name, err)
	}
	v.peers = append(v.peers, p)
	v.publish()
	return p, nil
}

func (v *VTEP) newPeer(c PeerConfig) (*Peer, error) {
	if c.Addr.Port() == 0 {
		c.Addr = netip.AddrPortFrom(c.Addr.Addr(), v.local.Port())
	}
	if c.PathMTU == 0 {
		c.PathMTU = DefaultPathMTU
	}
	dest, err := underlay.NewDest(c.Addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if c.Addr.Addr().Unmap().Is6() != v.v6 {
		return nil, fmt.Errorf("address %v: %w: the VTEP receives at %v, and peers are of the same family", c.Addr, ErrInvalid, v.local)
	}
	p := &Peer{vtep: v, name: c.Name, to: c.Addr, addr: addrOf(c.Addr.Addr()), dest: dest}
	if end := v.ends.Load().at(p.addr); end.peer != nil {
		return nil, fmt.Errorf("address %v: %w by peer %s", c.Addr.Addr(), ErrInUse, end.peer.name)
	}
	if len(v.peers) >= v.maxPeers {
		v.refused.Peers++
		return nil, fmt.Errorf("%w: there are %d", ErrFull, len(v.peers))
	}
	if err := p.setPathMTU(c.PathMTU); err != nil {
		return nil, err
	}
	p.routes.Store(newRoutes(nil))
	return p, nil
}

// RemovePeer ends a peer: what comes from it is a stranger's from a worker's
// next batch on. It fails with ErrInUse while it has tunnels, and with
// ErrUnknown if it is gone.
func (v *VTEP) RemovePeer(p *Peer) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case p.vtep != v || p.gone:
		return fmt.Errorf("remove peer %s: %w", p.name, ErrUnknown)
	case len(p.tunnels) > 0:
		return fmt.Errorf("remove peer %s: %w by %d tunnels: remove them first", p.name, ErrInUse, len(p.tunnels))
	}
	p.gone = true
	v.peers = slices.DeleteFunc(v.peers, func(o *Peer) bool { return o == p })
	v.publish()
	return nil
}

// SetPathMTU says how long an IP packet may be to reach the peer: at most
// 65,535 bytes; what is below MinPathMTU is taken for MinPathMTU. It takes
// effect with the next frame.
func (v *VTEP) SetPathMTU(p *Peer, mtu int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := p.setPathMTU(mtu); err != nil {
		return fmt.Errorf("set path MTU of peer %s: %w", p.name, err)
	}
	return nil
}

func (p *Peer) setPathMTU(mtu int) error {
	if mtu < 0 || mtu > maxPathMTU {
		return fmt.Errorf("path MTU %d: %w: want %d to %d", mtu, ErrInvalid, MinPathMTU, maxPathMTU)
	}
	mtu = max(mtu, MinPathMTU)
	p.pathMTU.Store(int32(mtu))
	p.maxLen.Store(int32(mtu - p.vtep.overhead() + wire.EthHdrLen))
	return nil
}

// overhead returns Overhead4 or Overhead6.
func (v *VTEP) overhead() int {
	if v.v6 {
		return Overhead6
	}
	return Overhead4
}

// Name returns the peer's name.
func (p *Peer) Name() string { return p.name }

// Addr returns the address and port that its datagrams are sent to.
func (p *Peer) Addr() netip.AddrPort { return p.to }

// PathMTU returns the length in bytes of the longest IP packet that reaches it.
func (p *Peer) PathMTU() int { return int(p.pathMTU.Load()) }

// MTU returns the length in bytes of the longest inner IP packet, untagged,
// that reaches it: the path MTU less Overhead4 or Overhead6.
func (p *Peer) MTU() int { return int(p.maxLen.Load()) - wire.EthHdrLen }

// Segments tells whether the kernel segments what is sent to the peer
// (UDP_SEGMENT), as of now.
func (p *Peer) Segments() bool { return p.dest.Segments() }
