package mesh

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Mesh is this host's part of a mesh.
//
// Locks: memberlist calls the delegate with its own lock held, and the delegate
// takes mu. So nothing calls memberlist with mu held; what has to is a job for
// the senders. keyLock is taken alone.
type Mesh struct {
	// Set by New, not changed after.
	cfg     Config
	self    origin
	list    *memberlist.Memberlist
	address netip.AddrPort // As memberlist advertises it.
	guard   *guard
	keyring *memberlist.Keyring // nil without keys.
	queue   *memberlist.TransmitLimitedQueue
	journal *journal
	count   *counters

	keyLock sync.Mutex // Serialises changes of keyring.

	ctx     context.Context // Ends when the mesh closes.
	stop    context.CancelFunc
	workers sync.WaitGroup // Everything that New started.
	jobs    chan func()    // For the senders; bounded by maxJobs.
	kick    chan struct{}  // Wakes repair.
	tidings chan struct{}  // Wakes notify.
	alive   atomic.Int32   // Live instances, for the queue's retransmissions.

	mu       sync.Mutex
	closed   bool
	meta     meta
	table    *table
	members  map[string]*member
	changed  map[string]struct{} // Members that may differ from what was told.
	flushing bool                // A flush is on its way.
	seeds    []*seed             // Addresses to try when they are no live member's.
	moves    map[key]*moves      // Endpoints that have moved here lately.
	quiet    quiet               // When to ask for a digest.
	news     []news              // Who has changed lately; the last one last.
	name     nameState
}

// Bounds of work in hand.
const (
	maxJobs    = 256 // Messages that wait for a sender.
	senders    = 4   // Goroutines that send, so that one dead peer holds up few.
	maxQueued  = 512 // Messages that wait to be gossiped.
	maxDelta   = 256 // Bytes of a delta that is gossiped; a longer one is pulled.
	flushDelay = 10 * time.Millisecond
)

// tune is memberlist's configuration. Of n hosts one that fails is probed by
// some other within about 0.5 s, is suspect 0.5 s later, and has
// SuspicionMult × log10(n) × 0.5 s to object, twice that while nobody confirms:
// at 50 hosts 3.4 s, at most 6.8 s. A host that only pauses for 2 s is never
// taken for failed.
func tune() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval = 500 * time.Millisecond
	c.ProbeTimeout = 250 * time.Millisecond
	c.SuspicionMult = 4
	c.SuspicionMaxTimeoutMult = 2
	c.AwarenessMaxMultiplier = 2 // A host that doubts itself probes no rarer than every second.
	c.GossipInterval = 200 * time.Millisecond
	c.GossipNodes = 3
	c.RetransmitMult = 4
	c.GossipToTheDeadTime = 15 * time.Second
	c.PushPullInterval = 30 * time.Second
	c.TCPTimeout = 5 * time.Second
	c.UDPBufferSize = maxPacket
	c.EnableCompression = false // What the mesh says is packed already.
	c.DelegateProtocolMin, c.DelegateProtocolMax, c.DelegateProtocolVersion = protocol, protocol, protocol
	return c
}

// maxPacket is the UDP payload of gossip: with memberlist's checksum, UDP and
// IPv6 headers it fits the smallest MTU of IPv6, 1280 (RFC 8200 section 5).
const maxPacket = 1200

