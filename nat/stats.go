package nat

import (
	"net/netip"

	"heddle/dataplane/wire"
)

// Stats is what the connection tracker holds and what happened to it. All but
// the first five only grow.
type Stats struct {
	Conns, MaxConns int
	Hosts           int // Inside addresses with connections.
	Fragmented      int // Packets of which fragments have come.
	Waiting         int // Frames that wait for a MAC.

	Created uint64
	Removed uint64 // For whatever reason.
	Expired uint64 // Of those, the ones that outlived their time.
	Evicted uint64 // Of those, the ones that had ended, or were begun outside and half open, and made room.
	Refused uint64 // For want of room, or by a limit.
	Strays  uint64 // Frames in a loop, or of a link that was removed.
}

// Stats may be called by anybody but a worker at any time.
func (n *NAT) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.table
	s := Stats{
		Conns: t.live, MaxConns: len(t.conns) - 1, Hosts: t.hosts.n,
		Fragmented: n.fragments.n, Waiting: n.waiting.used,
		Created: t.created, Removed: t.removed, Expired: t.expired, Evicted: t.evicted, Refused: t.refused,
	}
	for i := range n.workers {
		s.Strays += n.workers[i].stray.Load()
	}
	return s
}

// Hits returns how many connections a rule began; 0 for one that isn't there.
func (n *NAT) Hits(id RuleID) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if int(id) >= len(n.rules) {
		return 0
	}
	return n.rules[id].hits
}

// Ignored returns how many frames on the uplink were somebody else's, or ARP
// and ND that was dealt with.
func (u *Uplink) Ignored() uint64 { return u.ignored.Load() }

// HopState is what is known of a next hop (RFC 4861 7.3.2).
type HopState uint8

// The states.
const (
	Incomplete HopState = iota // It has not answered yet, or no more.
	Reachable
	Stale // It has not been heard for 30 s; frames go there and it is asked.
)

// String returns the state's name.
func (s HopState) String() string {
	return [...]string{"incomplete", "reachable", "stale", "unknown"}[min(s, Stale+1)]
}

// NextHop is a router that an uplink sends to.
type NextHop struct {
	Addr  netip.Addr
	MAC   wire.MAC // Valid unless Incomplete.
	State HopState
}

// NextHops returns the uplink's next hops as they are at the time now
// (Engine.Now), IPv4's first.
func (u *Uplink) NextHops(now int64) (hops []NextHop) {
	u.nat.mu.Lock()
	defer u.nat.mu.Unlock()
	for _, a := range u.nextHop {
		if a == (addr{}) {
			continue
		}
		h := NextHop{Addr: a.netip()}
		if id := u.neighbours.find(0, a); id != 0 && u.neighbours.list[id].mac != 0 {
			n := &u.neighbours.list[id]
			h.MAC, h.State = n.mac, Reachable
			if tick := tickOf(now); !n.fixed && tick > n.confirmed && tick-n.confirmed > reachable {
				h.State = Stale
			}
		}
		hops = append(hops, h)
	}
	return hops
}

// Config returns the uplink's configuration, without zero fields.
func (u *Uplink) Config() UplinkConfig {
	u.nat.control.Lock()
	defer u.nat.control.Unlock()
	return u.config
}

// Config returns the gateway's configuration.
func (g *Gateway) Config() GatewayConfig { return g.config }
