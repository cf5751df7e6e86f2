// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

// What comes back before its time is over, and what comes back on time although
// the wheel would be late.
//
// A connection of which both ends' FINs were acknowledged, or that was reset,
// has nothing to say any more: it stays only to answer what was lost, and to
// keep its endpoints apart from the next ones (RFC 5382 REQ-5, RFC 7857 2).
// Where somebody would be refused for want of a port, a connection or a record,
// the oldest of these makes room; nobody who talks does.

// ended tells a connection that both ends have closed or one has reset.
func (c *conn) ended() bool {
	return c.flags&isReset != 0 || (c.class == tcp || c.class == sctp) && c.state&closedAll == closedAll
}

// ends notes that a connection has just ended.
func (t *table) ends(id uint32, now uint32) {
	c := &t.conns[id]
	if c.flags&isReset != 0 {
		t.resets.put(id, now)
	}
	if p := t.exts[c.ext].pools[c.class]; c.flags&(isMapped|ownsPort) == isMapped|ownsPort && c.extPort >= p.first && c.extPort <= p.last {
		p.closed.put(c.extPort, now)
	}
}

// resets are connections that were reset, in that order: their life has become
// shorter than the wheel knows. Of more than it holds, the others come back
// with the wheel.
type resets struct {
	ring    []reset // A power of two.
	head, n uint32
}

type reset struct{ id, tick uint32 }

// maxResets bounds resets: 512 KB.
const maxResets = 1 << 16

func (r *resets) put(id, now uint32) {
	if int(r.n) < len(r.ring) {
		r.ring[(r.head+r.n)&uint32(len(r.ring)-1)] = reset{id, now}
		r.n++
	}
}

// advanceResets removes the resets that are over, at most budget, and returns
// how many it looked at. Their records stay with the wheel.
func (t *table) advanceResets(now uint32, budget int) int {
	r := &t.resets
	looked := 0
	for ; r.n > 0 && looked < budget; looked++ {
		e := r.ring[r.head]
		if now <= e.tick || now-e.tick <= t.lives.tcpReset {
			break
		}
		r.head = (r.head + 1) & uint32(len(r.ring)-1)
		r.n--
		if c := &t.conns[e.id]; c.flags&(isLive|isReset) == isLive|isReset && t.dead(c, now) {
			t.expired++
			t.remove(e.id)
		}
	}
	return looked
}

// closedPorts is the ports of a pool whose mapping has ended, the oldest first.
// Each is there once at most, so there is always room. An entry that has become
// wrong, because its port was given back or is used again, is found to be so
// when its turn comes; one that has ended again by then goes to the end.
type closedPorts struct {
	ring    []closedPort // A power of two, one for each port of the pool at least.
	head, n uint32
	there   [1 << 16 / 64]uint64
}

type closedPort struct {
	port uint16
	tick uint32
}

func (r *closedPorts) put(port uint16, now uint32) {
	if r == nil || r.there[port/64]>>(port%64)&1 != 0 {
		return
	}
	r.there[port/64] |= 1 << (port % 64)
	r.ring[(r.head+r.n)&uint32(len(r.ring)-1)] = closedPort{port, now}
	r.n++
}

func (r *closedPorts) at(i uint32) closedPort { return r.ring[(r.head+i)&uint32(len(r.ring)-1)] }

func (r *closedPorts) pop() {
	port := r.ring[r.head].port
	r.there[port/64] &^= 1 << (port % 64)
	r.head = (r.head + 1) & uint32(len(r.ring)-1)
	r.n--
}

const (
	// reclaimTries is how many entries reclaim looks at, 0.1 µs each.
	reclaimTries = 64
	// ringTries is how many connections of a mapping it looks at; one that has
	// more is kept.
	ringTries = 64
)

// reclaim removes the oldest mapping of a pool all of whose connections have
// ended, of a host, or for 0 of any. It returns a record that it has made free,
// which stays in the wheel; 0 if it finds none.
func (t *table) reclaim(ext uint16, cl class, host uint16) (record uint32) {
	p := t.exts[ext].pools[cl]
	if p == nil || p.closed == nil {
		return 0
	}
	r := p.closed
	for i, tries := uint32(0), 0; i < r.n && tries < reclaimTries; tries++ {
		e := r.at(i)
		head := t.findExternalMapping(cl, ext, e.port)
		last, over := t.mappingEnded(head)
		switch {
		case i == 0 && !over:
			r.pop()
		case i == 0 && last > e.tick: // Another has ended there since.
			r.pop()
			r.put(e.port, last)
		case !over || last > e.tick || host != 0 && t.conns[head].host != host:
			i++
		default:
			for over := false; !over; {
				record = head
				over = t.conns[head].right == head
				head = t.conns[head].right
				t.evicted++
				t.remove(record)
			}
			if i == 0 {
				r.pop()
			}
			return record
		}
	}
	return 0
}

// mappingEnded tells whether all connections of a mapping have ended, and when
// the last of them was heard of.
func (t *table) mappingEnded(head uint32) (last uint32, over bool) {
	if head == 0 {
		return 0, false
	}
	id := head
	for range ringTries {
		c := &t.conns[id]
		if !c.ended() {
			return 0, false
		}
		last = max(last, c.last)
		if id = c.right; id == head {
			return last, true
		}
	}
	return 0, false
}

// spareTries is how many records spare looks at: when one in eight can be
// spared, it finds none once in 70 times.
const spareTries = 32

// spare removes a connection at random that has expired or ended, or that
// somebody outside has begun and nobody finished, of a host, or for 0 of any.
// It returns its record, which stays in the wheel; 0 if it finds none.
func (t *table) spare(host uint16, now uint32) uint32 {
	for range spareTries {
		id := uint32(1 + t.rand.under(int(t.fresh)))
		if int(id) >= int(t.fresh) {
			continue
		}
		c := &t.conns[id]
		if c.flags&isLive == 0 || host != 0 && c.host != host {
			continue
		}
		halfOpen := c.flags&fromOutside != 0 && c.class != udp && c.state&openAll != openAll
		if halfOpen || c.ended() || t.dead(c, now) {
			t.evicted++
			t.remove(id)
			return id
		}
	}
	return 0
}

// collectTries bounds the records that collect looks at in one go, 0.1 µs each.
const collectTries = 512

// collect brings back records of connections that were removed, which wait in
// the wheel, until it has found some. The next time it goes on where it was.
func (t *table) collect() {
	tries := 0
	for range wheelSize + 1 {
		at := &t.heads[t.hand]
		// One that is alive is in the wheel, wherever it is by now.
		if t.conns[t.behind].flags&isLive != 0 {
			at = &t.conns[t.behind].next
		}
		for ; *at != 0 && tries < collectTries; tries++ {
			id := *at
			c := &t.conns[id]
			if c.flags&isLive != 0 {
				at, t.behind = &c.next, id
				continue
			}
			*at = c.next
			t.queued--
			c.next = t.free
			t.free = id
		}
		if *at == 0 {
			t.hand, t.behind = (t.hand+1)%wheelSize, 0
		}
		if t.free != 0 || tries == collectTries {
			return
		}
	}
}
