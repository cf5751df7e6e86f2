package nat

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
	Refused uint64 // For want of room, or by a limit.
	Strays  uint64 // Frames in a loop.
}

// Stats may be called by anybody but a worker at any time.
func (n *NAT) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.table
	s := Stats{
		Conns: t.live, MaxConns: len(t.conns) - 1, Hosts: t.hosts.n,
		Fragmented: n.fragments.n, Waiting: n.waiting.used,
		Created: t.created, Removed: t.removed, Expired: t.expired, Refused: t.refused,
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
