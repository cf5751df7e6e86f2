package vswitch

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heddle/dataplane"
)

// Bounds.
const (
	// MaxNetworks bounds the networks of a Switch.
	MaxNetworks = 4096
	// MaxMACs bounds New's maxMACs.
	MaxMACs = 1 << 28
	// DefaultMACs is what New takes for 0.
	DefaultMACs = 1_000_000
	// DefaultAgeing is what a NetworkConfig takes for 0 (IEEE 802.1D table 7-5).
	DefaultAgeing = 300 * time.Second
	// MaxAgeing bounds NetworkConfig.Ageing.
	MaxAgeing = 10 * 365 * 24 * time.Hour
	// MinMTU and MaxMTU bound PortConfig.MTU (RFC 791: 68 bytes).
	MinMTU = 68
	MaxMTU = 65535
)

// What control methods fail with, wrapped with the operation and its object.
var (
	ErrInvalid = errors.New("out of bounds")
	ErrInUse   = errors.New("in use")
	ErrUnknown = errors.New("not there")
	ErrFull    = errors.New("no room")
)

// Switch holds the networks and the FDB they share. Its methods and those of
// its Networks are for control code, except Network.Push.
type Switch struct {
	fdb     fdb
	workers []worker
	// slots is who is where, by PortID. Workers load, control code stores.
	slots [dataplane.MaxPorts]atomic.Pointer[slot]

	mu       sync.Mutex            // Held by one control method at a time, before fdb.mu.
	networks [MaxNetworks]*Network // By Network.index; 0 is none's.
	retired  Stats                 // Counters of networks that were removed.
}

// Network is one broadcast domain.
type Network struct {
	sw    *Switch
	index uint16 // In keys; ≥ 1.
	vni   uint32
	view  atomic.Pointer[view]

	// fdb.mu guards these.
	macs, told, maxMACs                          int // told of macs are announced.
	crowd                                        crowd
	learned, moves, held, aged, evicted, refused uint64

	contended atomic.Uint64
}

// NetworkConfig is what control code chooses for a network.
type NetworkConfig struct {
	// VNI is the VXLAN network identifier, below 2^24: its name towards other
	// hosts. No two networks have the same, except 0.
	VNI uint32
	// Ageing is how long a silent MAC stays known, in whole seconds, rounded
	// up; 0 means DefaultAgeing, at most MaxAgeing.
	Ageing time.Duration
	// MaxMACs bounds the network's entries; 0, or more than the Switch may
	// hold, means as many as that.
	MaxMACs int
	// Isolated keeps ordinary ports from each other.
	Isolated bool
}

// PortConfig is what control code chooses for a port.
type PortConfig struct {
	// MTU is the longest L3 packet in bytes that the port may be given,
	// MinMTU to MaxMTU; 0 means MaxMTU.
	MTU  int
	Role Role
}

// New returns a switch for workers 0 to workers-1, without networks, whose FDB
// holds up to maxMACs entries (0 means DefaultMACs, at most MaxMACs), at 31
// bytes each, resident as they are used.
func New(workers, maxMACs int) *Switch {
	if maxMACs <= 0 {
		maxMACs = DefaultMACs
	}
	s := &Switch{workers: make([]worker, max(workers, 1))}
	s.fdb.init(min(maxMACs, MaxMACs))
	return s
}

// init makes the table. 25/32 of it may be filled.
func (t *fdb) init(maxMACs int) {
	n := (maxMACs*32/25 + lineCells - 1) / lineCells
	t.maxMACs = maxMACs
	t.homes = uint64(n)
	t.cells = make([]cell, n*lineCells+probeLimit)
	t.links = make([]link, len(t.cells))
	for i := range t.seeds {
		// A multiplier needs bits all over.
		for c := 0; c < 20 || c > 44; c = bits.OnesCount64(t.seeds[i]) {
			var b [8]byte
			_, _ = rand.Read(b[:]) // It never fails: crypto/rand ends the process rather.
			t.seeds[i] = binary.LittleEndian.Uint64(b[:]) | 1
		}
	}
}

