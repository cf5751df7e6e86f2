// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"encoding/binary"
	"math/bits"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Guard is a port around a port by which containers' frames leave Heddle: for
// the host, a NIC, an uplink. It lets no VXLAN datagram out that Heddle didn't
// make: one to this host's or a peer's address, or to a group, and no fragment
// of UDP to those addresses whose port can't be seen. With the host's address as
// source it would pass for this host's own at a peer, and bring frames into any
// network. VTEP.Guard makes it.
//
// It has no state of its own: several may be around one port.
type Guard struct {
	inner dataplane.Port
	vtep  *VTEP
	port  uint16
}

var _ dataplane.Port = (*Guard)(nil)

// Guard returns p guarded. Anybody may call it.
func (v *VTEP) Guard(p dataplane.Port) *Guard {
	return &Guard{inner: p, vtep: v, port: v.local.Port()}
}

// Pull implements dataplane.Port: the inner port's.
func (g *Guard) Pull(b *dataplane.Batch) { g.inner.Pull(b) }

// Push implements dataplane.Port: it drops what is forbidden, counted at the
// inner port, and has that push the rest. A frame costs 7 ns, of UDP 15.
func (g *Guard) Push(b *dataplane.Batch) {
	all := b.Sel
	ends := g.vtep.ends.Load()
	var bad uint64
	for s := all; s != 0; s &= s - 1 {
		i := dataplane.First(s)
		if g.forbids(b.Frames[i].Bytes(), ends) {
			bad |= 1 << i
		}
	}
	if bad != 0 {
		g.inner.Counters().Drop(b.Worker, dataplane.UnderlayGuard, bits.OnesCount64(bad))
		if b.Sel = all &^ bad; b.Sel == 0 {
			b.Sel = all
			return
		}
	}
	g.inner.Push(b)
	b.Sel = all
}

// forbids tells whether a frame is for a tunnel's end.
func (g *Guard) forbids(data []byte, ends *ends) bool {
	// Most is IPv4, untagged, and no UDP.
	if len(data) >= wire.EthHdrLen+wire.IPv4MinHdrLen && data[wire.EthHdrLen+9] != wire.ProtoUDP &&
		binary.BigEndian.Uint16(data[wire.EthTypeOff:]) == wire.EtherTypeIPv4 {
		return false
	}
	etherType, l3, ok := wire.L3(data)
	if !ok {
		return false
	}
	switch etherType {
	case wire.EtherTypeIPv4:
		h, ok := wire.IPv4At(data, l3)
		if !ok || h.Proto() != wire.ProtoUDP {
			return false
		}
		port, seen := uint16(0), false
		if h.FragOff() == 0 {
			port, seen = destination(data, l3+h.HdrLen())
		}
		return g.guards(ends, v4(h.Dst()), port, seen)
	case wire.EtherTypeIPv6:
		h, ok := wire.IPv6At(data, l3)
		if !ok || h.NextHeader() == wire.ProtoTCP {
			return false
		}
		u, ok := wire.IPv6Walk(data, l3)
		if ok && u.Proto != wire.ProtoUDP {
			return false
		}
		port, seen := uint16(0), false
		if ok && u.FragOff == 0 {
			port, seen = destination(data, u.Off)
		}
		return g.guards(ends, v6(h.Dst()), port, seen)
	}
	return false
}

// destination returns the destination port of the UDP header at l4, if it is
// there.
func destination(data []byte, l4 int) (port uint16, seen bool) {
	if len(data)-l4 < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint16(data[l4+2:]), true
}

// guards tells whether a datagram to a, and to port if that is seen, might reach
// a VTEP: a peer's, or this host's, which hears groups too if it is bound to all
// addresses.
func (g *Guard) guards(ends *ends, a addr, port uint16, seen bool) bool {
	if seen && port != g.port && !ends.odd {
		return false
	}
	end := ends.at(a)
	if !seen {
		return end.used
	}
	return port == g.port && (end.used || a.isGroup()) || end.peer != nil && port == end.port
}

// FD implements dataplane.Port: the inner port's.
func (g *Guard) FD(worker int) int { return g.inner.FD(worker) }

// Counters implements dataplane.Port: the inner port's.
func (g *Guard) Counters() *dataplane.Counters { return g.inner.Counters() }

// Close closes the inner port.
func (g *Guard) Close() error { return g.inner.Close() }

// Inner returns the port that is guarded.
func (g *Guard) Inner() dataplane.Port { return g.inner }
