package nat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"heddle/dataplane"
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
	// Pause is called by control code that has long work to do, now and then,
	// for the workers to get the lock: it goes to who runs, and who waits gets it
	// after 1 ms only (sync.Mutex). It sleeps for some 50 µs; nil doesn't.
	Pause func()
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
	mu          dataplane.Mutex
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
	stack       *Stack // Nil while the host isn't reached.
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
	if c.Pause == nil {
		c.Pause = func() {}
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

// fill replaces zeros by the defaults, and returns the lifetimes in ticks.
func (l *Lifetimes) fill() (lives, error) {
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
	std := &DefaultLifetimes
	filled := lives{
		tcpEstablished: life(&l.TCPEstablished, std.TCPEstablished),
		tcpTransitory:  life(&l.TCPTransitory, std.TCPTransitory),
		tcpReset:       life(&l.TCPReset, std.TCPReset),
		udp:            life(&l.UDP, std.UDP),
		udpOneWay:      life(&l.UDPOneWay, std.UDPOneWay),
		icmp:           life(&l.ICMP, std.ICMP),
	}
	return filled, err
}

// init makes the table: a quarter of the index stays free when every
// connection has four cells.
func (t *table) init(c *Config) (err error) {
	if t.lives, err = c.Lifetimes.fill(); err != nil {
		return err
	}
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // It never fails: crypto/rand ends the process rather.
	t.rand = random{mrand.NewChaCha8(seed)}
	t.seed = randomSeed()
	t.conns = make([]conn, c.MaxConns+1)
	t.cells = make([]uint32, c.MaxConns*16/3+8)
	t.fresh = 1
	t.resets.ring = make([]reset, min(maxResets, powerOfTwo(c.MaxConns)))
	t.exts = make([]external, 1)
	t.hosts.init(min(maxHosts, c.MaxConns))
	t.hosts.list = make([]host, len(t.hosts.keys))
	return nil
}

// powerOfTwo returns the least that isn't below n.
func powerOfTwo(n int) int { return 1 << bits.Len(uint(n-1)) }

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
	t := n.open(&w.tick, nil)
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

// removeCost is what it is to remove a connection, in connections looked at.
const removeCost = 32

// end removes the connections that which tells, and the other halves of
// hairpins, chunk by chunk. After as long a work as it is to remove a chunk it
// leaves mu to the workers for a while.
func (n *NAT) end(which func(*conn) bool) int {
	ended, work := 0, 0
	for from, more := uint32(1), true; more; {
		if work >= chunk*removeCost {
			work = 0
			n.config.Pause()
		}
		work += chunk
		n.mu.Lock()
		t := &n.table
		end := min(from+chunk, t.fresh)
		for ; from < end; from++ {
			if c := &t.conns[from]; c.flags&isLive != 0 && which(c) {
				other := n.otherHalf(c)
				t.remove(from)
				ended++
				work += removeCost
				if other != 0 && other != from {
					t.remove(other)
					ended++
					work += removeCost
				}
			}
		}
		more = from < t.fresh
		n.mu.Unlock()
	}
	return ended
}

// otherHalf returns the other connection of a hairpin, which has c's external
// endpoint as its outside one and the other way round; 0 if there is none. The
// caller holds mu.
func (n *NAT) otherHalf(c *conn) uint32 {
	u := n.uplinkOwning(c.out)
	if u == nil {
		return 0
	}
	t, ext, out := &n.table, u.extOf(c.out), n.table.exts[c.ext].addr
	h := t.hashExternal(c.class, ext, c.outPort, out, c.extPort)
	return t.findExternal(h, c.class, ext, c.outPort, out, c.extPort)
}
