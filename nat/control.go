package nat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Bounds and defaults.
const (
	// DefaultConns is what Config takes for 0 connections.
	DefaultConns = 1_000_000
	// MaxUplinks bounds the uplinks of a NAT, MaxAddresses those of one.
	MaxUplinks   = 256
	MaxAddresses = 1024
	// MaxRules bounds masquerades and publications together.
	MaxRules = 1<<16 - 1
	// MinMTU and MaxMTU bound a link's MTU (RFC 791: 68 bytes).
	MinMTU = 68
	MaxMTU = 65535
	// linkNeighbours bounds the neighbours of a link.
	linkNeighbours = 4096
	// waitingFrames bounds the frames that wait for a MAC, on all links.
	waitingFrames = 256
	// announcements is how often a new link says where its addresses are.
	announcements = 2
)

// What control methods fail with, wrapped with the operation and its object.
var (
	ErrInvalid = errors.New("out of bounds")
	ErrInUse   = errors.New("in use")
	ErrUnknown = errors.New("not there")
	ErrFull    = errors.New("no room")
)

// Config is what a NAT is made from.
type Config struct {
	// Workers is the number of workers that push, at least 1.
	Workers int
	// MaxConns bounds the connections, at 126 B each; 0 means DefaultConns, at
	// most MaxConns. Memory becomes resident as it is used.
	MaxConns int
	// HostConns and HostPorts bound the connections and the external ports of
	// one inside address; 0 means three quarters of what the others leave.
	HostConns, HostPorts int
	Lifetimes            Lifetimes
}

// Lifetimes says how long a connection lives without a packet from the inside.
// 0 means the default; at most MaxLifetime. A connection never ends early, and
// up to 0.3 s late.
type Lifetimes struct {
	TCPEstablished time.Duration // 7,440 s (RFC 5382 REQ-5). SCTP too.
	TCPTransitory  time.Duration // 240 s: opening or closing (RFC 5382 REQ-5). SCTP too.
	TCPReset       time.Duration // 10 s: after a RST in the window, or an ABORT.
	UDP            time.Duration // 300 s (RFC 4787 REQ-5).
	UDPOneWay      time.Duration // 30 s: nobody answered yet.
	ICMP           time.Duration // 60 s (RFC 5508 REQ-2).
}

// MaxLifetime bounds each of Lifetimes.
const MaxLifetime = 10 * 365 * 24 * time.Hour

// DefaultLifetimes is what Lifetimes takes for zeros.
var DefaultLifetimes = Lifetimes{
	TCPEstablished: 7440 * time.Second,
	TCPTransitory:  240 * time.Second,
	TCPReset:       10 * time.Second,
	UDP:            300 * time.Second,
	UDPOneWay:      30 * time.Second,
	ICMP:           60 * time.Second,
}

// NAT holds the gateways, the uplinks, the rules between them and the
// connections that they share. Its methods are for control code, from any
// goroutine but a worker's, except Tick and the Push of its links.
type NAT struct {
	config  Config
	workers []worker
	// paths is where frames go, by link.path. Workers load, control code stores.
	paths [maxPaths]atomic.Pointer[path]

	control sync.Mutex // Held by one control method at a time, before mu.

	// mu guards all that follows. A worker holds it while it translates a
	// batch, control code for a few microseconds at a time.
	mu          sync.Mutex
	generation  uint32 // Counts changes of links and neighbours; see flow.
	table       table
	fragments   fragments
	waiting     store
	rules       []rule // By number; [0] is none's.
	links       [maxPaths]*link
	gateways    [maxPaths]*Gateway // By path.
	uplinks     [maxPaths]*Uplink  // By path.
	gatewayList []*Gateway
	uplinkList  []*Uplink
}

