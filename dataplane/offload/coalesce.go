// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import (
	"encoding/binary"

	"heddle/dataplane/wire"
)

// Coalescer joins TCP segments that follow each other into one GSO frame, as
// GRO does in the kernel: what a Segmenter undoes. The zero value is ready;
// one serves any number of frames, one at a time:
//
//	if open && c.Add(frame) {
//		continue // It is part of the one before.
//	}
//	if open {
//		f.Len, f.Owes = c.End()
//	}
//	f.Owes, open = c.Begin(buf, off, n, mtu)
//
// Segments are joined if cutting the frame again gives them back byte by byte:
// their L2, IP and TCP headers are equal but for what the Segmenter sets
// anew. So sequence numbers are contiguous, payloads are of the first one's
// length but for a shorter last one, PSH is in the last only and CWR in the
// first only, there is no flag else but ACK and ECE, and no IP option or
// extension header; lengths fit and checksums are right. IPv4 identifications
// count up, or stay as they are in packets with DF, where they mean nothing
// (RFC 6864 section 4.1): those alone are not given back.
//
// A checksum is right also where it is partial (see Begin). A frame that isn't
// joined is not changed.
//
// A segment costs about 10 ns and a sum and a move of its payload.
type Coalescer struct {
	buf      []byte // The caller's: the frame is buf[off:end] as yet.
	off, end int

	l3, l4, hdr int // Offsets in the frame; hdr is where the payload begins.
	size        int // Payload bytes of each segment.
	segments    int // How many there are; 0: none begun.
	seq         uint32
	id          uint16 // IPv4: the next segment's identification.
	idStep      uint16 // IPv4: by how much it counts up; known from the second on.
	flags       uint16 // Data offset and flags that the next must have, but for PSH.
	v6          bool
	ended       bool // PSH or a shorter segment: nothing may follow.
	cwr         bool // The first has it.

	// Sums of what all segments have in common.
	ipSum  uint32 // IPv4 header without length, identification and checksum.
	pseudo uint32 // Pseudo-header without the length.

	alone wire.VNetHdr // What the first owes if no other follows.
}

const maxUint16 = 0xffff

// Begin takes the frame buf[off:off+n], whatever it is, as the first of a new
// one, and tells what it owes by itself; open tells whether Add may join others
// to it. They are put behind it in buf, which must therefore be free from off+n
// on, up to where the segments to come lie, and is the Coalescer's until End.
//
// mtu is the length in bytes of the longest IP packet that is one segment. A
// longer one is taken for the GSO frame that it is, see Adopt.
func (c *Coalescer) Begin(buf []byte, off, n, mtu int) (owes wire.VNetHdr, open bool) {
	c.segments = 0
	frame := buf[off : off+n]
	var l wire.Layers
	if !l.Parse(frame) {
		return owes, false
	}
	owes = adopt(frame, &l, mtu, 0)
	t, ok := wire.TCPAt(frame, l.L4)
	if l.Proto != wire.ProtoTCP || l.IsFragment() || !ok || l.End != n || n-l.L3 > mtu {
		return owes, false
	}
	flags := uint8(wire.TCPAck | wire.TCPEce | wire.TCPCwr)
	c.hdr = l.L4 + t.HdrLen()
	if t.Flags()&^flags != 0 || t.Flags()&wire.TCPAck == 0 || n-c.hdr < minTCPSegment {
		return owes, false
	}
	c.l3, c.l4, c.v6, c.size = l.L3, l.L4, l.V6, n-c.hdr
	if !c.beginIP(frame) || !owes.Partial() && !c.sumRight(frame, t) {
		return owes, false
	}
	c.buf, c.off, c.end = buf, off, off+n
	c.segments, c.ended, c.alone = 1, false, owes
	c.seq = t.Seq() + uint32(c.size)
	c.cwr = t.Flags()&wire.TCPCwr != 0
	c.flags = binary.BigEndian.Uint16(t[tcpFlagsOff:]) &^ wire.TCPCwr
	return owes, true
}

// beginIP takes from the first segment's IP header what all have in common.
func (c *Coalescer) beginIP(frame []byte) bool {
	if c.v6 {
		ip, ok := wire.IPv6At(frame, c.l3)
		if !ok || c.l4 != c.l3+wire.IPv6HdrLen {
			return false
		}
		c.pseudo = wire.PseudoSum6(ip.Src(), ip.Dst(), wire.ProtoTCP, 0)
		return true
	}
	ip, ok := wire.IPv4At(frame, c.l3)
	if !ok || c.l4 != c.l3+wire.IPv4MinHdrLen {
		return false
	}
	c.pseudo = wire.PseudoSum4(ip.Src(), ip.Dst(), wire.ProtoTCP, 0)
	c.id = ip.ID()
	c.ipSum = wire.Sum(ip[:], 0) + less(uint16(ip.TotalLen())) + less(ip.ID()) + less(ip.Checksum())
	return c.ipChecksum(uint16(ip.TotalLen()), ip.ID()) == ip.Checksum()
}

