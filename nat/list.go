package nat

import (
	"iter"
	"net/netip"
	"time"

	"heddle/dataplane/wire"
)

// Endpoints are where a direction of a connection comes from and goes to. An
// ICMP query has its identifier as the ports of who asked.
type Endpoints struct{ Src, Dst netip.AddrPort }

// Conn is a connection for people.
type Conn struct {
	Proto    uint8     // wire.ProtoTCP, ProtoUDP, ProtoSCTP, ProtoICMP, ProtoICMPv6.
	Original Endpoints // As the packets of who began it are before translation.
	Reply    Endpoints // As the packets that answer are before translation.
	Gateway  *Gateway  // That of the inside end's network.
	Uplink   *Uplink
	Rule     RuleID
	State    string
	Timeout  time.Duration // What is left of its life.
	Packets  uint64        // Both directions.
	Bytes    uint64        // Of their frames.
}

// Filter tells connections; zero fields match all.
type Filter struct {
	Gateway *Gateway
	Uplink  *Uplink
	Proto   uint8
	Rule    RuleID
	// Src and Dst match the addresses of who began it and of whom it is with:
	// Original.Src, and Original.Dst or what it is translated to.
	Src, Dst netip.Addr
}

// inside returns the endpoints on each side of the connection.
func (c *conn) inside() netip.AddrPort  { return netip.AddrPortFrom(c.in.netip(), c.inPort) }
func (c *conn) outside() netip.AddrPort { return netip.AddrPortFrom(c.out.netip(), c.outPort) }

// match tells whether a connection is one of the filter's. Who calls holds mu.
func (n *NAT) match(f *Filter, c *conn) bool {
	t := &n.table
	from, to := c.in, c.out
	if c.flags&fromOutside != 0 {
		from, to = c.out, c.in
	}
	switch {
	case c.flags&isLive == 0,
		f.Gateway != nil && t.hosts.list[c.host].net != f.Gateway.path,
		f.Uplink != nil && t.uplinkOf(c) != f.Uplink.path,
		f.Proto != 0 && protoOf(c) != f.Proto,
		f.Rule != 0 && c.rule != uint16(f.Rule),
		f.Src.IsValid() && addrOf(f.Src) != from:
		return false
	case f.Dst.IsValid() && addrOf(f.Dst) != to:
		return c.flags&fromOutside != 0 && addrOf(f.Dst) == t.exts[c.ext].addr
	}
	return true
}

func protoOf(c *conn) uint8 {
	switch c.class {
	case tcp:
		return wire.ProtoTCP
	case udp:
		return wire.ProtoUDP
	case sctp:
		return wire.ProtoSCTP
	}
	if c.in.is4() {
		return wire.ProtoICMP
	}
	return wire.ProtoICMPv6
}

// Conns returns the connections that are alive at the time now (Engine.Now)
// and that the filter matches, in no order. Those that are there all the while
// come exactly once. Workers go on: the table is read in bounded pieces, and
// the loop's body runs between them.
func (n *NAT) Conns(f Filter, now int64) iter.Seq[Conn] {
	return func(yield func(Conn) bool) {
		var buf [chunk]Conn
		tick := tickOf(now)
		for from := uint32(1); ; {
			k := 0
			n.mu.Lock()
			t := &n.table
			end := min(from+chunk, t.fresh)
			for ; from < end; from++ {
				if c := &t.conns[from]; n.match(&f, c) && !t.dead(c, tick) {
					buf[k] = n.show(c, tick)
					k++
				}
			}
			more := from < t.fresh
			n.mu.Unlock()
			for i := range buf[:k] {
				if !yield(buf[i]) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// show makes a connection one for people. Who calls holds mu.
func (n *NAT) show(c *conn, tick uint32) Conn {
	t := &n.table
	external := netip.AddrPortFrom(t.exts[c.ext].addr.netip(), c.extPort)
	k := Conn{
		Proto:   protoOf(c),
		Gateway: n.gateways[t.hosts.list[c.host].net],
		Uplink:  n.uplinks[t.uplinkOf(c)],
		Rule:    RuleID(c.rule),
		State:   c.stateName(),
		Packets: uint64(c.packetsHi)<<32 | uint64(c.packets),
		Bytes:   c.bytes,
	}
	if left := int64(c.last) + int64(t.lives.life(c)) - int64(tick); left > 0 {
		k.Timeout = time.Duration(left << tickShift)
	}
	if c.flags&fromOutside == 0 {
		k.Original = Endpoints{c.inside(), c.outside()}
		k.Reply = Endpoints{c.outside(), external}
	} else {
		k.Original = Endpoints{c.outside(), external}
		k.Reply = Endpoints{c.inside(), c.outside()}
	}
	return k
}

// stateName names what has been seen of a connection as other trackers do.
func (c *conn) stateName() string {
	if c.class == udp || c.class == icmp {
		if c.flags&isReplied != 0 {
			return "replied"
		}
		return "unreplied"
	}
	switch s := c.state; {
	case c.flags&isReset != 0:
		return "reset"
	case s&closedAll == closedAll:
		return "closed"
	case s&closeAny != 0:
		return "closing"
	case s&openAll == openAll:
		return "established"
	case s&(synOut|synOut<<1) == synOut|synOut<<1:
		return "answered"
	}
	return "opening"
}

// Count returns how many connections the filter matches; without one, see
// Stats.
func (n *NAT) Count(f Filter, now int64) int {
	k := 0
	for range n.Conns(f, now) {
		k++
	}
	return k
}

// Flush ends the connections that the filter matches and returns how many.
// Those that begin meanwhile may stay.
func (n *NAT) Flush(f Filter) int {
	n.control.Lock()
	defer n.control.Unlock()
	return n.end(func(c *conn) bool { return n.match(&f, c) })
}

// FlushFunc is Flush for those of the filter's that which chooses, as they are
// at the time now (Engine.Now). NAT.mu is held around which: it calls nobody.
func (n *NAT) FlushFunc(f Filter, now int64, which func(Conn) bool) int {
	n.control.Lock()
	defer n.control.Unlock()
	tick := tickOf(now)
	return n.end(func(c *conn) bool { return n.match(&f, c) && which(n.show(c, tick)) })
}

// RemoveHost ends the connections of an address inside and forgets its MAC:
// its port was removed.
func (n *NAT) RemoveHost(g *Gateway, a netip.Addr) int {
	n.control.Lock()
	defer n.control.Unlock()
	in := addrOf(a)
	ended := n.end(func(c *conn) bool { return c.in == in && n.table.hosts.list[c.host].net == g.path })
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := &g.neighbours
	if id := ns.find(0, in); id != 0 {
		for q := &ns.list[id].waiting; q.n > 0; {
			n.waiting.take(q, nil)
		}
		for f := range ns.hop {
			if ns.hop[f] == id {
				ns.hop[f] = 0
			}
		}
		ns.remove(id)
		n.generation++
	}
	return ended
}
