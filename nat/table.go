// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import "heddle/dataplane"

// table is the connection tracker.
//
// # What
//
// An array of connections, and one open-addressed index of 4-byte cells with
// up to four cells a connection: two by which packets find it and, for one
// connection of each endpoint-independent mapping, two by which new
// connections find the mapping. Nothing holds a pointer: the garbage collector
// never looks inside. Memory becomes resident as it is used.
//
// # How it fills
//
// The index has 16/3 cells for each connection there may be. It is 75% full
// when every connection has a mapping of its own, 38% when none has: 104 B +
// 16/3 · 4 B = 125.3 B a connection. Linear probing at 75% looks at 2.5 cells
// for a hit and 8.5 for a miss, in the mean; 16 cells are a cache line, and the
// tag keeps it off connections that are others'.
//
// # Ageing
//
// A packet writes a timestamp and nothing else. A wheel of 256 buckets of 0.27 s
// holds every connection where it is to be looked at again, at most 69 s ahead;
// a bucket that is due is emptied by whoever comes by, a bounded number at a
// time: connections that have expired are removed, others put where they are
// due. A connection that has expired and that the wheel hasn't reached is taken
// as absent. One that is reset has less to live than the wheel knows: a queue of
// these (resets) has it removed on time. Only its record stays with the wheel,
// from which a table without another takes it (collect).
//
// # When it is full
//
// New connections are refused and counted; old ones stay, but for those that
// have ended or that somebody outside has begun and nobody finished: one of
// them, at random, makes room (spare). So a flood of SYNs takes no one's place
// but its own.
//
// # Threads
//
// All of it belongs to who holds NAT.mu.
type table struct {
	// Immutable after newTable.
	seed  uint64
	conns []conn   // [0] is nobody's.
	cells []uint32 // The index.

	lives lives
	exts  []external // By conn.ext; [0] is nobody's.
	hosts hosts
	rand  random

	live  int    // Connections in the index.
	free  uint32 // Head of the list of records that were used before; 0 is none.
	fresh uint32 // The first record that never was.

	heads  [wheelSize]uint32 // The wheel.
	cursor uint32            // The last bucket, counted from time 0, that was emptied.
	queued int               // Records in the wheel.
	hand   uint32            // The bucket that collect was in last, and
	behind uint32            // behind which record; 0 is at its head.
	resets resets

	created, expired, evicted, refused, removed uint64
}

const (
	wheelSize  = 256
	wheelShift = 1 // Ticks in a bucket: 2, 0.27 s.
)

// uplinkOf returns the uplink that a connection uses, by path.
func (t *table) uplinkOf(c *conn) uint16 { return t.exts[c.ext].uplink }

// take returns a free record, or 0. Only its wheel link is the table's.
func (t *table) take() uint32 {
	id := t.free
	switch {
	case id != 0:
		t.free = t.conns[id].next
	case int(t.fresh) < len(t.conns):
		id = t.fresh
		t.fresh++
	default:
		return 0
	}
	t.conns[id] = conn{}
	return id
}

// add puts a connection whose endpoints, host and rule are set into the index;
// it is in the wheel, or schedule puts it there. head is that of its mapping if it belongs to one that exists.
func (t *table) add(id, head, tick uint32) {
	c := &t.conns[id]
	c.flags |= isLive
	c.last = tick
	t.enter(byInside, id)
	t.enter(byExternal, id)
	if c.flags&isMapped != 0 {
		if head == 0 {
			c.flags |= isHead
			c.left, c.right = id, id
			t.enter(ofInside, id)
			t.enter(ofExternal, id)
		} else {
			h := &t.conns[head]
			c.left, c.right = head, h.right
			t.conns[h.right].left = id
			h.right = id
		}
	}
	t.live++
	t.created++
	t.hosts.list[c.host].conns++
}

