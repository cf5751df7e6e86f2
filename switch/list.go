package vswitch

import "heddle/dataplane"

// none is no cell.
const none = ^uint32(0)

// link chains the cells of one list by their index.
type link struct{ prev, next uint32 }

// list is a doubly linked list through fdb.links, the oldest at the head.
type list struct {
	head, tail uint32
	n          int
}

// portList is what the FDB knows of a port.
type portList struct {
	net     *Network // The network it is on, nil if none.
	closing bool     // It is being detached: nothing may be learnt there any more.
	dynamic list     // By last seen.
	static  list
	told    list      // Announced entries.
	rank    [2]uint16 // Its place in fdb.crowd and in Network.crowd; see crowd.
}

// of returns the list that an entry of value v belongs to.
func (t *fdb) of(v value) *list {
	p := &t.ports[v.port()]
	switch {
	case v.static():
		return &p.static
	case v.announced():
		return &p.told
	}
	return &p.dynamic
}

// open lets entries be made on a port.
func (t *fdb) open(id dataplane.PortID, n *Network) {
	p := &t.ports[id]
	p.net, p.closing = n, false
	p.dynamic = list{head: none, tail: none}
	p.static, p.told = p.dynamic, p.dynamic
	t.crowd.add(t, id)
	n.crowd.add(t, id)
}

// shut ends what open began. The port has no entries left.
func (t *fdb) shut(id dataplane.PortID) {
	p := &t.ports[id]
	t.crowd.drop(t, id)
	p.net.crowd.drop(t, id)
	p.net = nil
}

// push appends the entry in cell at to the list its value v belongs to.
func (t *fdb) push(at uint32, v value) {
	l := t.of(v)
	t.links[at] = link{prev: l.tail, next: none}
	if l.tail == none {
		l.head = at
	} else {
		t.links[l.tail].next = at
	}
	l.tail = at
	l.n++
	if v.announced() {
		t.told++
		t.ports[v.port()].net.told++
	}
}

// pull takes the entry in cell at, of value v, out of its list.
func (t *fdb) pull(at uint32, v value) {
	l, k := t.of(v), t.links[at]
	if k.prev == none {
		l.head = k.next
	} else {
		t.links[k.prev].next = k.next
	}
	if k.next == none {
		l.tail = k.prev
	} else {
		t.links[k.next].prev = k.prev
	}
	l.n--
	if v.announced() {
		t.told--
		t.ports[v.port()].net.told--
	}
}

// relink tells the neighbours of an entry that it is in cell at now.
func (t *fdb) relink(at uint32, v value) {
	l, k := t.of(v), t.links[at]
	if k.prev == none {
		l.head = at
	} else {
		t.links[k.prev].next = at
	}
	if k.next == none {
		l.tail = at
	} else {
		t.links[k.next].prev = at
	}
}

// resize tells the heaps that the number of dynamic entries of a port changed.
func (t *fdb) resize(id dataplane.PortID) {
	t.crowd.fix(t, id)
	t.ports[id].net.crowd.fix(t, id)
}

// locate returns the cell of key, or none.
func (t *fdb) locate(key uint64, home uint32) uint32 {
	for i := home; i < home+probeLimit; i++ {
		switch t.cells[i].key.Load() {
		case key:
			return i
		case 0:
			return none
		}
	}
	return none
}

// insert makes an entry that isn't there, at the cost of the oldest of the
// port that holds most if there is no room, and tells whether it could.
func (t *fdb) insert(n *Network, key uint64, home uint32, v value) bool {
	if n.macs >= n.maxMACs && !t.evict(&n.crowd) ||
		t.count >= t.maxMACs && !t.evict(&t.crowd) {
		n.refused++
		return false
	}
	at := t.locate(0, home)
	if at == none {
		n.refused++
		return false
	}
	t.cells[at].val.Store(uint64(v))
	t.cells[at].key.Store(key)
	t.push(at, v)
	t.resize(v.port())
	n.macs++
	t.count++
	return true
}

// evict removes the oldest dynamic entry of the port that is first in c; there
// may be none.
func (t *fdb) evict(c *crowd) bool {
	if len(c.ids) == 0 {
		return false
	}
	p := &t.ports[c.ids[0]]
	if p.dynamic.n == 0 {
		return false
	}
	p.net.evicted++
	t.remove(p.dynamic.head)
	return true
}

// remove deletes the entry in cell at and shifts those behind it back.
func (t *fdb) remove(at uint32) {
	c := &t.cells[at]
	key, v := c.key.Load(), value(c.val.Load())
	t.pull(at, v)
	t.resize(v.port())
	t.ports[v.port()].net.macs--
	t.count--

	c.key.Store(gone)
	t.bump(t.home(key))
	hole := at
	for i := hole + 1; i < uint32(len(t.cells)); i++ {
		key := t.cells[i].key.Load()
		if key == 0 {
			break
		}
		home := t.home(key)
		if home > hole {
			continue
		}
		v := t.cells[i].val.Load()
		t.cells[hole].val.Store(v)
		t.cells[hole].key.Store(key)
		t.links[hole] = t.links[i]
		t.relink(hole, value(v))
		t.bump(home)
		hole = i
	}
	t.cells[hole].key.Store(0)
}

// bump tells readers of keys with this home that one of them has gone or been
// shifted.
func (t *fdb) bump(home uint32) { t.gen[home/lineCells%stripes].Add(1) }