// Add joins a segment to the frame: its payload is moved, or copied if the
// segment lies in another buffer, to the frame's end. It returns false, and has
// changed nothing, if the segment is not the next one or the frame can't grow.
func (c *Coalescer) Add(frame []byte) bool {
	n := len(frame) - c.hdr
	if c.segments == 0 || c.ended || n <= 0 || n > c.size ||
		n > len(c.buf)-c.end || c.end-c.off-c.l3+n > maxIPLen || !c.follows(frame) {
		return false
	}
	push := frame[c.l4+tcpFlagsOff+1] & wire.TCPPsh
	c.buf[c.off+c.l4+tcpFlagsOff+1] |= push
	c.ended = push != 0 || n < c.size
	copy(c.buf[c.end:], frame[c.hdr:]) // From here on frame may be overwritten.
	c.end += n
	c.seq += uint32(n)
	c.segments++
	c.id += c.idStep
	return true
}

// follows tells whether a segment is the next one. It may set idStep.
func (c *Coalescer) follows(frame []byte) bool {
	first := c.buf[c.off : c.off+c.hdr]
	t, ok := wire.TCPAt(frame, c.l4)
	if !ok || t.Seq() != c.seq || string(frame[:c.l3]) != string(first[:c.l3]) {
		return false
	}
	h := (*wire.TCPHeader)(first[c.l4:])
	if binary.BigEndian.Uint16(t[tcpFlagsOff:])&^wire.TCPPsh != c.flags ||
		[4]byte(t[0:]) != [4]byte(h[0:]) || // Ports.
		t.Ack() != h.Ack() || t.Window() != h.Window() || [2]byte(t[18:]) != [2]byte(h[18:]) ||
		string(frame[c.l4+wire.TCPMinHdrLen:c.hdr]) != string(first[c.l4+wire.TCPMinHdrLen:]) {
		return false
	}
	if c.v6 {
		a, b := (*wire.IPv6Header)(frame[c.l3:]), (*wire.IPv6Header)(first[c.l3:])
		if a.PayloadLen() != len(frame)-c.l4 || [4]byte(a[0:]) != [4]byte(b[0:]) ||
			[34]byte(a[6:]) != [34]byte(b[6:]) {
			return false
		}
	} else if !c.follows4((*wire.IPv4Header)(frame[c.l3:]), (*wire.IPv4Header)(first[c.l3:]), len(frame)-c.l3) {
		return false
	}
	return t.Checksum() == wire.Fold(c.pseudo+uint32(len(frame)-c.l4)) || c.sumRight(frame, t)
}

// follows4 holds the IPv4 header a of a segment against the first one's, b.
func (c *Coalescer) follows4(a, b *wire.IPv4Header, length int) bool {
	if [2]byte(a[0:]) != [2]byte(b[0:]) || a.TotalLen() != length ||
		[4]byte(a[6:]) != [4]byte(b[6:]) || // Flags, TTL, protocol.
		[8]byte(a[12:]) != [8]byte(b[12:]) {
		return false
	}
	if c.segments == 1 {
		c.idStep = a.ID() - c.id
		if c.idStep > 1 || c.idStep == 0 && a.FlagsFrag()&wire.IPv4DontFragment == 0 {
			return false
		}
	}
	id := c.id + c.idStep
	return a.ID() == id && a.Checksum() == c.ipChecksum(uint16(length), id)
}

func (c *Coalescer) ipChecksum(length, id uint16) uint16 {
	return ^wire.Fold(c.ipSum + uint32(length) + uint32(id))
}

// sumRight verifies a complete TCP checksum. What sums to 0 is written so: as
// 0xffff a Segmenter doesn't give it back.
func (c *Coalescer) sumRight(frame []byte, t *wire.TCPHeader) bool {
	return wire.Fold(wire.Sum(frame[c.l4:], c.pseudo+uint32(len(frame)-c.l4))) == maxUint16 && t.Checksum() != maxUint16
}

// End ends the frame that Begin opened and returns its length in bytes and
// what it owes. It returns 0 if there is none.
func (c *Coalescer) End() (n int, owes wire.VNetHdr) {
	if c.segments == 0 {
		return 0, owes
	}
	n = c.end - c.off
	if c.segments == 1 {
		c.segments = 0
		return n, c.alone
	}
	c.segments = 0
	frame := c.buf[c.off:c.end]
	owes = wire.VNetHdr{
		Flags: wire.VNetNeedsCsum, GSOType: wire.VNetGSOTCP4, HdrLen: uint16(c.hdr),
		GSOSize: uint16(c.size), CsumStart: uint16(c.l4), CsumOffset: wire.TCPCsumOff,
	}
	if c.v6 {
		owes.GSOType = wire.VNetGSOTCP6
		(*wire.IPv6Header)(frame[c.l3:]).SetPayloadLen(uint16(n - c.l4))
	} else {
		ip := (*wire.IPv4Header)(frame[c.l3:])
		ip.SetTotalLen(uint16(n - c.l3))
		ip.SetChecksum(c.ipChecksum(uint16(n-c.l3), ip.ID()))
	}
	if c.cwr {
		owes.GSOType |= wire.VNetGSOECN
	}
	(*wire.TCPHeader)(frame[c.l4:]).SetChecksum(wire.Fold(c.pseudo + uint32(n-c.l4)))
	return n, owes
}
