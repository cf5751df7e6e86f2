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