// AddNetwork makes a network without ports.
func (s *Switch) AddNetwork(c NetworkConfig) (*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.check(c, nil)
	if err != nil {
		return nil, fmt.Errorf("add network: %w", err)
	}
	for i := 1; i < MaxNetworks; i++ {
		if s.networks[i] != nil {
			continue
		}
		n := &Network{sw: s, index: uint16(i), vni: c.VNI, maxMACs: c.MaxMACs, crowd: crowd{which: 1}}
		n.view.Store(newView(c, nil))
		s.networks[i] = n
		return n, nil
	}
	return nil, fmt.Errorf("add network: %w: there are %d", ErrFull, MaxNetworks-1)
}

// check returns c with its zero fields filled in. self is the network it is
// for, if that exists.
func (s *Switch) check(c NetworkConfig, self *Network) (NetworkConfig, error) {
	if c.VNI >= 1<<24 {
		return c, fmt.Errorf("VNI %d: %w: want less than 2^24", c.VNI, ErrInvalid)
	}
	for _, n := range s.networks {
		if n != nil && n != self && c.VNI != 0 && n.vni == c.VNI {
			return c, fmt.Errorf("VNI %d: %w by another network", c.VNI, ErrInUse)
		}
	}
	if c.Ageing < 0 || c.Ageing > MaxAgeing {
		return c, fmt.Errorf("ageing %v: %w: want 1s to %v", c.Ageing, ErrInvalid, MaxAgeing)
	}
	if c.Ageing == 0 {
		c.Ageing = DefaultAgeing
	}
	if c.MaxMACs < 0 {
		return c, fmt.Errorf("max MACs %d: %w: want 1 to %d", c.MaxMACs, ErrInvalid, s.fdb.maxMACs)
	}
	if c.MaxMACs == 0 || c.MaxMACs > s.fdb.maxMACs {
		c.MaxMACs = s.fdb.maxMACs
	}
	return c, nil
}

// RemoveNetwork ends a network. It fails with ErrInUse while ports are on it.
func (s *Switch) RemoveNetwork(n *Network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.networks[n.index] != n {
		return fmt.Errorf("remove network: %w", ErrUnknown)
	}
	if ports := len(n.view.Load().slots); ports > 0 {
		return fmt.Errorf("remove network: %w by %d ports: remove them first", ErrInUse, ports)
	}
	s.networks[n.index] = nil
	s.fdb.mu.Lock()
	s.retired.add(n.stats())
	s.fdb.mu.Unlock()
	return nil
}

// Config returns the network's configuration, without zero fields.
func (n *Network) Config() NetworkConfig { return n.view.Load().config }

// Configure changes what the network does from the next batch on. With a lower
// MaxMACs the oldest entries of the ports that hold most go at once. The VNI
// can't change.
func (n *Network) Configure(c NetworkConfig) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	c, err := n.sw.check(c, n)
	if err == nil && c.VNI != n.vni {
		err = fmt.Errorf("VNI %d instead of %d: %w: a network keeps its VNI", c.VNI, n.vni, ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	n.view.Store(newView(c, n.view.Load().slots))
	n.sw.fdb.chunks(func() bool {
		n.maxMACs = c.MaxMACs
		return n.macs > n.maxMACs && n.sw.fdb.evict(&n.crowd)
	})
	return nil
}

// Attach puts a port on the network. It fails if id is out of bounds or is on
// a network already. The caller gives the port to the engine, with the Network
// as its sink, afterwards.
func (n *Network) Attach(id dataplane.PortID, p dataplane.Port, c PortConfig) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	maxLen, err := maxLen(c.MTU)
	switch {
	case err != nil:
	case id == 0 || id >= dataplane.MaxPorts:
		err = fmt.Errorf("%w: want 1 to %d", ErrInvalid, dataplane.MaxPorts-1)
	case n.sw.slots[id].Load() != nil:
		err = fmt.Errorf("%w", ErrInUse)
	case c.Role >= roles:
		err = fmt.Errorf("role %d: %w", c.Role, ErrInvalid)
	case n.sw.networks[n.index] != n:
		err = fmt.Errorf("its network: %w", ErrUnknown)
	}
	if err != nil {
		return fmt.Errorf("attach port %d: %w", id, err)
	}
	n.sw.fdb.mu.Lock()
	n.sw.fdb.open(id, n)
	n.sw.fdb.mu.Unlock()
	n.publish(&slot{id: id, role: c.Role, maxLen: maxLen, net: n, port: p, counters: p.Counters()})
	return nil
}