// remove takes a connection out of the index. The wheel gives its record back.
func (t *table) remove(id uint32) {
	c := &t.conns[id]
	t.leave(byInside, id)
	t.leave(byExternal, id)
	last := true
	if c.flags&isMapped != 0 {
		last = c.right == id
		if last {
			t.leave(ofInside, id)
			t.leave(ofExternal, id)
		} else {
			if c.flags&isHead != 0 {
				// The key is the mapping's, so the cells stay where they are.
				for _, k := range [2]kind{ofInside, ofExternal} {
					cell := &t.cells[t.seek(k, id)]
					*cell = *cell&^idMask | c.right
				}
				t.conns[c.right].flags |= isHead
			}
			t.conns[c.left].right = c.right
			t.conns[c.right].left = c.left
		}
	}
	if c.flags&ownsPort != 0 && last {
		t.exts[c.ext].release(c.class, c.extPort)
		t.hosts.list[c.host].ports--
	}
	c.flags &^= isLive | isHead | isMapped
	t.live--
	t.removed++
	t.hosts.release(c.host)
}

// schedule puts a record into the bucket that is due at the tick, or the last
// one of the wheel.
func (t *table) schedule(id, tick uint32) {
	if t.queued == 0 {
		t.cursor = max(t.cursor, t.conns[id].last>>wheelShift)
	}
	t.queue(id, max(tick>>wheelShift+1, t.cursor+1))
}

func (t *table) queue(id, bucket uint32) {
	head := &t.heads[min(bucket, t.cursor+wheelSize-1)%wheelSize]
	t.conns[id].next = *head
	*head = id
	t.queued++
}

// advance empties the buckets that are due, at most budget records, and
// returns how many it looked at.
func (t *table) advance(now uint32, budget int) int {
	due := now >> wheelShift
	left := budget - t.advanceResets(now, budget)
	for t.cursor < due && left > 0 {
		if t.queued == 0 {
			t.cursor = due
			break
		}
		head := &t.heads[(t.cursor+1)%wheelSize]
		for *head != 0 && left > 0 {
			id := *head
			c := &t.conns[id]
			*head = c.next
			t.queued--
			left--
			if c.flags&isLive != 0 && t.dead(c, now) {
				t.expired++
				t.remove(id)
			}
			if c.flags&isLive == 0 {
				c.next = t.free
				t.free = id
				continue
			}
			t.queue(id, max((c.last+t.lives.life(c))>>wheelShift+1, t.cursor+2))
		}
		if *head == 0 {
			t.cursor++
		}
	}
	return budget - left
}

// dead tells whether a connection has outlived its time. A worker's clock may
// be a round behind the one that wrote c.last.
func (t *table) dead(c *conn, now uint32) bool {
	return now > c.last && now-c.last > t.lives.life(c)
}

// alive returns the connection, or 0 and removes it if it has expired.
func (t *table) alive(id, now uint32) uint32 {
	if id != 0 && t.dead(&t.conns[id], now) {
		t.expired++
		t.remove(id)
		return 0
	}
	return id
}

// liveMapping returns the head of a mapping of which a connection is alive, or
// 0. Those that have expired are removed on the way.
func (t *table) liveMapping(head, now uint32) uint32 {
	for head != 0 && t.dead(&t.conns[head], now) {
		next := t.conns[head].right
		t.expired++
		t.remove(head)
		if next == head {
			return 0
		}
		head = next
	}
	return head
}

// allowed tells whether a host may have another connection: None or why not.
// Unless it has a limit of its own, a host gets three quarters of what there
// is and the others don't hold.
func (t *table) allowed(h *host, limit int) dataplane.Drop {
	room := len(t.conns) - 1 - t.live
	if room > 0 && t.free == 0 && int(t.fresh) == len(t.conns) {
		t.collect()
	}
	switch {
	case room == 0 || t.free == 0 && int(t.fresh) == len(t.conns):
		return dataplane.ConnTableFull
	case limit > 0 && int(h.conns) >= limit, limit == 0 && int(h.conns) >= fairShare*room:
		return dataplane.HostLimit
	}
	return dataplane.None
}

// fairShare is how many times what is free one container may hold.
const fairShare = 3
