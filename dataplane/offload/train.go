// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import "heddle/dataplane/wire"

// Train is frames of one TCP connection that follow each other, of which the first
// is a GSO frame, to be given to a kernel as one: what GRO does with segments,
// done with super-frames. Payloads stay where they are; Head writes the header that goes before them
// all, for writev(2). The zero value is empty.
//
// Frames are joined if cutting the whole gives the segments that cutting each of
// them gives: L2, IP and TCP headers are equal but for lengths, checksums,
// identifications and PSH; sequence numbers are contiguous; segments have one
// size, but for the last; there is no flag but ACK and PSH, no IP option or
// extension header, and no fragment. IPv4 packets have DF, with which
// identifications mean nothing (RFC 6864 section 4.1). PSH comes to the end: it
// is no mark in the stream (RFC 9293 section 3.9.1.2). Checksums are partial.
//
// An IPv4 packet may be longer than its header can tell, and then has a total
// length of 0, as the kernel's own have by BIG TCP since Linux 6.3. IPv6 has the
// Jumbo Payload option for that (RFC 2675), which isn't used: up to 6.18 at least,
// Linux counts it to each segment and drops the packet where it routes it on.
type Train struct {
	first  []byte // The caller's first frame.
	layout gsoLayout
	kind   uint8  // GSO type.
	pseudo uint32 // Sum of the pseudo-header without the length.
	limit  int    // The packet is shorter, from the IP header on.
	cars   int    // How many frames it has; 0: it is empty.
	length int    // Payload bytes.
	seq    uint32 // The next frame's.
	push   uint8
	full   bool // Its last segment is as long as the others.
}

const (
	// minTrainSegment is the least payload of a segment in a train, in bytes:
	// what IPv4 has for hosts that tell no MSS (RFC 9293 section 3.7.1). Of
	// smaller ones a train would be many.
	minTrainSegment = 536
	// MaxTrainHead is the most bytes that Head writes: a virtio-net header,
	// Ethernet with two tags, IPv6 and the longest TCP header.
	MaxTrainHead = wire.VNetHdrLen + maxHeaders
)

// GROMax is what packets to a device are to be shorter than, in bytes from the IP
// header on: its gro_ipv4_max_size and gro_max_size (ip-link(8)). Of the latter
// no more counts than what an IPv6 header can tell.
type GROMax struct{ IPv4, IPv6 int }

// Begin starts a train with a frame that passed Check, and returns where the
// frame's payload begins. It returns 0, with the train empty, if nothing can
// follow that frame. The frame is the train's to read until the next Begin.
func (t *Train) Begin(frame []byte, h *wire.VNetHdr, limit GROMax) (payload int) {
	t.cars = 0
	if h.GSOType != wire.VNetGSOTCP4 && h.GSOType != wire.VNetGSOTCP6 || !h.Partial() || h.GSOSize < minTrainSegment {
		return 0
	}
	g, ok := locate(frame, h)
	if !ok || !t.start(frame, &g) {
		return 0
	}
	t.limit = limit.IPv4
	if g.v6 {
		t.limit = min(limit.IPv6, wire.IPv6HdrLen+maxIPLen+1)
	}
	t.first, t.layout, t.kind = frame, g, h.GSOType
	n, flags := len(frame)-g.hdr, (*wire.TCPHeader)(frame[g.l4:]).Flags()
	if n == 0 || n%g.size != 0 || flags&^wire.TCPPsh != wire.TCPAck || !t.sound(frame) {
		return 0
	}
	t.cars, t.length, t.full = 1, n, true
	t.seq, t.push = (*wire.TCPHeader)(frame[g.l4:]).Seq()+uint32(n), flags&wire.TCPPsh
	return g.hdr
}

// start takes from the first frame's IP header what all have in common. It
// returns false if that header has options or extensions, or IPv4 lacks DF.
func (t *Train) start(frame []byte, g *gsoLayout) bool {
	if g.v6 {
		ip := (*wire.IPv6Header)(frame[g.l3:])
		t.pseudo = wire.PseudoSum6(ip.Src(), ip.Dst(), wire.ProtoTCP, 0)
		return g.l4 == g.l3+wire.IPv6HdrLen
	}
	ip := (*wire.IPv4Header)(frame[g.l3:])
	t.pseudo = wire.PseudoSum4(ip.Src(), ip.Dst(), wire.ProtoTCP, 0)
	return g.l4 == g.l3+wire.IPv4MinHdrLen && ip.FlagsFrag() == wire.IPv4DontFragment
}