// New opens the gossip's sockets and starts a mesh of one member, this host.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m := &Mesh{
		cfg:     cfg,
		self:    origin{name: cfg.Name, instance: randomInstance()},
		count:   &counters{},
		jobs:    make(chan func(), maxJobs),
		kick:    make(chan struct{}, 1),
		tidings: make(chan struct{}, 1),
		meta:    meta{vtep: unmap(cfg.VTEP)},
		members: map[string]*member{},
		changed: map[string]struct{}{},
		moves:   map[key]*moves{},
	}
	m.name.contested = map[uint32]time.Time{}
	m.journal = &journal{mesh: m}
	m.table = newTable(m.self)
	me := &member{name: cfg.Name, since: time.Now(), instances: map[uint32]*instance{}}
	me.current = &instance{origin: m.self, vtep: m.meta.vtep, replica: m.table.local.replica}
	m.members[cfg.Name] = me
	m.queue = &memberlist.TransmitLimitedQueue{
		NumNodes:       func() int { return int(m.alive.Load()) + 1 },
		RetransmitMult: tune().RetransmitMult,
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if len(cfg.Keys) > 0 {
		keys := make([][]byte, len(cfg.Keys))
		for i, k := range cfg.Keys {
			keys[i] = slices.Clone(k)
		}
		ring, err := memberlist.NewKeyring(keys, keys[0])
		if err != nil {
			return nil, fmt.Errorf("start mesh: %w", err)
		}
		m.keyring = ring
	}
	if err := m.listen(); err != nil {
		m.stop()
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.workers.Add(4 + senders)
	go m.repair()
	go m.names()
	go m.rejoin()
	go m.notify()
	for range senders {
		go m.send()
	}
	for _, a := range cfg.Known {
		m.addSeed(a)
	}
	return m, nil
}

// listen makes the transport and memberlist.
func (m *Mesh) listen() error {
	c := tune()
	c.Name = m.self.node()
	c.Keyring = m.keyring
	c.Logger = log.New(m.journal, "", 0)
	d := delegate{m}
	c.Delegate, c.Events, c.Alive, c.Ping = d, d, d, d
	transport := m.cfg.Transport
	if transport == nil {
		nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{m.cfg.Bind.Addr().Unmap().String()},
			BindPort:  int(m.cfg.Bind.Port()),
			Logger:    c.Logger,
		})
		if err != nil {
			if strings.Contains(err.Error(), "address already in use") {
				return fmt.Errorf("listen at %s: another program uses this port: stop it, or choose another port", m.cfg.Bind)
			}
			return fmt.Errorf("listen at %s: %w", m.cfg.Bind, err)
		}
		adv := m.cfg.Advertise
		if !adv.Addr().IsValid() {
			adv = netip.AddrPortFrom(m.cfg.Bind.Addr(), adv.Port())
		}
		c.AdvertiseAddr, c.AdvertisePort = adv.Addr().Unmap().String(), int(adv.Port())
		if adv.Port() == 0 {
			c.AdvertisePort = nt.GetAutoBindPort()
		}
		transport = nt
	}
	m.guard = newGuard(transport, m.keyring, m.count)
	c.Transport = m.guard
	list, err := memberlist.Create(c)
	if err != nil {
		_ = m.guard.Shutdown()
		return err
	}
	m.list = list
	n := list.LocalNode()
	addr, _ := netip.AddrFromSlice(n.Addr)
	m.address = netip.AddrPortFrom(addr.Unmap(), n.Port)
	m.mu.Lock()
	m.members[m.self.name].current.address = m.address
	m.mu.Unlock()
	return nil
}

func randomInstance() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // Never fails (crypto/rand).
	return binary.BigEndian.Uint32(b[:])
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// send does jobs until the mesh closes.
func (m *Mesh) send() {
	defer m.workers.Done()
	for {
		select {
		case job := <-m.jobs:
			job()
		case <-m.ctx.Done():
			return
		}
	}
}

// do gives the senders a job, or counts that they have too many.
func (m *Mesh) do(job func()) bool {
	select {
	case m.jobs <- job:
		return true
	default:
		m.count.refuse(RefusedQueue)
		return false
	}
}

// wake makes a goroutine look again that waits at a channel of one place.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Leave says good-bye, waiting for at most the timeout that it gets round, and
// closes the mesh. Not to be called by a Handler.
func (m *Mesh) Leave(timeout time.Duration) error {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return errors.Join(ErrClosed, m.Close())
	}
	m.sayBye()
	err := m.list.Leave(timeout)
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("leave mesh: %w", err)
	}
	return nil
}

// sayBye tells each member directly, besides gossip, which leaves one out once in a
// while: who leaves can't say it again, and would be shown as failed there.
func (m *Mesh) sayBye() {
	bye := appendOrigin(begin(msgBye), m.self)
	m.count.out(KindMessage, len(bye))
	m.gossip(bye, "bye")
	var to []*memberlist.Node
	m.mu.Lock()
	for _, mb := range m.members {
		if c := mb.current; c != nil && mb.name != m.self.name {
			to = append(to, c.listed())
		}
	}
	m.mu.Unlock()
	for _, n := range to {
		if m.list.SendBestEffort(n, bye) == nil { // Else gossip may still bring it.
			m.count.out(KindMessage, len(bye))
		}
	}
}

// Close stops without a word: to the others this host has failed. Closing
// again does nothing. Not to be called by a Handler.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	err := m.list.Shutdown()
	m.workers.Wait()
	return err
}

// SetVTEP changes where this host receives VXLAN.
func (m *Mesh) SetVTEP(vtep netip.AddrPort) error {
	cfg := m.cfg
	cfg.VTEP = vtep
	if err := cfg.check(); err != nil {
		return fmt.Errorf("set VTEP: %w", err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	m.meta.vtep = unmap(vtep)
	m.members[m.self.name].current.vtep = m.meta.vtep
	m.mu.Unlock()
	m.update()
	return nil
}

// update makes memberlist tell the others our metadata, and again a second
// later: gossip leaves some member out once in a while, and nothing but
// memberlist's exchange of states, half a minute later, would show it.
func (m *Mesh) update() {
	tell := func() {
		m.name.updating.Lock()
		defer m.name.updating.Unlock()
		_ = m.list.UpdateNode(time.Millisecond) // It only says that the wait for the news to get round was cut short.
	}
	m.do(tell)
	time.AfterFunc(time.Second, func() { m.do(tell) })
}

// note logs, if anybody listens.
func (m *Mesh) note(level slog.Level, format string, args ...any) {
	if m.cfg.Log != nil {
		m.cfg.Log(level, fmt.Sprintf(format, args...))
	}
}
