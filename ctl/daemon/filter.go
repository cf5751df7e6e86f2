package daemon

import "encoding/binary"

// filterBytes is how much of a frame a filter looks at: Ethernet with two
// tags, the longest IPv4 header and the ports behind it, in bytes.
const filterBytes = 14 + 2*4 + 60 + 4

// captureFilter is a compiled capture filter. One goroutine uses it at a time.
//
// The expression's and, or and not are a tree in Go; each primitive (`host A`,
// `tcp port 80`) is a classic BPF program of its own. Primitives look through
// up to two 802.1Q or 802.1ad tags, so that `tcp port 80` finds tagged frames
// too; `vlan [ID]` selects by tag. tcpdump's language otherwise, without byte
// expressions (tcp[13]) and host names.
type captureFilter struct {
	root node
	v    view
}

// view is a frame as primitives see it.
type view struct {
	untagged []byte    // The frame without its tags, at most filterBytes of it.
	vids     [2]uint16 // The tags' VLAN ids, outermost first.
	tags     int       // How many of vids are valid.
	wireLen  int       // Length of the whole frame in bytes, tags included.
	scratch  [filterBytes]byte
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

// match tells whether the filter selects a frame of wireLen bytes, of which
// data is the beginning. A nil filter selects every frame.
func (f *captureFilter) match(data []byte, wireLen int) bool {
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
		v.untagged = data[:min(len(data), filterBytes)]
		return
	}
	n := copy(v.scratch[:], data[:12])
	n += copy(v.scratch[n:], rest)
	v.untagged = v.scratch[:n]
}