// Swap puts another Port object in a port's place: the same device in another
// guise, or a device made anew. Entries stay.
func (n *Network) Swap(id dataplane.PortID, p dataplane.Port) error {
	return n.change("swap", id, func(s *slot) error {
		s.port, s.counters = p, p.Counters()
		return nil
	})
}

// SetMTU changes a port's MTU; see PortConfig.MTU.
func (n *Network) SetMTU(id dataplane.PortID, mtu int) error {
	return n.change("set MTU of", id, func(s *slot) (err error) {
		s.maxLen, err = maxLen(mtu)
		return err
	})
}

// SetRole changes what a port is on the network.
func (n *Network) SetRole(id dataplane.PortID, r Role) error {
	return n.change("set role of", id, func(s *slot) error {
		if r >= roles {
			return fmt.Errorf("role %d: %w", r, ErrInvalid)
		}
		s.role = r
		return nil
	})
}

// change publishes a changed copy of a port's slot.
func (n *Network) change(what string, id dataplane.PortID, f func(*slot) error) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	s := n.slot(id)
	if s == nil {
		return fmt.Errorf("%s port %d: %w", what, id, ErrUnknown)
	}
	next := *s
	if err := f(&next); err != nil {
		return fmt.Errorf("%s port %d: %w", what, id, err)
	}
	n.publish(&next)
	return nil
}

// Detach takes a port off the network and forgets its entries, static and
// announced ones too. When it returns, workers may be in the port until their
// batches end; see the package comment.
func (n *Network) Detach(id dataplane.PortID) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	if n.slot(id) == nil {
		return fmt.Errorf("detach port %d: %w", id, ErrUnknown)
	}
	v := n.view.Load()
	slots := slices.DeleteFunc(slices.Clone(v.slots), func(s *slot) bool { return s.id == id })
	n.view.Store(newView(v.config, slots))
	n.sw.slots[id].Store(nil)

	t := &n.sw.fdb
	t.chunks(func() bool {
		p := &t.ports[id]
		p.closing = true
		for _, l := range []*list{&p.dynamic, &p.static, &p.told} {
			if l.n > 0 {
				t.remove(l.head)
				return true
			}
		}
		t.shut(id)
		return false
	})
	return nil
}

// slot returns the slot of a port of this network, or nil.
func (n *Network) slot(id dataplane.PortID) *slot {
	if id >= dataplane.MaxPorts {
		return nil
	}
	if s := n.sw.slots[id].Load(); s != nil && s.net == n {
		return s
	}
	return nil
}

// publish makes s the slot of its port.
func (n *Network) publish(s *slot) {
	v := n.view.Load()
	slots := slices.Clone(v.slots)
	if i := slices.IndexFunc(slots, func(o *slot) bool { return o.id == s.id }); i >= 0 {
		slots[i] = s
	} else {
		slots = append(slots, s)
	}
	n.sw.slots[s.id].Store(s)
	n.view.Store(newView(v.config, slots))
}

// chunks calls f, with fdb.mu held for chunk calls at a time, until it returns
// false.
func (t *fdb) chunks(f func() bool) {
	for more := true; more; {
		t.mu.Lock()
		for i := 0; more && i < chunk; i++ {
			more = f()
		}
		t.mu.Unlock()
	}
}

func maxLen(mtu int) (int, error) {
	if mtu == 0 {
		mtu = MaxMTU
	}
	if mtu < MinMTU || mtu > MaxMTU {
		return 0, fmt.Errorf("MTU %d: %w: want %d to %d", mtu, ErrInvalid, MinMTU, MaxMTU)
	}
	return mtu + 14, nil
}

// seconds rounds up.
func seconds(d time.Duration) uint32 {
	return uint32((d + time.Second - 1) / time.Second)
}
