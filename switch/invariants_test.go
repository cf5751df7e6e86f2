package vswitch

import (
	"testing"

	"heddle/dataplane"
)

// verify holds the FDB against what must be true of it between two changes.
func (t *fdb) verify(tb testing.TB) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()

	perNet := map[uint16]int{}
	keys := map[uint64]bool{}
	count := 0
	for i := range t.cells {
		key := t.cells[i].key.Load()
		if key == 0 {
			continue
		}
		if key == gone || keys[key] {
			tb.Fatalf("cell %d: key %#x is gone or there twice", i, key)
		}
		keys[key] = true
		count++
		perNet[uint16(key)]++
		if at := t.locate(key, t.home(key)); at != uint32(i) {
			tb.Fatalf("key %#x is in cell %d, located at %d from home %d", key, i, at, t.home(key))
		}
		if v := value(t.cells[i].val.Load()); t.ports[v.port()].net == nil || t.ports[v.port()].net.index != uint16(key) {
			tb.Fatalf("key %#x is on port %d, which is not on its network", key, v.port())
		}
	}
	if count != t.count || count > t.maxMACs {
		tb.Fatalf("%d entries, counted %d, bound %d", count, t.count, t.maxMACs)
	}

	linked := 0
	nets := map[*Network]bool{}
	for id := range t.ports {
		p := &t.ports[id]
		if p.net == nil {
			continue
		}
		nets[p.net] = true
		for _, static := range []bool{false, true} {
			l := &p.dynamic
			if static {
				l = &p.static
			}
			linked += t.verifyList(tb, l, dataplane.PortID(id), static)
		}
		for _, c := range []*crowd{&t.crowd, &p.net.crowd} {
			i := int(p.rank[c.which])
			if c.ids[i] != dataplane.PortID(id) {
				tb.Fatalf("port %d is not at its rank %d of crowd %d", id, i, c.which)
			}
			if i > 0 && t.ports[c.ids[(i-1)/2]].dynamic.n < p.dynamic.n {
				tb.Fatalf("port %d of crowd %d holds more than the one above it", id, c.which)
			}
		}
	}
	if linked != count {
		tb.Fatalf("%d entries in lists, %d in the table", linked, count)
	}
	for n := range nets {
		dynamic := 0
		for _, id := range n.crowd.ids {
			dynamic += t.ports[id].dynamic.n
		}
		if perNet[n.index] != n.macs || n.macs > n.maxMACs && dynamic > 0 {
			tb.Fatalf("network %d: %d entries, counted %d, bound %d", n.index, perNet[n.index], n.macs, n.maxMACs)
		}
	}
}

// verifyList holds a list's links, order and number, which it returns.
func (t *fdb) verifyList(tb testing.TB, l *list, id dataplane.PortID, static bool) int {
	tb.Helper()
	n, prev, seen := 0, none, uint32(0)
	for at := l.head; at != none; at = t.links[at].next {
		v := value(t.cells[at].val.Load())
		if t.links[at].prev != prev || v.port() != id || v.static() != static || v.seen() < seen {
			tb.Fatalf("port %d: cell %d (seen %d, port %d, static %v) doesn't follow cell %d (seen %d)",
				id, at, v.seen(), v.port(), v.static(), prev, seen)
		}
		prev, seen = at, v.seen()
		n++
	}
	if l.tail != prev || l.n != n {
		tb.Fatalf("port %d: list of %d ends at %d, noted %d and %d", id, n, prev, l.n, l.tail)
	}
	return n
}
