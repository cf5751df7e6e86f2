package filter

import "encoding/binary"

// Bytes is how much of a frame a Filter looks at, in bytes: Ethernet with two
// tags, the longest IPv4 header and the ports behind it. Whoever cuts frames
// short before Match leaves that much.
const Bytes = 14 + 2*4 + 60 + 4

// Filter is a compiled filter. One goroutine uses it at a time.
type Filter struct {
	root node
	v    view
}

// view is a frame as primitives see it.
type view struct {
	untagged []byte    // The frame without its tags, at most Bytes of it.
	vids     [2]uint16 // The tags' VLAN ids, outermost first.
	tags     int       // How many of vids are valid.
	wireLen  int       // Length of the whole frame in bytes, tags included.
	scratch  [Bytes]byte
}

// node is an expression or a part of one.
type node interface{ match(v *view) bool }

type (
	andNode  struct{ a, b node }
	orNode   struct{ a, b node }
	notNode  struct{ a node }
	vlanNode struct {
		id  uint16
		any bool
	}
	lenNode struct{ min, max int }
)

func (n andNode) match(v *view) bool { return n.a.match(v) && n.b.match(v) }
func (n orNode) match(v *view) bool  { return n.a.match(v) || n.b.match(v) }
func (n notNode) match(v *view) bool { return !n.a.match(v) }
func (n lenNode) match(v *view) bool { return v.wireLen >= n.min && v.wireLen <= n.max }

func (n vlanNode) match(v *view) bool {
	for _, id := range v.vids[:v.tags] {
		if n.any || id == n.id {
			return true
		}
	}
	return false
}

// Match tells whether the filter selects a frame of wireLen bytes, of which
// data is the beginning: the first Bytes of it decide. data is read until
// Match returns. A nil Filter selects every frame. It never fails: what a frame
// is too short to hold, it doesn't have.
func (f *Filter) Match(data []byte, wireLen int) bool {
	if f == nil {
		return true
	}
	f.v.load(data, wireLen)
	return f.root.match(&f.v)
}

// load makes v the view of a frame.
func (v *view) load(data []byte, wireLen int) {
	v.tags, v.wireLen = 0, wireLen
	rest := data
	if len(data) >= 12 {
		rest = data[12:]
	}
	for v.tags < len(v.vids) && len(data) >= 12 && len(rest) >= 4 {
		tpid := binary.BigEndian.Uint16(rest)
		if tpid != 0x8100 && tpid != 0x88a8 {
			break
		}
		v.vids[v.tags] = binary.BigEndian.Uint16(rest[2:]) & 0x0fff
		v.tags++
		rest = rest[4:]
	}
	if v.tags == 0 {
		v.untagged = data[:min(len(data), Bytes)]
		return
	}
	n := copy(v.scratch[:], data[:12])
	n += copy(v.scratch[n:], rest)
	v.untagged = v.scratch[:n]
}
