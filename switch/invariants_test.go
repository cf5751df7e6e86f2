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
		for kind, l := range map[string]*list{"dynamic": &p.dynamic, "static": &p.static, "announced": &p.told} {
			linked += t.verifyList(tb, l, dataplane.PortID(id), kind)
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
		dynamic, told := 0, 0
		for _, id := range n.crowd.ids {
			dynamic += t.ports[id].dynamic.n
			told += t.ports[id].told.n
		}
		if told != n.told {
			tb.Fatalf("network %d: %d announced entries, counted %d", n.index, told, n.told)
		}
		if perNet[n.index] != n.macs || n.macs > n.maxMACs && dynamic > 0 {
			tb.Fatalf("network %d: %d entries, counted %d, bound %d", n.index, perNet[n.index], n.macs, n.maxMACs)
		}
	}
}

// verifyList holds a list's links, order and number, which it returns.
func (t *fdb) verifyList(tb testing.TB, l *list, id dataplane.PortID, kind string) int {
	tb.Helper()
	n, prev, seen := 0, none, uint32(0)
	for at := l.head; at != none; at = t.links[at].next {
		v := value(t.cells[at].val.Load())
		if t.links[at].prev != prev || v.port() != id || kindOf(v) != kind || v.seen() < seen {
			tb.Fatalf("port %d: cell %d (seen %d, port %d, %s) doesn't follow cell %d (seen %d) of the %s ones",
				id, at, v.seen(), v.port(), kindOf(v), prev, seen, kind)
		}
		prev, seen = at, v.seen()
		n++
	}
	if l.tail != prev || l.n != n {
		tb.Fatalf("port %d: list of %d ends at %d, noted %d and %d", id, n, prev, l.n, l.tail)
	}
	return n
}

func kindOf(v value) string {
	switch {
	case v.static():
		return "static"
	case v.announced():
		return "announced"
	}
	return "dynamic"
}
