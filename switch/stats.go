package vswitch

// Stats is what the FDB holds and what happened to it, of one network or of
// all. All but the first four only grow.
type Stats struct {
	MACs      int // Entries, static and announced ones included.
	Static    int // Static entries.
	Announced int // Announced entries.
	MaxMACs   int // The bound on MACs.

	Learned   uint64 // Entries made, or made anew after they had aged.
	Moves     uint64 // Entries that went from one port to another.
	Held      uint64 // Times that an entry was held down for flapping.
	Aged      uint64 // Entries removed by Expire.
	Evicted   uint64 // Entries removed to make room for new ones.
	Refused   uint64 // MACs not learnt because there was no room.
	Contended uint64 // MACs not learnt because the FDB was being changed.
}

func (s *Stats) add(o Stats) {
	s.Learned += o.Learned
	s.Moves += o.Moves
	s.Held += o.Held
	s.Aged += o.Aged
	s.Evicted += o.Evicted
	s.Refused += o.Refused
	s.Contended += o.Contended
}

// Stats returns the network's. Anybody but a worker may call it at any time.
func (n *Network) Stats() Stats {
	t := &n.sw.fdb
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.stats()
}

// stats is Stats for who holds fdb.mu.
func (n *Network) stats() Stats {
	s := Stats{
		MACs:      n.macs,
		Announced: n.told,
		MaxMACs:   n.maxMACs,
		Learned:   n.learned,
		Moves:     n.moves,
		Held:      n.held,
		Aged:      n.aged,
		Evicted:   n.evicted,
		Refused:   n.refused,
		Contended: n.contended.Load(),
	}
	for _, id := range n.crowd.ids {
		s.Static += n.sw.fdb.ports[id].static.n
	}
	return s
}

// Stats adds up those of all networks, also of those that were removed.
// Anybody but a worker may call it at any time.
func (s *Switch) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fdb.mu.Lock()
	defer s.fdb.mu.Unlock()
	sum := s.retired
	sum.MACs, sum.Announced, sum.MaxMACs = s.fdb.count, s.fdb.told, s.fdb.maxMACs
	for _, n := range s.networks {
		if n != nil {
			o := n.stats()
			sum.Static += o.Static
			sum.add(o)
		}
	}
	return sum
}

// Strays returns how many frames came in by a port that was no longer on the
// network, or went round in a loop of more than maxNesting ports. No port's
// counters have them.
func (s *Switch) Strays() uint64 {
	var sum uint64
	for i := range s.workers {
		sum += s.workers[i].stray.Load()
	}
	return sum
}

// TakeFlaps moves the oldest events of MACs that were held down to buf, and
// returns how many, and how many events were lost so far because 256 waited
// already. A MAC that goes on flapping causes one event in 10 s.
func (s *Switch) TakeFlaps(buf []FlapEvent) (n int, lost uint64) {
	s.fdb.mu.Lock()
	defer s.fdb.mu.Unlock()
	return s.fdb.flaps.take(buf), s.fdb.flaps.lost
}