// Carries tells whether the train is not empty and a frame that passed Check is
// of its connection and direction, and so must not overtake it.
func (t *Train) Carries(frame []byte) bool {
	g := &t.layout
	if t.cars == 0 || len(frame) < g.hdr {
		return false
	}
	from := g.l3 + 12 // Addresses and ports.
	if g.v6 {
		from = g.l3 + 8
	}
	return string(frame[from:g.l4+4]) == string(t.first[from:g.l4+4])
}

// Add joins a frame that passed Check to the train, which Carries it. It
// returns where its payload begins, or 0 if it is not the next one or the packet
// would be too long.
func (t *Train) Add(frame []byte, h *wire.VNetHdr) (payload int) {
	g := &t.layout
	n := len(frame) - g.hdr
	whole := h.GSOType == t.kind && int(h.GSOSize) == g.size
	if !t.full || n <= 0 || !whole && (h.GSO() || n > g.size) || !h.Partial() ||
		int(h.CsumStart) != g.l4 || h.CsumOffset != wire.TCPCsumOff ||
		g.hdr-g.l3+t.length+n >= t.limit || !t.follows(frame) {
		return 0
	}
	t.cars++
	t.length += n
	t.seq += uint32(n)
	t.push |= (*wire.TCPHeader)(frame[g.l4:]).Flags() & wire.TCPPsh
	t.full = n%g.size == 0
	return g.hdr
}

// follows tells whether the headers are the next one's.
func (t *Train) follows(frame []byte) bool {
	const tcpSeq, tcpFlags, tcpSum = 4, tcpFlagsOff + 1, wire.TCPCsumOff
	a, b := t.first, frame
	same := func(from, to int) bool { return string(a[from:to]) == string(b[from:to]) }
	g := &t.layout
	ip, tcp := g.l3, g.l4
	if g.v6 {
		const length = 4
		if !same(ip+length+2, tcp) || !same(0, ip+length) {
			return false
		}
	} else {
		const length, frag, checksum = 2, 6, 10
		if !same(ip+checksum+2, tcp) || !same(ip+frag, ip+checksum) || !same(0, ip+length) {
			return false
		}
	}
	return same(tcp, tcp+tcpSeq) && (*wire.TCPHeader)(b[tcp:]).Seq() == t.seq &&
		same(tcp+tcpSeq+4, tcp+tcpFlags) && (a[tcp+tcpFlags]^b[tcp+tcpFlags])&^wire.TCPPsh == 0 &&
		same(tcp+tcpFlags+1, tcp+tcpSum) && same(tcp+tcpSum+2, g.hdr) && t.sound(b)
}

// sound tells whether the frame says the length that it has, and its sums are
// right.
func (t *Train) sound(frame []byte) bool {
	g := &t.layout
	if (*wire.TCPHeader)(frame[g.l4:]).Checksum() != wire.Fold(t.pseudo+uint32(len(frame)-g.l4)) {
		return false
	}
	if g.v6 {
		return (*wire.IPv6Header)(frame[g.l3:]).PayloadLen() == len(frame)-g.l4
	}
	ip := (*wire.IPv4Header)(frame[g.l3:])
	return ip.TotalLen() == len(frame)-g.l3 && wire.Fold(wire.Sum(ip[:], 0)) == maxUint16
}

// Cars returns how many frames the train has.
func (t *Train) Cars() int { return t.cars }

// Head writes the virtio-net header and the headers of the whole to dst, which
// has MaxTrainHead bytes, and returns how many bytes that is. The payloads, in
// order, make the rest. The train must not be empty.
func (t *Train) Head(dst []byte) int {
	g := &t.layout
	l4Len := g.hdr - g.l4 + t.length
	frame := dst[wire.VNetHdrLen:]
	n := copy(frame, t.first[:g.hdr])
	if g.v6 {
		(*wire.IPv6Header)(frame[g.l3:]).SetPayloadLen(uint16(l4Len))
	} else {
		ip := (*wire.IPv4Header)(frame[g.l3:])
		total := g.l4 - g.l3 + l4Len
		if total > maxIPLen {
			total = 0
		}
		ip.SetTotalLen(uint16(total))
		ip.SetChecksum(0)
		ip.SetChecksum(^wire.Fold(wire.Sum(ip[:], 0)))
	}
	frame[g.l4+tcpFlagsOff+1] |= t.push
	(*wire.TCPHeader)(frame[g.l4:]).SetChecksum(wire.Fold(t.pseudo + uint32(l4Len)))
	h := wire.VNetHdr{
		Flags: wire.VNetNeedsCsum, GSOType: t.kind, GSOSize: uint16(g.size),
		HdrLen: uint16(n), CsumStart: uint16(g.l4), CsumOffset: wire.TCPCsumOff,
	}
	h.Encode(dst)
	return wire.VNetHdrLen + n
}
