// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// mayGo tells whether the packet at hand can pass a path of mtu bytes: as it
// is, or, over IPv4 where its sender allows it, in pieces (RFC 791 3.2, RFC
// 1812 5.2.6). Else its sender is told.
func (t *turn) mayGo(l *link, from addr, mtu int) bool {
	p := &t.p
	if p.end-p.l3 <= mtu || p.l3Len(t.f) <= mtu {
		return true
	}
	if p.splits(t.f) {
		return true
	}
	t.report(l, from, &tooBig, mtu)
	return false
}

// splits tells whether a packet may be cut: no super-frame, whose segments the
// sender chose, no options, which pieces have only some of (RFC 791 3.1).
func (p *packet) splits(f *dataplane.Frame) bool {
	return !p.v6 && !f.Owes.GSO() && p.l4-p.l3 == wire.IPv4MinHdrLen && p.end <= slotSize &&
		p.data[p.l3+6]&(wire.IPv4DontFragment>>8) == 0
}

// split sends the packet at hand, which is translated and addressed, to a path
// in pieces of mtu bytes by the outbox.
func (t *turn) split(path uint16, mtu int) (uint16, dataplane.Drop) {
	p := &t.p
	if p.owes.Partial() && !offload.Complete(p.data, p.owes) {
		return 0, dataplane.BadPacket
	}
	h, _ := wire.IPv4At(p.data, p.l3)
	flags := h.FlagsFrag()
	size := (mtu - wire.IPv4MinHdrLen) &^ 7
	for at := p.l4; at < p.end; at += size {
		f := t.spare()
		if f == nil {
			return 0, dataplane.None
		}
		n := min(size, p.end-at)
		f.Len = p.l4 + n
		b := f.Bytes()
		copy(b, p.data[:p.l4])
		copy(b[p.l4:], p.data[at:at+n])
		g := (*wire.IPv4Header)(b[p.l3:])
		v := flags + uint16((at-p.l4)/8)
		if at+n < p.end {
			v |= wire.IPv4MoreFragments
		}
		binary.BigEndian.PutUint16(g[6:], v)
		g.SetTotalLen(uint16(wire.IPv4MinHdrLen + n))
		csum, _ := wire.IPv4Checksum(b, p.l3)
		g.SetChecksum(csum)
		t.route(path)
	}
	return 0, dataplane.None
}
