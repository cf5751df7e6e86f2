package vswitch

import (
	"fmt"
	"math/rand/v2"
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

// TestSwitchDoesWhatTheModelDoes runs random operations on both, with a driven
// clock, and compares every frame's way, the entries and the counts.
func TestSwitchDoesWhatTheModelDoes(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 7)), 2500) })
	}
}

func runModel(t *testing.T, r *rand.Rand, steps int) {
	const nets, ports, stations, maxMACs = 2, 8, 30, 24
	l := &lab{t: t, sw: New(1, maxMACs), p: map[dataplane.PortID]*fakePort{}}
	m := &model{maxMACs: maxMACs, movers: map[modelKey]*modelMover{}}
	var live []*Network
	for range nets {
		c := NetworkConfig{Ageing: 5 * time.Second, MaxMACs: 20}
		live = append(live, l.network(c))
		m.nets = append(m.nets, &modelNet{config: c, ports: map[dataplane.PortID]Role{}})
	}
	there := func(k modelKey) bool {
		key := keyOf(uint64(k.mac)<<16, live[k.net].index)
		return l.sw.fdb.find(key, l.sw.fdb.home(key)) != 0
	}
	netOf := func(id dataplane.PortID) int {
		return slices.IndexFunc(m.nets, func(n *modelNet) bool { _, ok := n.ports[id]; return ok })
	}
	station := func() wire.MAC { return mac(1 + r.IntN(stations)) }

	for step := range steps {
		id := dataplane.PortID(1 + r.IntN(ports))
		net := netOf(id)
		op := r.IntN(100)
		var what string
		switch {
		case net < 0: // Attach.
			net = r.IntN(nets)
			role := Role(r.IntN(int(roles)))
			what = fmt.Sprintf("attach %d to %d as %v", id, net, role)
			l.attach(live[net], id, PortConfig{Role: role})
			m.nets[net].ports[id] = role
		case op < 80: // A frame.
			src, dst := station(), station()
			if r.IntN(8) == 0 {
				dst = wire.Broadcast
			}
			if src == dst {
				continue
			}
			if op < 20 { // Flapping needs a favourite.
				src = mac(31)
			}
			what = fmt.Sprintf("frame from %d: %v to %v", id, src, dst)
			wantDrops := l.p[id].counters.Totals().Drops
			got := l.sendTo(live[net], id, frame(dst, src, "x"))
			var want []dataplane.PortID
			drop := dataplane.MACFlapping
			if m.learn(t, modelKey{net, src}, id, l.now, there) {
				want, drop = m.forward(net, id, dst, l.now)
			}
			expect(t, fmt.Sprint("step ", step, ": ", what), got, want)
			if drop != dataplane.None {
				wantDrops[drop]++
			}
			expect(t, "drops", l.p[id].counters.Totals().Drops, wantDrops)
		case op < 90:
			l.now += time.Duration(r.IntN(1500)) * time.Millisecond
			what = "time passes"
		case op < 92:
			budget := r.IntN(10)
			what = fmt.Sprint("expire ", budget)
			n := l.sw.Expire(int64(l.now), budget)
			expired := m.delete(func(e *modelEntry) bool {
				return !m.live(e, l.now) && !there(e.modelKey)
			})
			expect(t, what, n, expired)
			aged := slices.ContainsFunc(m.entries, func(e *modelEntry) bool { return !m.live(e, l.now) })
			if n < budget && aged {
				t.Fatalf("step %d: expired %d of a budget of %d, aged entries are left", step, n, budget)
			}
		case op < 93:
			what = fmt.Sprint("flush ", id)
			n, err := live[net].Flush(id)
			l.must(err)
			expect(t, what, n, m.delete(func(e *modelEntry) bool { return e.port == id && !e.static && !e.told }))
		case op < 95:
			what = fmt.Sprint("static on ", id)
			k := modelKey{net, station()}
			err := live[net].AddStatic(k.mac, id)
			e := m.get(k)
			switch {
			case e != nil && e.static:
				expect(t, what, err == nil, e.port == id)
			case e != nil:
				e.static, e.told, e.port, e.hold = true, false, id, 0
			case m.room(t, net, there):
				m.entries = append(m.entries, &modelEntry{modelKey: k, port: id, static: true})
				l.must(err)
			default:
				expect(t, what+" without room", err != nil, true)
			}
		case op < 96:
			what = m.announce(t, live[net], modelKey{net, station()}, id, there)
		case op < 97:
			k := modelKey{net, station()}
			what = fmt.Sprint("withdraw ", k, " from ", id)
			was := live[net].Withdraw(k.mac, id)
			expect(t, what, was, m.delete(func(e *modelEntry) bool { return e.modelKey == k && e.told && e.port == id }) == 1)
		case op < 98:
			k := modelKey{net, station()}
			what = fmt.Sprint("remove ", k)
			err := live[net].Remove(k.mac)
			expect(t, what, err == nil, m.delete(func(e *modelEntry) bool { return e.modelKey == k }) == 1)
		case op < 99:
			what = fmt.Sprint("detach ", id)
			l.must(live[net].Detach(id))
			m.delete(func(e *modelEntry) bool { return e.port == id })
			delete(m.nets[net].ports, id)
		default:
			c := NetworkConfig{Ageing: time.Duration(1+r.IntN(8)) * time.Second, MaxMACs: 4 + r.IntN(20), Isolated: r.IntN(2) == 0}
			what = fmt.Sprintf("configure %+v", c)
			l.must(live[net].Configure(c))
			for m.nets[net].config = c; m.count(net) > c.MaxMACs; {
				c := m.crowded(net)
				i := slices.IndexFunc(c, func(e *modelEntry) bool { return !there(e.modelKey) })
				if len(c) == 0 {
					break // All static.
				}
				if i < 0 {
					t.Fatalf("step %d: %s: no candidate was evicted", step, what)
				}
				m.delete(func(e *modelEntry) bool { return e == c[i] })
			}
		}
		l.sw.fdb.verify(t)
		expect(t, "announced", l.sw.Stats().Announced, m.announced(-1))
		if m.count(-1) != l.sw.Stats().MACs {
			t.Fatalf("step %d: %s: %d entries, the model has %d", step, what, l.sw.Stats().MACs, m.count(-1))
		}
		for _, e := range m.entries {
			key := keyOf(uint64(e.mac)<<16, live[e.net].index)
			v := l.sw.fdb.find(key, l.sw.fdb.home(key))
			if v.port() != e.port || v.static() != e.static || v.announced() != e.told || !e.static && !e.told && time.Duration(v.seen())*time.Second != e.seen {
				t.Fatalf("step %d: %s: entry %+v of the model is %#x", step, what, *e, v)
			}
		}
		if t.Failed() {
			t.Fatalf("step %d was: %s", step, what)
		}
	}
}