// New returns a NAT without links.
func New(c Config) (*NAT, error) {
	if c.MaxConns == 0 {
		c.MaxConns = DefaultConns
	}
	if c.Workers < 1 || c.MaxConns < 1 || c.MaxConns > MaxConns || c.HostConns < 0 || c.HostPorts < 0 {
		return nil, fmt.Errorf("new NAT: %d workers, %d connections, %d and %d for one address: %w: want at least 1 worker, 1 to %d connections, no negative limit",
			c.Workers, c.MaxConns, c.HostConns, c.HostPorts, ErrInvalid, MaxConns)
	}
	n := &NAT{config: c, workers: make([]worker, c.Workers), rules: make([]rule, 1)}
	if err := n.table.init(&n.config); err != nil {
		return nil, fmt.Errorf("new NAT: %w", err)
	}
	n.fragments.init()
	n.waiting.init(waitingFrames)
	spent := dataplane.NewCounters(c.Workers)
	for i := range n.workers {
		n.workers[i].spent = spent
		for k := range n.workers[i].turns {
			t := &n.workers[i].turns[k]
			t.nat = n
			t.flows = &n.workers[i].flows
			t.out.Worker = i
			buf := make([]byte, dataplane.BatchSize*(dataplane.Headroom+slotSize))
			for f := range t.out.Frames {
				t.out.Frames[f].Buf = buf[: dataplane.Headroom+slotSize : dataplane.Headroom+slotSize]
				t.out.Frames[f].Off = dataplane.Headroom
				buf = buf[dataplane.Headroom+slotSize:]
			}
		}
	}
	return n, nil
}

// init makes the table: a quarter of the index stays free when every
// connection has four cells.
func (t *table) init(c *Config) error {
	var err error
	life := func(d *time.Duration, standard time.Duration) uint32 {
		if *d == 0 {
			*d = standard
		}
		if *d < 0 || *d > MaxLifetime {
			err = fmt.Errorf("lifetime %v: %w: want more than 0, at most %v", *d, ErrInvalid, MaxLifetime)
		}
		return ticks(*d)
	}
	l, std := &c.Lifetimes, &DefaultLifetimes
	t.lives = lives{
		tcpEstablished: life(&l.TCPEstablished, std.TCPEstablished),
		tcpTransitory:  life(&l.TCPTransitory, std.TCPTransitory),
		tcpReset:       life(&l.TCPReset, std.TCPReset),
		udp:            life(&l.UDP, std.UDP),
		udpOneWay:      life(&l.UDPOneWay, std.UDPOneWay),
		icmp:           life(&l.ICMP, std.ICMP),
	}
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // It never fails: crypto/rand ends the process rather.
	t.rand = random{mrand.NewChaCha8(seed)}
	t.seed = randomSeed()
	t.conns = make([]conn, c.MaxConns+1)
	t.cells = make([]uint32, c.MaxConns*16/3+8)
	t.fresh = 1
	t.exts = make([]external, 1)
	t.hosts.init(min(maxHosts, c.MaxConns))
	t.hosts.list = make([]host, len(t.hosts.keys))
	return err
}

func (t *addrTable) init(most int) {
	t.seed = randomSeed()
	t.keys = make([]addrKey, most+1)
	t.cells = make([]uint16, 2*most+2)
	t.fresh = 1
}

func (s *store) init(slots int) {
	s.buf = make([]byte, (slots+1)*slotSize)
	s.slots = make([]slot, slots+1)
	s.fresh = 1
}

func (fs *fragments) init() {
	fs.seed = randomSeed()
	fs.list = make([]fragmented, maxFragmented)
	fs.heads = make([]uint16, 2*maxFragmented)
	fs.seen = make([]uint64, maxFragmented*seenWords)
	fs.store.init(maxFragmented)
}

func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // It never fails.
	return binary.LittleEndian.Uint64(b[:])
}

// GatewayConfig is what control code chooses for a gateway.
type GatewayConfig struct {
	// Name is what errors call it.
	Name string
	// MAC is the gateway's own on its network. The network's FDB should have it
	// as a static entry of Port, so that no frame to it is ever flooded.
	MAC wire.MAC
	// Addresses are the gateway's, each with its subnet: what containers on
	// this network may have. At least one. The IPv6 link-local address that
	// belongs to the MAC comes with them if there is one of IPv6.
	Addresses []netip.Prefix
	// MTU is the network's, in bytes of L3, MinMTU to MaxMTU.
	MTU int
	// Network takes the frames that the gateway sends, as coming in by Port.
	Network dataplane.Sink
	Port    dataplane.PortID
}

