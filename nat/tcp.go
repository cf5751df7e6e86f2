// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// What has been seen of a TCP or SCTP connection, conn.state. A bit that has a
// direction stands for outward; shifted by one, for inward. All openings are
// the same this way, simultaneous ones too (RFC 9293 3.5, RFC 5382 REQ-2):
// it is open when both have asked and both were answered, it is closing from
// the first FIN on, and closed when both were acknowledged.
const (
	synOut      = 1 << 0
	synAckedOut = 1 << 2 // The outward SYN was acknowledged.
	finOut      = 1 << 4
	finAckedOut = 1 << 6

	openAll   = synOut | synOut<<1 | synAckedOut | synAckedOut<<1
	closeAny  = finOut | finOut<<1
	closedAll = finAckedOut | finAckedOut<<1
)

// maxAckWindow is how far behind an acknowledgment may be, at least: what
// Linux takes (net/netfilter/nf_conntrack_proto_tcp.c), after van Rooij, "Real
// Stateful TCP Packet Filtering in IP Filter" (2001).
const maxAckWindow = 66000

// timeWait is for how long a SYN after the end has to have a sequence number
// behind those that were used: longer than hosts remember them (Linux: 60 s,
// include/net/tcp.h). Initial numbers go round in 275 s there, so that later
// half of them are before.
const timeWait = uint32(60 * time.Second >> tickShift)

// noScale says that an end's SYN came without a window scale option.
const noScale = 0xf

// segment is what the tracker looks at in a TCP segment.
type segment struct {
	seq, end, ack uint32 // end: behind the last byte, SYN and FIN counted.
	win           uint32 // As it stands.
	flags         uint8
}

func after(a, b uint32) bool { return int32(a-b) > 0 }

// segmentOf reads p's TCP header, which parse has found whole.
func segmentOf(p *packet) (s segment) {
	h, ok := wire.TCPAt(p.data, p.l4)
	if !ok {
		return s
	}
	s = segment{seq: h.Seq(), ack: h.Ack(), win: uint32(h.Window()), flags: h.Flags()}
	s.end = s.seq + uint32(p.end-p.l4-h.HdrLen()) + uint32(s.flags&wire.TCPSyn>>1) + uint32(s.flags&wire.TCPFin)
	return s
}

func shiftOf(p *packet) uint8 {
	if at := wire.TCPOption(p.data, p.l4, wire.TCPOptScale, 1); at != 0 {
		return min(p.data[at], 14) // RFC 7323 2.3.
	}
	return noScale
}

// clampMSS lowers the MSS option of a SYN to what a path of mtu bytes takes,
// and fixes the checksum.
func (p *packet) clampMSS(mtu int) {
	most := mtu - wire.IPv4MinHdrLen - wire.TCPMinHdrLen
	if p.v6 {
		most = mtu - wire.IPv6HdrLen - wire.TCPMinHdrLen
	}
	wire.ClampMSS(p.data, p.l4, most, p.owes.Partial())
}

// beginTCP sets up a connection by its first segment. Only a SYN begins one.
func beginTCP(c *conn, p *packet, dir int) dataplane.Drop {
	s := segmentOf(p)
	if s.flags&(wire.TCPSyn|wire.TCPAck|wire.TCPRst|wire.TCPFin) != wire.TCPSyn {
		return dataplane.NoConnection
	}
	c.state, c.side, c.scale = 0, [2]window{}, 0
	c.syn(p, &s, dir)
	return dataplane.None
}

// syn notes the first SYN of a direction.
func (c *conn) syn(p *packet, s *segment, dir int) {
	w := &c.side[dir]
	w.end, w.maxEnd, w.maxWin = s.end, s.end, max(s.win, 1)
	c.state |= synOut << dir
	c.scale = c.scale&^(0xf<<(4*dir)) | shiftOf(p)<<(4*dir)
	if other := &c.side[1-dir]; c.state&(synOut<<(1-dir)) == 0 {
		// Nothing is known of the other end but what this one lets it send.
		*other = window{maxWin: 1}
	}
}

// shift returns by how much the windows of a direction are scaled: only if
// both ends said that they scale (RFC 7323 2.2).
func (c *conn) shift(dir int) uint8 {
	if c.scale&0xf == noScale || c.scale>>4 == noScale {
		return 0
	}
	return c.scale >> (4 * dir) & 0xf
}

