// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"time"

	"heddle/dataplane/wire"
)

// class is a protocol that can be translated.
type class uint8

const (
	tcp class = iota
	udp
	icmp // ICMP and ICMPv6 queries; the ports are the identifier.
	sctp
	classes

	// unported is a protocol that has no ports.
	unported class = 0xff
)

// conn is a connection: an inside endpoint, the external one that stands for
// it, and the outside one that it talks to.
//
//	inside ──(in, inPort)──▶ NAT ──(ext, extPort)──▶ (out, outPort) outside
//
// It is found by (network, class, in, out) on its way out and by (class, ext,
// out) on its way in. An ICMP query has its identifier as inPort and extPort,
// and outPort 0. Connections of one endpoint-independent mapping form a ring;
// one of them, the head, stands for the mapping in the index.
//
// The first 64 bytes, a cache line, are all that a packet of UDP needs.
type conn struct {
	in, out                  addr
	inPort, outPort, extPort uint16
	class                    class
	flags                    connFlags
	ext                      uint16     // Into NAT.exts.
	host                     uint16     // Into table.hosts; gives the network.
	rule                     uint16     // Into NAT.rules.
	delta                    wire.Delta // Of the address that changes from in to ext.
	last                     uint32     // Tick of the last packet that refreshes.
	next                     uint32     // In the wheel's bucket or the free list.
	left, right              uint32     // The ring; valid only with isMapped.

	// TCP: by direction, outward first. SCTP: end is the verification tag that
	// packets of that direction carry.
	side      [2]window
	bytes     uint64
	packets   uint32 // The lower half.
	packetsHi uint16
	state     uint8 // TCP, SCTP: see tcp.go, sctp.go.
	scale     uint8 // TCP window shifts: outward in the lower nibble.
}

// connSize is unsafe.Sizeof(conn{}), which a test holds it to.
const connSize = 104

// window is what one end of a TCP connection may still send; see tcp.go.
type window struct{ end, maxEnd, maxWin uint32 }

type connFlags uint8

const (
	isLive      connFlags = 1 << iota // In the index.
	isMapped                          // Part of an endpoint-independent mapping.
	isHead                            // In the index for its mapping.
	isOpen                            // The mapping's filter is endpoint-independent.
	isReplied                         // Both ends have sent.
	isReset                           // Ended by RST or ABORT; lingers.
	fromOutside                       // The outside end began.
	ownsPort                          // Its external port was allocated.
)

// direction of a packet, an index into conn.side.
const (
	outward = 0
	inward  = 1
)

// tickShift makes ticks of nanoseconds: 134 ms.
const tickShift = 27

func tickOf(now int64) uint32 { return uint32(now >> tickShift) }

// ticks rounds up, so that nothing ends early.
func ticks(d time.Duration) uint32 {
	return uint32((d + 1<<tickShift - 1) >> tickShift)
}

// lives is Lifetimes in ticks.
type lives struct {
	tcpEstablished, tcpTransitory, tcpReset uint32
	udp, udpOneWay, icmp                    uint32
}

// life returns for how many ticks the connection lives after c.last.
func (l *lives) life(c *conn) uint32 {
	switch c.class {
	case udp:
		if c.flags&isReplied != 0 {
			return l.udp
		}
		return l.udpOneWay
	case icmp:
		return l.icmp
	}
	switch {
	case c.flags&isReset != 0:
		return l.tcpReset
	case c.established():
		return l.tcpEstablished
	}
	return l.tcpTransitory
}

// established tells whether both ends of a TCP or SCTP connection have agreed
// to talk and none has begun to close.
func (c *conn) established() bool {
	return c.state&(openAll|closeAny) == openAll && c.flags&isReset == 0
}

func (c *conn) count(bytes int) {
	c.bytes += uint64(bytes)
	c.packets++
	if c.packets == 0 {
		c.packetsHi++
	}
}
