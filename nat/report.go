// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// How long an ICMP error may be: RFC 1812 4.3.2.3, RFC 4443 2.4(c).
const (
	maxError4 = 576
	maxError6 = 1280
)

// trouble is what an ICMP error says, in both families.
type trouble struct{ type4, code4, type6, code6 uint8 }

var (
	timeExceeded = trouble{wire.ICMPTimeExceeded, 0, wire.ICMPv6TimeExceeded, 0}
	tooBig       = trouble{wire.ICMPUnreachable, 4, wire.ICMPv6PacketTooBig, 0}
	// noResources is 3/13 and 1/1, communication administratively prohibited.
	noResources = trouble{wire.ICMPUnreachable, 13, wire.ICMPv6Unreachable, 1}
)

// report tells the sender of the packet at hand, which has come in by the link
// as it stands, what became of it. from is the address that says so. mtu is
// for tooBig. It is for control of the sender, and so bounded: no error about
// an error, a later fragment or what was for a group (RFC 1122 3.2.2, RFC 4443
// 2.4(e)), and errorRate a second for each link.
func (t *turn) report(l *link, from addr, what *trouble, mtu int) {
	p := &t.p
	if p.isError || p.later() || from == (addr{}) || p.src.isMulticast() || p.src == (addr{}) ||
		p.dst.isMulticast() || !l.errors.take(t.now) {
		return
	}
	if p.owes.Partial() && !p.owes.GSO() {
		offload.Complete(p.data, p.owes)
	}
	back := wire.SrcMAC(p.data)
	if p.v6 {
		n := min(p.end-p.l3, maxError6-wire.IPv6HdrLen-wire.ICMPHdrLen)
		b := t.compose(l, back, wire.EtherTypeIPv6, wire.EthHdrLen+wire.IPv6HdrLen+wire.ICMPHdrLen+n)
		if b == nil {
			return
		}
		m := putIPv6(b, from, p.src, wire.ProtoICMPv6, localTTL, wire.ICMPHdrLen+n)
		m[0], m[1] = what.type6, what.code6
		binary.BigEndian.PutUint32(m[4:], uint32(mtu))
		copy(m[wire.ICMPHdrLen:], p.data[p.l3:])
		sumICMPv6(b, m)
	} else {
		n := min(p.end-p.l3, maxError4-wire.IPv4MinHdrLen-wire.ICMPHdrLen)
		b := t.compose(l, back, wire.EtherTypeIPv4, wire.EthHdrLen+wire.IPv4MinHdrLen+wire.ICMPHdrLen+n)
		if b == nil {
			return
		}
		m := putIPv4(b, from, p.src, wire.ProtoICMP, localTTL, wire.ICMPHdrLen+n)
		m[0], m[1] = what.type4, what.code4
		binary.BigEndian.PutUint16(m[2:], 0)
		binary.BigEndian.PutUint32(m[4:], uint32(mtu)) // RFC 1191 4: the lower half.
		copy(m[wire.ICMPHdrLen:], p.data[p.l3:])
		binary.BigEndian.PutUint16(m[2:], ^wire.Fold(wire.Sum(m, 0)))
	}
	t.route(l.path)
}

func segmentLen(f *dataplane.Frame) int { return offload.SegmentLen(f.Bytes(), &f.Owes) }
