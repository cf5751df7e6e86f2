// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// neighbours is what other hosts have announced: which MAC has an address, and
// behind which tunnel it is. ARP and ND requests look it up.
//
// It is open-addressed, 32 bytes a cell without pointers, at most three
// quarters full, and doubles: then a copy takes its place. What is removed is
// closed up by shifting, as in the switch's FDB. The bound is
// Config.MaxAnnounced; what is over it is refused, never evicted, since only
// who announced an address may take it back.
//
// Anybody may call find at any time. The others are for who holds VTEP.mu. gen
// is odd while one of them changes cells; a reader that finds it odd, or
// changed, looks again, and after findTries takes the address as unknown: the
// request is flooded, which is never wrong.
type neighbours struct {
	seeds [2]uint64 // Secret and odd; immutable after init.
	gen   atomic.Uint32
	table atomic.Pointer[[]neighbour]
	count int // VTEP.mu guards it.
}

// neighbour is a cell. where 0 is free: no tunnel has port 0.
type neighbour struct {
	hi, lo atomic.Uint64 // The address.
	where  atomic.Uint64 // VNI<<16 | PortID.
	mac    atomic.Uint64
}

const (
	findTries     = 16
	neighboursMin = 64 // Cells of an empty table, a power of two.
)

func (n *neighbours) init() {
	for i := range n.seeds {
		var b [8]byte
		_, _ = rand.Read(b[:]) // It never fails: crypto/rand ends the process rather.
		n.seeds[i] = binary.LittleEndian.Uint64(b[:]) | 1
	}
	cells := make([]neighbour, neighboursMin)
	n.table.Store(&cells)
}

// home returns the first cell to look for an address in, of a table with that
// mask.
func (n *neighbours) home(vni uint32, a addr, mask int) int {
	hi, lo := bits.Mul64(a.hi^n.seeds[0], a.lo^n.seeds[1])
	hi, lo = bits.Mul64(hi^lo^uint64(vni), n.seeds[1])
	return int(hi^lo) & mask
}

// find returns the MAC of an address and the tunnel that it was announced for,
// at 20 ns among a thousand and 120 among a million.
func (n *neighbours) find(vni uint32, a addr) (mac wire.MAC, id dataplane.PortID, ok bool) {
	for range findTries {
		gen := n.gen.Load()
		if gen%2 != 0 {
			continue
		}
		cells := *n.table.Load()
		mac, id, ok = 0, 0, false
		if i := n.locate(cells, vni, a); i >= 0 {
			c := &cells[i]
			mac, id, ok = wire.MAC(c.mac.Load()), dataplane.PortID(c.where.Load()), true
		}
		if n.gen.Load() == gen {
			return mac, id, ok
		}
	}
	return 0, 0, false
}

// locate returns the index of an address's cell, or -1. It looks at each cell
// once at most: a reader may see a table that is being changed.
func (n *neighbours) locate(cells []neighbour, vni uint32, a addr) int {
	mask := len(cells) - 1
	home := n.home(vni, a, mask)
	for k := range cells {
		c := &cells[(home+k)&mask]
		where := c.where.Load()
		if where == 0 {
			return -1
		}
		if where>>16 == uint64(vni) && c.lo.Load() == a.lo && c.hi.Load() == a.hi {
			return (home + k) & mask
		}
	}
	return -1
}

// set makes or changes the entry of an address.
func (n *neighbours) set(vni uint32, a addr, mac wire.MAC, id dataplane.PortID) {
	cells := *n.table.Load()
	i := n.locate(cells, vni, a)
	if i < 0 {
		if (n.count+1)*4 > len(cells)*3 {
			cells = n.grow(cells)
		}
		n.count++
		i = n.home(vni, a, len(cells)-1)
		for cells[i].where.Load() != 0 {
			i = (i + 1) & (len(cells) - 1)
		}
	}
	n.gen.Add(1)
	cells[i].put(vni, a, mac, id)
	n.gen.Add(1)
}

func (c *neighbour) put(vni uint32, a addr, mac wire.MAC, id dataplane.PortID) {
	c.hi.Store(a.hi)
	c.lo.Store(a.lo)
	c.mac.Store(uint64(mac))
	c.where.Store(uint64(vni)<<16 | uint64(id))
}

// grow publishes a copy of twice the size and returns it.
func (n *neighbours) grow(old []neighbour) []neighbour {
	cells := make([]neighbour, 2*len(old))
	for i := range old {
		where := old[i].where.Load()
		if where == 0 {
			continue
		}
		a := addr{old[i].hi.Load(), old[i].lo.Load()}
		k := n.home(uint32(where>>16), a, len(cells)-1)
		for cells[k].where.Load() != 0 {
			k = (k + 1) & (len(cells) - 1)
		}
		cells[k].put(uint32(where>>16), a, wire.MAC(old[i].mac.Load()), dataplane.PortID(where))
	}
	n.table.Store(&cells)
	return cells
}

// remove forgets an address that is there.
func (n *neighbours) remove(vni uint32, a addr) {
	cells := *n.table.Load()
	if i := n.locate(cells, vni, a); i >= 0 {
		n.clear(cells, i)
	}
}

// clear empties cell i and shifts those behind it back.
func (n *neighbours) clear(cells []neighbour, i int) {
	mask := len(cells) - 1
	n.gen.Add(1)
	for k := (i + 1) & mask; ; k = (k + 1) & mask {
		where := cells[k].where.Load()
		if where == 0 {
			break
		}
		a := addr{cells[k].hi.Load(), cells[k].lo.Load()}
		// It may move to i unless its home lies behind i on the way to k.
		if home := n.home(uint32(where>>16), a, mask); (k-home)&mask < (k-i)&mask {
			continue
		}
		cells[i].put(uint32(where>>16), a, wire.MAC(cells[k].mac.Load()), dataplane.PortID(where))
		i = k
	}
	cells[i].where.Store(0)
	n.gen.Add(1)
	n.count--
}

// removeAll forgets what was announced for a tunnel and returns how much. It
// reads the whole table, 64 MB for a million.
func (n *neighbours) removeAll(vni uint32, id dataplane.PortID) int {
	cells := *n.table.Load()
	removed := 0
	for i := 0; i < len(cells); {
		if cells[i].where.Load() != uint64(vni)<<16|uint64(id) {
			i++
			continue
		}
		// What was shifted to i is looked at next. An entry that was shifted
		// round the end, to behind i, has been looked at already.
		n.clear(cells, i)
		removed++
	}
	return removed
}
