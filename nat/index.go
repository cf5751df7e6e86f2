// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import "math/bits"

// kind is what a cell of the index stands for.
type kind uint32

const (
	byInside   kind = iota // A connection, by network, class, in and out.
	byExternal             // A connection, by class, ext and out.
	ofInside               // A mapping's head, by network, class, in and uplink.
	ofExternal             // A mapping's head, by class and ext.
)

// A cell is 32 bits:
//
//	31   26 25  24 23                     0
//	+------+------+-----------------------+
//	| tag  | kind | index into conns, ≥ 1 |
//	+------+------+-----------------------+
//
// 0 is free. The tag is six bits of the hash, so that a probe seldom looks at
// a connection that it isn't for.
const (
	idBits  = 24
	idMask  = 1<<idBits - 1
	tagMask = 0x3f
	// MaxConns bounds Config.MaxConns: what a cell can number.
	MaxConns = idMask
)

func cellOf(k kind, h uint64, id uint32) uint32 {
	return uint32(h&tagMask)<<26 | uint32(k)<<idBits | id
}

// home returns the first cell to look in.
func (t *table) home(h uint64) uint32 {
	i, _ := bits.Mul64(h, uint64(len(t.cells)))
	return uint32(i)
}

func (t *table) hashInside(net uint16, cl class, in addr, inPort uint16, out addr, outPort uint16) uint64 {
	return hash(t.seed, in, out, uint64(inPort)<<48|uint64(outPort)<<32|uint64(net)<<8|uint64(cl)<<2|uint64(byInside))
}

func (t *table) hashExternal(cl class, ext, extPort uint16, out addr, outPort uint16) uint64 {
	return hash(t.seed, addr{}, out, uint64(extPort)<<48|uint64(outPort)<<32|uint64(ext)<<8|uint64(cl)<<2|uint64(byExternal))
}

func (t *table) hashInsideMapping(net uint16, cl class, in addr, inPort, uplink uint16) uint64 {
	return hash(t.seed, in, addr{}, uint64(inPort)<<48|uint64(uplink)<<32|uint64(net)<<8|uint64(cl)<<2|uint64(ofInside))
}

func (t *table) hashExternalMapping(cl class, ext, extPort uint16) uint64 {
	return hash(t.seed, addr{}, addr{}, uint64(extPort)<<48|uint64(ext)<<8|uint64(cl)<<2|uint64(ofExternal))
}

// wanted is what a cell of a kind and hash has but for its number.
func wanted(k kind, h uint64) uint32 { return cellOf(k, h, 0) }

// candidate returns what the next cell from i on numbers that is as wanted, and
// where to go on; 0 if there is no other.
func (t *table) candidate(i, want uint32) (id, next uint32) {
	for {
		v := t.cells[i]
		if i++; i == uint32(len(t.cells)) {
			i = 0
		}
		if v == 0 {
			return 0, i
		}
		if v&^idMask == want {
			return v & idMask, i
		}
	}
}

// findInside returns the connection of a packet on its way out, or 0. It
// begins at h, its hashInside.
func (t *table) findInside(h uint64, net uint16, cl class, in addr, inPort uint16, out addr, outPort uint16) uint32 {
	want := wanted(byInside, h)
	for id, i := t.candidate(t.home(h), want); id != 0; id, i = t.candidate(i, want) {
		c := &t.conns[id]
		if c.in == in && c.out == out && c.inPort == inPort && c.outPort == outPort &&
			c.class == cl && t.hosts.list[c.host].net == net {
			return id
		}
	}
	return 0
}

// findExternal returns the connection of a packet on its way in, or 0. It
// begins at h, its hashExternal.
func (t *table) findExternal(h uint64, cl class, ext, extPort uint16, out addr, outPort uint16) uint32 {
	want := wanted(byExternal, h)
	for id, i := t.candidate(t.home(h), want); id != 0; id, i = t.candidate(i, want) {
		c := &t.conns[id]
		if c.out == out && c.extPort == extPort && c.outPort == outPort && c.ext == ext && c.class == cl {
			return id
		}
	}
	return 0
}

// findInsideMapping returns the head of the mapping of an inside endpoint at
// an uplink, or 0.
func (t *table) findInsideMapping(net uint16, cl class, in addr, inPort, uplink uint16) uint32 {
	h := t.hashInsideMapping(net, cl, in, inPort, uplink)
	want := wanted(ofInside, h)
	for id, i := t.candidate(t.home(h), want); id != 0; id, i = t.candidate(i, want) {
		c := &t.conns[id]
		if c.in == in && c.inPort == inPort && c.class == cl &&
			t.hosts.list[c.host].net == net && t.uplinkOf(c) == uplink {
			return id
		}
	}
	return 0
}

// findExternalMapping returns the head of the mapping that has an external
// endpoint, or 0.
func (t *table) findExternalMapping(cl class, ext, extPort uint16) uint32 {
	h := t.hashExternalMapping(cl, ext, extPort)
	want := wanted(ofExternal, h)
	for id, i := t.candidate(t.home(h), want); id != 0; id, i = t.candidate(i, want) {
		c := &t.conns[id]
		if c.extPort == extPort && c.ext == ext && c.class == cl {
			return id
		}
	}
	return 0
}

// hashOf returns the hash of what a cell stands for.
func (t *table) hashOf(k kind, c *conn) uint64 {
	switch k {
	case byInside:
		return t.hashInside(t.hosts.list[c.host].net, c.class, c.in, c.inPort, c.out, c.outPort)
	case byExternal:
		return t.hashExternal(c.class, c.ext, c.extPort, c.out, c.outPort)
	case ofInside:
		return t.hashInsideMapping(t.hosts.list[c.host].net, c.class, c.in, c.inPort, t.uplinkOf(c))
	default:
		return t.hashExternalMapping(c.class, c.ext, c.extPort)
	}
}

// enter adds a connection to the index as k. There is always room: see
// newTable.
func (t *table) enter(k kind, id uint32) {
	h := t.hashOf(k, &t.conns[id])
	i := t.home(h)
	for t.cells[i] != 0 {
		if i++; i == uint32(len(t.cells)) {
			i = 0
		}
	}
	t.cells[i] = cellOf(k, h, id)
}

// seek returns where a connection that was entered as k is.
func (t *table) seek(k kind, id uint32) uint32 {
	h := t.hashOf(k, &t.conns[id])
	want := cellOf(k, h, id)
	i := t.home(h)
	for t.cells[i] != want {
		if i++; i == uint32(len(t.cells)) {
			i = 0
		}
	}
	return i
}

// leave takes back enter. Those behind are shifted back, so that no tombstones
// are needed.
func (t *table) leave(k kind, id uint32) {
	n := uint32(len(t.cells))
	hole := t.seek(k, id)
	for i := hole; ; {
		if i++; i == n {
			i = 0
		}
		v := t.cells[i]
		if v == 0 {
			break
		}
		home := t.home(t.hashOf(kind(v>>idBits&3), &t.conns[v&idMask]))
		// It may move to the hole unless its home is behind that, going round.
		if (i+n-home)%n < (i+n-hole)%n {
			continue
		}
		t.cells[hole] = v
		hole = i
	}
	t.cells[hole] = 0
}
