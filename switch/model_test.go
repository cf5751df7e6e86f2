package vswitch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// model is the switch as one would write it on a whiteboard: maps and slices,
// searched from end to end.
type model struct {
	maxMACs int
	nets    []*modelNet
	entries []*modelEntry // The one not seen for longest first.
	movers  map[modelKey]*modelMover
}

type modelNet struct {
	config NetworkConfig
	ports  map[dataplane.PortID]Role
}

type modelKey struct {
	net int
	mac wire.MAC
}

type modelEntry struct {
	modelKey
	port   dataplane.PortID
	static bool
	told   bool          // Announced.
	seen   time.Duration // Whole seconds.
	hold   time.Duration
}

type modelMover struct {
	a, b  dataplane.PortID
	moves []time.Duration
}

func (m *model) get(k modelKey) *modelEntry {
	for _, e := range m.entries {
		if e.modelKey == k {
			return e
		}
	}
	return nil
}

func (m *model) delete(del func(e *modelEntry) bool) int {
	before := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, del)
	return before - len(m.entries)
}

func (m *model) live(e *modelEntry, now time.Duration) bool {
	return e.static || e.told || now.Truncate(time.Second)-e.seen <= m.nets[e.net].config.Ageing
}

// crowded returns the candidates for eviction: the oldest dynamic entry of
// each port, in the network (or all, for -1), that holds most.
func (m *model) crowded(net int) []*modelEntry {
	held, oldest := map[dataplane.PortID]int{}, map[dataplane.PortID]*modelEntry{}
	most := 0
	for _, e := range m.entries {
		if e.static || e.told || net >= 0 && e.net != net {
			continue
		}
		if oldest[e.port] == nil {
			oldest[e.port] = e
		}
		held[e.port]++
		most = max(most, held[e.port])
	}
	var c []*modelEntry
	for p, n := range held {
		if n == most {
			c = append(c, oldest[p])
		}
	}
	return c
}

// announced counts the announced entries of a network, or of all for -1.
func (m *model) announced(net int) (n int) {
	for _, e := range m.entries {
		if e.told && (net < 0 || e.net == net) {
			n++
		}
	}
	return n
}

func (m *model) count(net int) (n int) {
	for _, e := range m.entries {
		if net < 0 || e.net == net {
			n++
		}
	}
	return n
}

// room makes room for an entry as the real switch did: there tells what it
// still holds, as several ports may hold most. It returns false if there is
// none.
func (m *model) room(t *testing.T, net int, there func(modelKey) bool) bool {
	which := -1
	switch {
	case m.count(net) >= m.nets[net].config.MaxMACs:
		which = net
	case m.count(-1) < m.maxMACs:
		return true
	}
	c := m.crowded(which)
	if len(c) == 0 {
		return false
	}
	for _, victim := range c {
		if !there(victim.modelKey) {
			m.delete(func(e *modelEntry) bool { return e == victim })
			return true
		}
	}
	t.Fatalf("none of the candidates for eviction is gone: %v", c)
	return false
}

// learn returns false if the frame is dropped.
func (m *model) learn(t *testing.T, k modelKey, in dataplane.PortID, now time.Duration, there func(modelKey) bool) bool {
	sec := now.Truncate(time.Second)
	e := m.get(k)
	switch {
	case e == nil:
		if m.room(t, k.net, there) {
			m.entries = append(m.entries, &modelEntry{modelKey: k, port: in, seen: sec})
		}
		return true
	case e.static:
		return true
	case e.told && (e.port == in || m.nets[k.net].ports[in] != Ordinary):
		return true
	case e.told: // The station has come here.
		e.told = false
	case e.port == in && e.seen == sec:
		return true
	case e.port != in && m.live(e, now):
		if now < e.hold {
			return false
		}
		if m.flaps(k, e.port, in, now) {
			e.hold = now + time.Second
			return false
		}
	}
	e.port, e.seen = in, sec
	m.delete(func(o *modelEntry) bool { return o == e })
	if m.count(k.net) < m.nets[k.net].config.MaxMACs {
		m.entries = append(m.entries, e)
	}
	return true
}

func (m *model) flaps(k modelKey, from, to dataplane.PortID, now time.Duration) bool {
	a, b := min(from, to), max(from, to)
	v := m.movers[k]
	if v == nil || v.a != a || v.b != b {
		v = &modelMover{a: a, b: b}
		m.movers[k] = v
	}
	v.moves = slices.DeleteFunc(v.moves, func(at time.Duration) bool { return now-at > time.Second })
	if len(v.moves) == 5 {
		v.moves = nil
		return true
	}
	v.moves = append(v.moves, now)
	return false
}

// forward returns who gets a valid frame, or why it is dropped.
func (m *model) forward(net int, in dataplane.PortID, dst wire.MAC, now time.Duration) ([]dataplane.PortID, dataplane.Drop) {
	n := m.nets[net]
	reaches := func(to dataplane.PortID) bool {
		from, to2 := n.ports[in], n.ports[to]
		switch {
		case from == Gateway:
			return true
		case from == Tunnel && n.config.Isolated:
			return to2 == Gateway
		case from == Tunnel:
			return to2 != Tunnel
		case n.config.Isolated:
			return to2 != Ordinary
		}
		return true
	}
	if e := m.get(modelKey{net, dst}); e != nil && m.live(e, now) {
		switch {
		case e.port == in:
			return nil, dataplane.SamePort
		case !reaches(e.port):
			return nil, dataplane.Isolated
		}
		return ids(e.port), dataplane.None
	}
	var out []dataplane.PortID
	for p := range n.ports {
		if p != in && reaches(p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	switch {
	case len(out) > 0:
		return out, dataplane.None
	case len(n.ports) > 1:
		return nil, dataplane.Isolated
	}
	return nil, dataplane.NoEgress
}

// announce announces a station in both, and says what it did.
func (m *model) announce(t *testing.T, n *Network, k modelKey, id dataplane.PortID, there func(modelKey) bool) string {
	err := n.Announce(k.mac, id)
	what := fmt.Sprint("announce ", k, " behind ", id, ": ", err)
	full := m.announced(k.net) >= m.nets[k.net].config.MaxMACs/2 || m.announced(-1) >= m.maxMACs/2
	e := m.get(k)
	switch {
	case e != nil && e.static:
		expect(t, what, err == nil, e.port == id)
	case e != nil && e.told:
		expect(t, what, err, nil)
		e.port = id
	case full:
		expect(t, what, err != nil, true)
	case e != nil:
		expect(t, what, err, nil)
		e.told, e.port, e.hold = true, id, 0
	case m.room(t, k.net, there):
		expect(t, what, err, nil)
		m.entries = append(m.entries, &modelEntry{modelKey: k, port: id, told: true})
	default:
		expect(t, what, err != nil, true)
	}
	return what
}
