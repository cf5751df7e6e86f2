// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"heddle/tunnel/underlay"
)

// addr is an IPv6 address as two big-endian words, or an IPv4 address as the
// IPv4-mapped one (RFC 4291 2.5.5.2).
type addr struct{ hi, lo uint64 }

// mapped is the lower half of an IPv4-mapped address without the IPv4 part.
const mapped = 0xffff << 32

func v4(a uint32) addr { return addr{lo: mapped | uint64(a)} }

func v6(b *[16]byte) addr {
	return addr{hi: binary.BigEndian.Uint64(b[:]), lo: binary.BigEndian.Uint64(b[8:])}
}

func addrOf(a netip.Addr) addr {
	b := a.As16()
	return v6(&b)
}

func (a addr) is4() bool { return a.hi == 0 && a.lo>>32 == 0xffff }

// addr4 is the IPv4 address; valid only if is4.
func (a addr) addr4() uint32 { return uint32(a.lo) }

func (a addr) put6(b *[16]byte) {
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
}

// isGroup tells IPv4 224.0.0.0/4, the limited broadcast, and IPv6 ff00::/8.
func (a addr) isGroup() bool {
	if a.is4() {
		return a.addr4()>>28 == 0xe || a.addr4() == 0xffffffff
	}
	return a.hi>>56 == 0xff
}

// isNone tells 0.0.0.0 and ::.
func (a addr) isNone() bool { return a.hi == 0 && (a.lo == 0 || a.lo == mapped) }

// ends is whose an outer address is: a peer's or this host's own. It never
// changes: control code publishes a new one. It is open-addressed and at most
// half full, so that a stranger's address costs two cells.
type ends struct {
	cells []end
	shift uint8 // 64 less log2(len(cells)).
	odd   bool  // Some peer receives at another port than this host.
}

// end is a cell of ends.
type end struct {
	addr addr
	peer *Peer  // Nil for this host's own.
	port uint16 // Where the peer receives; 0 for this host's own.
	used bool
}

// newEnds returns a table of the peers' addresses and the host's own, which
// receives at port; a peer's comes first where both have one.
func newEnds(peers []*Peer, own []addr, port uint16) *ends {
	n := bits.Len(uint(2*(len(peers)+len(own)) + 1))
	e := &ends{cells: make([]end, 1<<n), shift: uint8(64 - n)}
	for _, p := range peers {
		*e.at(p.addr) = end{addr: p.addr, peer: p, port: p.to.Port(), used: true}
		e.odd = e.odd || p.to.Port() != port
	}
	for _, a := range own {
		if c := e.at(a); !c.used {
			*c = end{addr: a, used: true}
		}
	}
	return e
}

// at returns the cell that a is in, or the free one where it would be.
func (e *ends) at(a addr) *end {
	hash, low := bits.Mul64(a.hi^0x9e3779b97f4a7c15, a.lo^0xd1b54a32d192ed03)
	mask := len(e.cells) - 1
	for i := int((hash ^ low) >> e.shift); ; i++ {
		c := &e.cells[i&mask]
		if !c.used || c.addr == a {
			return c
		}
	}
}

// peer returns whose address a datagram came from, or nil.
func (e *ends) peer(a *underlay.Addr) *Peer { return e.at(addr{a.Hi, a.Lo}).peer }

// routes is the tunnels of a peer by VNI. It never changes, and is at most half
// full.
type routes struct {
	cells []*Tunnel
	shift uint8
}

func newRoutes(tunnels []*Tunnel) *routes {
	n := bits.Len(uint(2*len(tunnels) + 1))
	r := &routes{cells: make([]*Tunnel, 1<<n), shift: uint8(32 - n)}
	for _, t := range tunnels {
		i := r.home(t.vni)
		for r.cells[i&(len(r.cells)-1)] != nil {
			i++
		}
		r.cells[i&(len(r.cells)-1)] = t
	}
	return r
}

func (r *routes) home(vni uint32) int { return int(vni * 0x9e3779b9 >> r.shift) }

// find returns the tunnel of a VNI, or nil.
func (r *routes) find(vni uint32) *Tunnel {
	for i := r.home(vni); ; i++ {
		t := r.cells[i&(len(r.cells)-1)]
		if t == nil || t.vni == vni {
			return t
		}
	}
}
