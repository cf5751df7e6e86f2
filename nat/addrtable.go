// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import "math/bits"

// addrKey is an address on a network.
type addrKey struct {
	addr addr
	net  uint16
	next uint16 // In the free list.
}

// addrTable numbers addresses: an array of keys and an open-addressed index of
// 2-byte cells, half full at most. What is known of an address stands in the
// owner's array under the same number. 0 is no number; nothing is evicted here.
type addrTable struct {
	seed  uint64
	keys  []addrKey // [0] is nobody's.
	cells []uint16
	free  uint16
	fresh int
	n     int
}

// home returns the first cell to look in.
func (t *addrTable) home(k *addrKey) int {
	i, _ := bits.Mul64(hash(t.seed, k.addr, addr{}, uint64(k.net)), uint64(len(t.cells)))
	return int(i)
}

// find returns the number of an address, or 0.
func (t *addrTable) find(net uint16, a addr) uint16 {
	k := addrKey{addr: a, net: net}
	for i := t.home(&k); ; {
		v := t.cells[i]
		if v == 0 {
			return 0
		}
		if o := &t.keys[v]; o.addr == a && o.net == net {
			return v
		}
		if i++; i == len(t.cells) {
			i = 0
		}
	}
}

// add numbers an address that has no number; 0 if there is no room.
func (t *addrTable) add(net uint16, a addr) uint16 {
	id := t.free
	switch {
	case id != 0:
		t.free = t.keys[id].next
	case t.fresh < len(t.keys):
		id = uint16(t.fresh)
		t.fresh++
	default:
		return 0
	}
	t.keys[id] = addrKey{addr: a, net: net}
	i := t.home(&t.keys[id])
	for t.cells[i] != 0 {
		if i++; i == len(t.cells) {
			i = 0
		}
	}
	t.cells[i] = id
	t.n++
	return id
}

// remove takes back add. The cells behind are shifted back.
func (t *addrTable) remove(id uint16) {
	n := len(t.cells)
	hole := t.home(&t.keys[id])
	for t.cells[hole] != id {
		if hole++; hole == n {
			hole = 0
		}
	}
	for i := hole; ; {
		if i++; i == n {
			i = 0
		}
		v := t.cells[i]
		if v == 0 {
			break
		}
		if (i+n-t.home(&t.keys[v]))%n < (i+n-hole)%n {
			continue
		}
		t.cells[hole] = v
		hole = i
	}
	t.cells[hole] = 0
	t.keys[id] = addrKey{next: t.free}
	t.free = id
	t.n--
}
