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
// A segment costs about 25 ns and one pass over its payload, which is summed while
// it is moved.
type Coalescer struct {
	buf      []byte // The caller's: the frame is buf[off:end] as yet.
	off, end int

	l3, l4, hdr int // Offsets in the frame; hdr is where the payload begins.
	size        int // Payload bytes of each segment.
	segments    int // How many there are; 0: none begun.
	seq         uint32
	id          uint16 // IPv4: the last segment's identification.
	idStep      uint16 // IPv4: by how much it counts up; known from the second on.
	v6          bool
	ended       bool // PSH or a shorter segment: nothing may follow.
	cwr         bool // The first has it.

	// Sums of what all segments have in common.
	ipSum  uint32 // IPv4 header without length, identification and checksum.
	pseudo uint32 // Pseudo-header without the length.

	alone wire.VNetHdr // What the first owes if no other follows.

	// headers is the first segment's L2 to L4 without CWR; the bits that
	// sameBits has must be equal in all.
	headers, sameBits [maxHeaders]byte

	moved [maxHeaders]byte // The headers of the segment that move is at.
}

// maxHeaders holds Ethernet with two tags, IPv6 and the longest TCP header.
const maxHeaders = 128

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
	if !c.beginIP(frame) || !c.checksumRight(frame) {
		return owes, false
	}
	c.buf, c.off, c.end = buf, off, off+n
	c.segments, c.ended, c.alone = 1, false, owes
	c.seq = t.Seq() + uint32(c.size)
	c.cwr = t.Flags()&wire.TCPCwr != 0
	c.expect(frame)
	return owes, true
}

// expect sets headers and sameBits.
func (c *Coalescer) expect(frame []byte) {
	const length, seq, flags, checksum = 2, 4, tcpFlagsOff + 1, wire.TCPCsumOff
	copy(c.headers[:], frame[:c.hdr])
	c.headers[c.l4+flags] &^= wire.TCPCwr
	for i := range c.sameBits {
		c.sameBits[i] = 0xff
	}
	ip, tcp := c.sameBits[c.l3:], c.sameBits[c.l4:]
	if c.v6 {
		clear(ip[4:6]) // Payload length.
	} else {
		clear(ip[length : length+4]) // And identification.
		clear(ip[10:12])             // Checksum.
	}
	clear(tcp[seq : seq+4])
	clear(tcp[checksum : checksum+2])
	tcp[flags] = 0xff &^ wire.TCPPsh
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
// not changed the segment, if it is not the next one or the frame can't grow.
func (c *Coalescer) Add(frame []byte) bool {
	n := len(frame) - c.hdr
	if c.segments == 0 || c.ended || n <= 0 || n > c.size ||
		n > len(c.buf)-c.end || c.end-c.off-c.l3+n > maxIPLen || !c.follows(frame) {
		return false
	}
	// Read first, moved then: the payload may come to lie where the headers are.
	push := (*wire.TCPHeader)(frame[c.l4:]).Flags() & wire.TCPPsh
	if !c.move(frame) {
		return false
	}
	c.buf[c.off+c.l4+tcpFlagsOff+1] |= push
	c.ended = push != 0 || n < c.size
	c.end += n
	c.seq += uint32(n)
	c.id += c.idStep
	c.segments++
	return true
}

// move brings a segment's payload to the frame's end if its checksum is right,
// which it finds out while it moves: hardly one is wrong, and then everything is
// put back.
func (c *Coalescer) move(frame []byte) bool {
	to, payload := c.buf[c.end:], frame[c.hdr:]
	acc, csum := c.pseudo+uint32(len(frame)-c.l4), (*wire.TCPHeader)(frame[c.l4:]).Checksum()
	if csum == wire.Fold(acc) {
		copy(to, payload)
		return true
	}
	if csum == maxUint16 {
		return false
	}
	copy(c.moved[:], frame[:c.hdr])
	acc = wire.CopySum(to, payload, wire.Sum(frame[c.l4:c.hdr], acc))
	if wire.Fold(acc) == maxUint16 {
		return true
	}
	copy(payload, to)
	copy(frame, c.moved[:c.hdr])
	return false
}

// follows tells whether a segment's headers, but for its TCP checksum, are the
// next one's. It may set idStep. len(frame) is more than c.hdr.
func (c *Coalescer) follows(frame []byte) bool {
	le := binary.LittleEndian
	at := c.hdr - 8
	diff := (le.Uint64(frame[at:]) ^ le.Uint64(c.headers[at:])) & le.Uint64(c.sameBits[at:])
	for i := 0; i < at; i += 8 {
		diff |= (le.Uint64(frame[i:]) ^ le.Uint64(c.headers[i:])) & le.Uint64(c.sameBits[i:])
	}
	if diff != 0 || (*wire.TCPHeader)(frame[c.l4:]).Seq() != c.seq {
		return false
	}
	if c.v6 {
		return (*wire.IPv6Header)(frame[c.l3:]).PayloadLen() == len(frame)-c.l4
	}
	ip := (*wire.IPv4Header)(frame[c.l3:])
	if c.segments == 1 {
		c.idStep = ip.ID() - c.id
		if c.idStep > 1 || c.idStep == 0 && ip.FlagsFrag()&wire.IPv4DontFragment == 0 {
			return false
		}
	}
	length, id := uint16(len(frame)-c.l3), c.id+c.idStep
	return ip.TotalLen() == int(length) && ip.ID() == id && ip.Checksum() == c.ipChecksum(length, id)
}

func (c *Coalescer) ipChecksum(length, id uint16) uint16 {
	return ^wire.Fold(c.ipSum + uint32(length) + uint32(id))
}

// checksumRight verifies the TCP checksum of a segment: partial, or complete.
// What sums to 0 is written so: as 0xffff a Segmenter doesn't give it back.
func (c *Coalescer) checksumRight(frame []byte) bool {
	acc, csum := c.pseudo+uint32(len(frame)-c.l4), (*wire.TCPHeader)(frame[c.l4:]).Checksum()
	return csum == wire.Fold(acc) || csum != maxUint16 && wire.Fold(wire.Sum(frame[c.l4:], acc)) == maxUint16
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
