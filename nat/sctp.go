// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"

	"heddle/dataplane"
)

// Chunk types of SCTP (RFC 9260 3.2) that open or close an association.
const (
	sctpInit             = 1
	sctpInitAck          = 2
	sctpAbort            = 6
	sctpShutdown         = 7
	sctpShutdownAck      = 8
	sctpCookieEcho       = 10
	sctpCookieAck        = 11
	sctpShutdownComplete = 14
)

// chunkOf returns the type of a packet's first chunk; those that open or close
// come first or alone. tag is the packet's verification tag.
func chunkOf(p *packet) (typ uint8, tag uint32, body []byte) {
	b := p.data[p.l4:p.end]
	return b[sctpHdrLen], binary.BigEndian.Uint32(b[4:]), b[sctpHdrLen+sctpChunkHdrLen:]
}

// beginSCTP sets up a connection by its first packet. Only an INIT begins one.
func beginSCTP(c *conn, p *packet, dir int) dataplane.Drop {
	typ, tag, body := chunkOf(p)
	if typ != sctpInit || tag != 0 || len(body) < 4 {
		return dataplane.NoConnection
	}
	c.state = synOut << dir
	c.side = [2]window{}
	// What comes back carries the tag that the INIT asks for (RFC 9260 8.5).
	c.side[1-dir].end = binary.BigEndian.Uint32(body)
	return dataplane.None
}

// trackSCTP is track for SCTP. A packet has to carry the tag that the other
// end asked for, which takes the place of TCP's window. It follows the states
// of RFC 9260 4: an association is open from COOKIE ACK on, closing from
// SHUTDOWN on.
func (c *conn) trackSCTP(p *packet, dir int) (changed bool, d dataplane.Drop) {
	typ, tag, body := chunkOf(p)
	before := c.state
	ended := c.flags&isReset != 0 || c.state&closedAll == closedAll
	if typ == sctpInit {
		if tag != 0 || len(body) < 4 {
			return false, dataplane.TCPWindow
		}
		if ended {
			c.state, c.flags = 0, c.flags&^(isReset|isReplied)
			c.side = [2]window{}
		}
		// An end that has restarted says so by INIT too; the cookie that it gets
		// proves it, so nothing but the tag is noted.
		c.state |= synOut << dir
		c.side[1-dir].end = binary.BigEndian.Uint32(body)
		return c.state != before, dataplane.None
	}
	if want := c.side[dir].end; tag != want {
		// ABORT and SHUTDOWN COMPLETE may carry the sender's own tag with the T
		// bit set (RFC 9260 8.5.1).
		reflected := p.data[p.l4+sctpHdrLen+1]&1 != 0 && tag == c.side[1-dir].end
		if !reflected || typ != sctpAbort && typ != sctpShutdownComplete {
			return false, dataplane.TCPWindow
		}
	}
	switch typ {
	case sctpInitAck:
		if len(body) < 4 {
			return false, dataplane.TCPWindow
		}
		c.state |= synOut << dir
		c.side[1-dir].end = binary.BigEndian.Uint32(body)
	case sctpCookieEcho:
		c.state |= synAckedOut << (1 - dir)
	case sctpCookieAck:
		c.state |= openAll
	case sctpShutdown:
		c.state |= finOut << dir
	case sctpShutdownAck:
		c.state |= finOut<<dir | finAckedOut<<(1-dir)
	case sctpShutdownComplete:
		c.state |= closedAll | closeAny
	case sctpAbort:
		return c.reset(), dataplane.None
	}
	return c.state != before, dataplane.None
}
