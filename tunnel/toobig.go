// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"encoding/binary"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

const (
	// tunnelMAC is the first of the addresses that tunnels send ICMP errors
	// from; the lower 16 bits are the PortID. Where the too long packet's
	// destination would be the sender, as in the kernel's vxlan device, a packet
	// that was flooded would teach the switch a place where the destination may
	// not be.
	tunnelMAC wire.MAC = 0x024844000000

	// toldPerSecond bounds the senders that a tunnel tells in a second, on each
	// worker.
	toldPerSecond = 100

	fragNeeded = 4   // Code of ICMPUnreachable (RFC 1191 4).
	icmpMax4   = 576 // The longest ICMP error (RFC 1812 4.3.2.3).
	icmpMax6   = 1280
	icmpTTL    = 64
)

// told is how many senders a worker has told since when.
type told struct {
	since int64
	n     int
	_     [48]byte
}

func (t *told) may(now int64) bool {
	if now-t.since >= int64(time.Second) || t.since == 0 {
		t.since, t.n = max(now, 1), 0
	}
	t.n++
	return t.n <= toldPerSecond
}

// tooLong tells whether a frame, or the longest segment of a super-frame, is
// too long for the tunnel: its packet for mtu, or with its tags for maxLen. Then
// it tells the sender, whether or not it forbids fragments: nobody else
// fragments what crosses an Ethernet.
func (t *Tunnel) tooLong(w *worker, b *dataplane.Batch, f *dataplane.Frame, mtu, maxLen int) bool {
	data := f.Bytes()
	etherType, l3, ok := wire.L3(data)
	if !ok {
		l3 = wire.EthHdrLen
	}
	n := offload.SegmentLen(data, &f.Owes)
	if n <= maxLen && n-l3 <= mtu {
		return false
	}
	limit := min(maxLen-l3, mtu)
	if told := &t.told[b.Worker]; etherType == wire.EtherTypeIPv4 && deserves4(data, l3) && told.may(b.Now) {
		t.tellTooBig4(w, b, data, l3, limit)
	} else if etherType == wire.EtherTypeIPv6 && limit >= MinPathMTU && deserves6(data, l3) && told.may(b.Now) {
		t.tellTooBig6(w, b, data, l3, limit)
	}
	return true
}

// deserves4 tells whether a packet may be answered by an ICMP error (RFC 1122
// 3.2.2): it is no error itself, no later fragment, and between two stations.
func deserves4(data []byte, l3 int) bool {
	h, ok := wire.IPv4At(data, l3)
	if !ok || h.FragOff() != 0 || isFlooded(data) {
		return false
	}
	src, dst := v4(h.Src()), v4(h.Dst())
	if src.isNone() || src.isGroup() || dst.isGroup() {
		return false
	}
	m, ok := wire.ICMPAt(data, l3+h.HdrLen())
	return h.Proto() != wire.ProtoICMP || ok && !wire.IsICMPError(m.Type(), false)
}

// deserves6 is deserves4 for IPv6 (RFC 4443 2.4). Below MinPathMTU nobody is
// told, because such a message is to be ignored (RFC 8201 4).
func deserves6(data []byte, l3 int) bool {
	h, ok := wire.IPv6At(data, l3)
	if !ok || isFlooded(data) {
		return false
	}
	src, dst := v6(h.Src()), v6(h.Dst())
	u, ok := wire.IPv6Walk(data, l3)
	if !ok || src.isNone() || src.isGroup() || dst.isGroup() {
		return false
	}
	if u.Proto != wire.ProtoICMPv6 || u.FragOff != 0 {
		return true
	}
	m, ok := wire.ICMPAt(data, u.Off)
	return ok && !wire.IsICMPError(m.Type(), true)
}

// tellTooBig4 makes a destination unreachable, fragmentation needed (RFC 1191
// 4), in the destination's name.
func (t *Tunnel) tellTooBig4(w *worker, b *dataplane.Batch, data []byte, l3, mtu int) {
	orig := data[l3:min(len(data), l3+icmpMax4-wire.IPv4MinHdrLen-wire.ICMPHdrLen)]
	n := wire.ICMPHdrLen + len(orig)
	out, own := w.made(t, b, l3+wire.IPv4MinHdrLen+n)
	if out == nil {
		return
	}
	h, _ := wire.IPv4At(data, l3)
	t.turnRound(out, data, l3)
	m := putIPv4(out, l3, v4(h.Dst()), v4(h.Src()), wire.ProtoICMP, icmpTTL, n)
	clear(m[:wire.ICMPHdrLen])
	m[0], m[1] = wire.ICMPUnreachable, fragNeeded
	binary.BigEndian.PutUint16(m[6:], uint16(mtu))
	copy(m[wire.ICMPHdrLen:], orig)
	binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:], ^wire.Fold(wire.Sum(m, 0)))
	own.Add()
	count(&w.tooBig, 1)
}

// tellTooBig6 makes a packet too big (RFC 4443 3.2), in the destination's name.
func (t *Tunnel) tellTooBig6(w *worker, b *dataplane.Batch, data []byte, l3, mtu int) {
	orig := data[l3:min(len(data), l3+icmpMax6-wire.IPv6HdrLen-wire.ICMPHdrLen)]
	n := wire.ICMPHdrLen + len(orig)
	out, own := w.made(t, b, l3+wire.IPv6HdrLen+n)
	if out == nil {
		return
	}
	h, _ := wire.IPv6At(data, l3)
	t.turnRound(out, data, l3)
	m := putIPv6(out, l3, v6(h.Dst()), v6(h.Src()), wire.ProtoICMPv6, icmpTTL, n)
	clear(m[:wire.ICMPHdrLen])
	m[0] = wire.ICMPv6PacketTooBig
	binary.BigEndian.PutUint32(m[4:], uint32(mtu))
	copy(m[wire.ICMPHdrLen:], orig)
	sumICMPv6(out, l3, m)
	own.Add()
	count(&w.tooBig, 1)
}

// turnRound writes the Ethernet header of a reply to data, with its tags.
func (t *Tunnel) turnRound(out, data []byte, l3 int) {
	copy(out[wire.EthTypeOff:l3], data[wire.EthTypeOff:l3])
	wire.SrcMAC(data).Put(out[wire.EthDst:])
	t.mac.Put(out[wire.EthSrc:])
}
