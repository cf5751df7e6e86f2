// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// primeFrom is how many frames of the last batch must have gone the long way
// to a connection before the next is primed.
const primeFrom = 8

// prime brings from memory what the long way will look at, in two loops as
// short as can be so that all their loads are under way together: the index's
// cells, then the connections. One after the other, at 100 ns and more each,
// they would be most of what a frame costs when there are many connections. It
// costs 12 ns a frame, and nothing while short cuts serve.
func (t *turn) prime(l *link, u *Uplink) {
	missed := t.missed
	t.missed = 0
	if missed < primeFrom {
		return
	}
	tb := &t.nat.table
	var hashes [dataplane.BatchSize]uint64
	n, sum := 0, uint32(0)
	for s := t.b.Sel; s != 0; s &= s - 1 {
		b := t.b.Frames[dataplane.First(s)].Bytes()
		if len(b) < quickL4+wire.UDPHdrLen || binary.BigEndian.Uint16(b[wire.EthTypeOff:]) != wire.EtherTypeIPv4 {
			continue
		}
		cl := tcp
		if b[quickL3+9] == wire.ProtoUDP {
			cl = udp
		}
		src, dst := v4(binary.BigEndian.Uint32(b[26:])), v4(binary.BigEndian.Uint32(b[30:]))
		sport, dport := binary.BigEndian.Uint16(b[34:]), binary.BigEndian.Uint16(b[36:])
		var h uint64
		if u == nil {
			h = tb.hashInside(l.path, cl, src, sport, dst, dport)
		} else {
			h = tb.hashExternal(cl, u.extOf(dst), dport, src, sport)
		}
		hashes[n&(dataplane.BatchSize-1)] = h
		n++
		sum += tb.cells[tb.home(h)]
	}
	k := byInside
	if u != nil {
		k = byExternal
	}
	for _, h := range hashes[:n] {
		want := uint32(h&tagMask)<<26 | uint32(k)<<idBits
		i := int(tb.home(h))
		for probe := 0; probe < 8 && i < len(tb.cells); probe++ {
			if v := tb.cells[i]; v&^idMask == want {
				c := &tb.conns[v&idMask]
				sum += uint32(c.in.lo) + c.right + c.packets // All of its cache lines.
				break
			}
			i++
		}
	}
	t.primed += sum // Which keeps the compiler from leaving the loads out.
}