// track checks a segment of a connection and notes what it says. changed tells
// that the state went on, which begins its lifetime anew whatever the
// direction.
func (c *conn) track(p *packet, dir int, now uint32) (changed bool, d dataplane.Drop) {
	s := segmentOf(p)
	self, other := &c.side[dir], &c.side[1-dir]
	seenSelf, seenOther := c.state&(synOut<<dir) != 0, c.state&(synOut<<(1-dir)) != 0

	if s.flags&wire.TCPSyn != 0 {
		if changed, d, done := c.trackSyn(p, &s, dir, now); done {
			return changed, d
		}
	} else if !seenSelf && s.flags&wire.TCPRst == 0 {
		return false, dataplane.TCPWindow // Before its SYN.
	}
	if !seenSelf {
		// A RST that refuses a SYN has no sequence number of its own; what it
		// acknowledges must be the SYN (RFC 9293 3.10.7.3).
		if s.flags&wire.TCPAck == 0 || s.ack != other.end {
			return false, dataplane.TCPWindow
		}
		return c.reset(), dataplane.None
	}

	win := s.win
	if s.flags&wire.TCPSyn == 0 {
		win <<= c.shift(dir)
	}
	if s.flags&wire.TCPAck == 0 {
		s.ack = other.end
	}
	if seenOther {
		behind := max(self.maxWin, maxAckWindow)
		if after(s.seq, self.maxEnd) || after(self.end-other.maxWin, s.end) ||
			after(s.ack, other.end) || after(other.end-behind, s.ack) {
			return false, dataplane.TCPWindow
		}
	} else if s.flags&wire.TCPRst == 0 && s.seq != self.end {
		return false, dataplane.TCPWindow // Only what follows the SYN at once.
	}
	if s.flags&wire.TCPRst != 0 {
		// In the window isn't enough: at a place that the other end can have
		// acknowledged, so that a blind attacker must guess well (RFC 5961 3).
		if after(s.seq, self.maxEnd) || after(self.end-max(other.maxWin, 1), s.seq) {
			return false, dataplane.TCPWindow
		}
		return c.reset(), dataplane.None
	}
	self.maxWin = max(self.maxWin, win)
	if after(s.end, self.end) {
		self.end = s.end
	}
	if seenOther && after(s.ack+max(win, 1), other.maxEnd) {
		other.maxEnd = s.ack + max(win, 1)
	}

	before := c.state
	if s.flags&wire.TCPAck != 0 && seenOther {
		c.state |= synAckedOut << (1 - dir)
		if c.state&(finOut<<(1-dir)) != 0 && s.ack == other.end {
			c.state |= finAckedOut << (1 - dir)
		}
	}
	if s.flags&wire.TCPFin != 0 {
		c.state |= finOut << dir
	}
	return c.state != before, dataplane.None
}

// trackSyn handles a SYN of a connection that is there. done is false for one
// that the window check is to look at: a SYN again.
func (c *conn) trackSyn(p *packet, s *segment, dir int, now uint32) (changed bool, d dataplane.Drop, done bool) {
	other := &c.side[1-dir]
	began := dir == outward == (c.flags&fromOutside == 0)
	ended := c.ended()
	switch {
	case s.flags&wire.TCPAck == 0 && ended && began &&
		(c.flags&isReset != 0 || after(s.seq, c.side[dir].end) || now > c.last && now-c.last > timeWait):
		// The same endpoints again, after the end (RFC 9293 3.6.1, RFC 6191).
		c.state, c.scale, c.side = 0, 0, [2]window{}
		c.flags &^= isReset | isReplied
		c.syn(p, s, dir)
		return true, dataplane.None, true
	case ended:
		return false, dataplane.TCPWindow, true
	case c.state&(synOut<<dir) != 0 && began && s.flags&wire.TCPAck == 0:
		// Again, or by an end that has forgotten the connection: the other end
		// has to see it, whose answer makes this one reset what is left
		// (RFC 9293 3.5.1). It changes nothing that is agreed.
		if c.state&(synOut<<(1-dir)) == 0 {
			c.syn(p, s, dir)
		}
		return false, dataplane.None, true
	case c.state&(synOut<<dir) != 0:
		return false, dataplane.None, false
	case s.flags&wire.TCPAck != 0 && s.ack != other.end:
		return false, dataplane.TCPWindow, true // It answers another SYN.
	}
	c.syn(p, s, dir)
	if s.flags&wire.TCPAck != 0 {
		c.state |= synAckedOut << (1 - dir)
	}
	// From here on both ends' windows are known.
	c.side[dir].maxEnd = s.end + other.maxWin
	other.maxEnd = other.end + max(s.win, 1)
	return true, dataplane.None, true
}

// reset ends the connection; it lingers for Lifetimes.TCPReset.
func (c *conn) reset() (changed bool) {
	changed = c.flags&isReset == 0
	c.flags |= isReset
	return changed
}