// AddGateway makes a gateway. The caller attaches it to its network under
// GatewayConfig.Port, with the role of a gateway, and doesn't attach it to the
// engine. No subnet may overlap another gateway's.
func (n *NAT) AddGateway(c GatewayConfig) (*Gateway, error) {
	n.control.Lock()
	defer n.control.Unlock()
	g := &Gateway{nat: n, config: c, counters: dataplane.NewCounters(len(n.workers))}
	err := g.set(c.MAC, c.MTU, c.Addresses)
	if err == nil && len(c.Addresses) == 0 {
		err = fmt.Errorf("no address: %w: want at least one with its prefix length", ErrInvalid)
	}
	if err == nil && (c.Network == nil || c.Port == 0 || c.Port >= dataplane.MaxPorts) {
		err = fmt.Errorf("port %d of its network: %w", c.Port, ErrInvalid)
	}
	for _, o := range n.gatewayList {
		for _, a := range c.Addresses {
			for _, b := range o.config.Addresses {
				if err == nil && a.Overlaps(b) {
					err = fmt.Errorf("subnet %v: %w by gateway %s", a.Masked(), ErrInUse, o.config.Name)
				}
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("add gateway %s: %w", c.Name, err)
	}
	if hasFamily(c.Addresses, false) {
		g.addLinkLocal()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.join(&g.link, &path{sink: c.Network, id: c.Port, counters: g.counters}) {
		return nil, fmt.Errorf("add gateway %s: %w: there are %d links", c.Name, ErrFull, maxPaths-1)
	}
	n.gateways[g.path] = g
	n.gatewayList = append(n.gatewayList, g)
	return g, nil
}

// RemoveGateway ends a gateway and its connections. It fails while rules name
// it. A worker may be in it until its batch ends: wait for it with Engine.Do.
func (n *NAT) RemoveGateway(g *Gateway) error {
	n.control.Lock()
	defer n.control.Unlock()
	if n.gateways[g.path] != g {
		return fmt.Errorf("remove gateway %s: %w", g.config.Name, ErrUnknown)
	}
	for i := range n.rules {
		if r := &n.rules[i]; r.gateway == g {
			return fmt.Errorf("remove gateway %s: %w by rule %d: remove that first", g.config.Name, ErrInUse, i)
		}
	}
	n.end(func(c *conn) bool { return n.table.hosts.list[c.host].net == g.path })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gateways[g.path] = nil
	n.gatewayList = slices.DeleteFunc(n.gatewayList, func(o *Gateway) bool { return o == g })
	n.shut(&g.link)
	return nil
}

// set fills in what all links have.
func (l *link) set(mac wire.MAC, mtu int, addresses []netip.Prefix) error {
	switch {
	case mac.IsZero() || mac.IsMulticast() || mac > wire.Broadcast:
		return fmt.Errorf("MAC %v: %w: want the address of one station", mac, ErrInvalid)
	case mtu < MinMTU || mtu > MaxMTU:
		return fmt.Errorf("MTU %d: %w: want %d to %d", mtu, ErrInvalid, MinMTU, MaxMTU)
	case len(addresses) > MaxAddresses:
		return fmt.Errorf("%d addresses: %w: want at most %d", len(addresses), ErrInvalid, MaxAddresses)
	}
	l.mac, l.mtu, l.announce = mac, mtu, announcements
	l.subnets, l.own = nil, nil
	for _, a := range addresses {
		p := prefixOf(a)
		if !a.IsValid() || a.Addr().Is4In6() || p.host.isMulticast() || p.host.isLocal() && !p.host.isLinkLocal6() || p.isBroadcast(p.host) {
			return fmt.Errorf("address %v: %w: want one that a station can have, with its prefix length", a, ErrInvalid)
		}
		if l.isOwn(p.host) {
			return fmt.Errorf("address %v: %w: it is there twice", a, ErrInvalid)
		}
		l.subnets = append(l.subnets, p)
		l.own = append(l.own, p.host)
	}
	return nil
}

// addLinkLocal adds the address that a MAC gives (RFC 4291 appendix A).
func (l *link) addLinkLocal() {
	m := uint64(l.mac)
	a := addr{hi: 0xfe80 << 48, lo: (m>>24^1<<17)<<40 | 0xfffe<<24 | m&0xffffff}
	if !l.isOwn(a) {
		l.subnets = append(l.subnets, prefix{addr: addr{hi: 0xfe80 << 48}, mask: addr{hi: ^uint64(0)}, host: a})
		l.own = append(l.own, a)
	}
}

func hasFamily(as []netip.Prefix, is4 bool) bool {
	return slices.ContainsFunc(as, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
}

// join gives a link its number. The caller holds mu.
func (n *NAT) join(l *link, p *path) bool {
	for i := 1; i < maxPaths; i++ {
		if n.links[i] == nil {
			l.path = uint16(i)
			l.errors.tokens = errorBurst
			l.neighbours.init(linkNeighbours)
			l.neighbours.list = make([]neighbour, linkNeighbours+1)
			n.links[i] = l
			n.generation++
			n.paths[i].Store(p)
			return true
		}
	}
	return false
}

// shut takes the number back, and what waits for MACs. The caller holds mu.
func (n *NAT) shut(l *link) {
	n.paths[l.path].Store(nil)
	n.links[l.path] = nil
	n.generation++
	for i := range l.neighbours.list {
		for q := &l.neighbours.list[i].waiting; q.n > 0; {
			n.waiting.take(q, nil)
		}
	}
	n.fragments.reset()
}

// reset forgets all packets. Those that wait are in no queue any more.
func (fs *fragments) reset() {
	fs.n, fs.first = 0, 0
	clear(fs.heads)
	fs.store.free, fs.store.fresh, fs.store.used = 0, 1, 0
}

// SetNeighbour fixes the MAC of an address on the gateway's network: what the
// daemon knows of the containers that it has addressed. 0 forgets it.
func (g *Gateway) SetNeighbour(a netip.Addr, mac wire.MAC) error {
	return g.nat.setNeighbour(&g.link, g.config.Name, a, mac)
}

// SetNeighbour fixes the MAC of an address on the uplink: what control code
// has from the kernel's neighbour table. 0 forgets it.
func (u *Uplink) SetNeighbour(a netip.Addr, mac wire.MAC) error {
	return u.nat.setNeighbour(&u.link, u.config.Name, a, mac)
}

func (n *NAT) setNeighbour(l *link, name string, a netip.Addr, mac wire.MAC) error {
	if !a.IsValid() || mac.IsMulticast() || mac > wire.Broadcast {
		return fmt.Errorf("set neighbour %v of %s: %w", a, name, ErrInvalid)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	ns := &l.neighbours
	id := ns.find(0, addrOf(a))
	if id == 0 && mac != 0 {
		if id = ns.add(0, addrOf(a)); id == 0 {
			return fmt.Errorf("set neighbour %v of %s: %w: it has %d", a, name, ErrFull, linkNeighbours)
		}
		ns.list[id] = neighbour{}
	}
	if id != 0 {
		// What waits stays until the next question is answered or given up.
		ns.list[id].mac, ns.list[id].fixed = mac, mac != 0
		ns.list[id].confirmed = 0
	}
	return nil
}

// Expire removes what has outlived its time at now (Engine.Now), up to budget
// connections, and returns how many it looked at. Workers do so too, as
// batches come by; control code calls it about once a second.
func (n *NAT) Expire(now int64, budget int) int {
	looked := 0
	for looked < budget {
		n.mu.Lock()
		k := n.table.advance(tickOf(now), min(chunk, budget-looked))
		n.mu.Unlock()
		looked += k
		if k < chunk {
			break
		}
	}
	return looked
}

// chunk is how many connections control code handles under one hold of mu.
const chunk = 256

// Tick does what is due without a frame: it says where new links' addresses
// are, asks after the next hops and forgets fragments. It runs on a worker's
// thread (Engine.Do), about once a second, with Engine.Now.
func (n *NAT) Tick(worker int, now int64) {
	w := &n.workers[worker]
	w.tick.Reset()
	w.tick.Worker, w.tick.Now = worker, now
	t := n.open(&w.tick)
	if t == nil {
		return
	}
	t.expireFragments()
	for _, l := range n.links {
		if l == nil {
			continue
		}
		if l.announce > 0 && !l.quiet {
			l.announce--
			t.proclaim(l)
		}
		for _, id := range l.neighbours.hop {
			if h := &l.neighbours.list[id]; id != 0 && h.mac != 0 && !h.fixed && t.now-h.confirmed > reachable {
				t.probe(l, id)
			}
		}
	}
	t.close(w.spent)
}
