package mesh

// table is the endpoints of all live members: who announces each, and who owns
// it. It holds the replicas' entries; nothing else changes them.
//
// It is bounded: the local replica by MaxEndpoints, each other one likewise and
// all of them together by MaxTable. What goes beyond is refused: set says so.
//
// An endpoint takes a slot, and a record in each replica that announces it,
// which is one but for the moment of a move. So owners are found by one lookup,
// and only a slot that loses its owner while others announce it still is worth
// a walk through all replicas.
//
// TestTableAgainstModel holds it against the rule itself, applied to all
// entries.
type table struct {
	local    *local
	replicas map[*replica]struct{} // All that set was called with, local included.
	slots    map[key]*slot
	remote   int      // Entries of replicas other than local.
	dirty    []key    // Slots that may differ from what was told.
	orphans  []orphan // Taken by Mesh after each change; at most one for each wanted endpoint and change.
	moves    uint64   // Slots that went from one owner to another.
}

// slot is where one endpoint is.
type slot struct {
	best  *replica // Its owner; nil if nobody announces it.
	many  int32    // How many announce it.
	dirty bool     // It is in table.dirty.

	toldOwner string // What was told last; "" for nobody.
	told      record
}

// orphan is an endpoint that the daemon here wants announced and that has
// vanished where it was.
type orphan struct {
	key      key
	mobility uint32 // Where it was.
}

func newTable(o origin) *table {
	l := &local{replica: newReplica(o), wanted: map[key]addrs{}}
	l.synced = true
	return &table{local: l, replicas: map[*replica]struct{}{l.replica: {}}, slots: map[key]*slot{}}
}

// beats tells whether an entry of a's is preferred to one of b's: the higher
// mobility sequence number, then the name that sorts first, in the place of
// EVPN's lowest address (RFC 7432 section 15.1).
func beats(a *replica, ra record, b *replica, rb record) bool {
	if ra.mobility != rb.mobility {
		return ra.mobility > rb.mobility
	}
	return a.name < b.name
}

// owner returns who owns an endpoint, or nil, and its record.
func (t *table) owner(k key) (*replica, record) {
	if s := t.slots[k]; s != nil && s.best != nil {
		return s.best, s.best.entries[k]
	}
	return nil, record{}
}

// set gives a replica an entry. It tells false if it is one too many. If the
// endpoint is thereby somewhere else than here, the local entry is withdrawn.
func (t *table) set(r *replica, k key, rec record) bool {
	old, had := r.entries[k]
	if had && old == rec {
		return true
	}
	if !had {
		remote := r != t.local.replica
		if len(r.entries) >= MaxEndpoints || (remote && t.remote >= MaxTable) {
			return false
		}
		if remote {
			t.remote++
		}
		t.replicas[r] = struct{}{}
	}
	r.entries[k] = rec
	s := t.slots[k]
	if s == nil {
		s = &slot{}
		t.slots[k] = s
	}
	if !had {
		s.many++
	}
	switch {
	case s.best == nil:
		s.best = r
	case s.best == r:
		if old.mobility > rec.mobility {
			t.elect(s, k)
		}
	case beats(r, rec, s.best, s.best.entries[k]):
		s.best = r
		t.moves++
	}
	t.mark(s, k)
	if _, mine := t.local.entries[k]; mine && s.best != t.local.replica {
		t.unset(t.local.replica, k)
		t.local.note(change{op: changeGone, key: k})
	}
	return true
}

// unset takes an entry from a replica. If nobody announces the endpoint any
// more and the daemon here wants it, it is an orphan.
func (t *table) unset(r *replica, k key) {
	rec, had := r.entries[k]
	if !had {
		return
	}
	delete(r.entries, k)
	if r != t.local.replica {
		t.remote--
	}
	s := t.slots[k]
	s.many--
	if s.best == r {
		t.elect(s, k)
	}
	t.mark(s, k)
	if _, wanted := t.local.wanted[k]; wanted && s.best == nil {
		t.orphans = append(t.orphans, orphan{k, rec.mobility})
	}
}

// elect finds the owner of a slot among all replicas.
func (t *table) elect(s *slot, k key) {
	was := s.best
	s.best = nil
	if s.many > 0 {
		for r := range t.replicas {
			if rec, ok := r.entries[k]; ok && (s.best == nil || beats(r, rec, s.best, s.best.entries[k])) {
				s.best = r
			}
		}
	}
	if s.best != nil && s.best != was {
		t.moves++
	}
}

// announce gives the local replica an entry and numbers the change. It does
// nothing if another member's entry is preferred.
func (t *table) announce(k key, rec record) {
	if r, cur := t.owner(k); r != nil && r != t.local.replica && !beats(t.local.replica, rec, r, cur) {
		return
	}
	if t.set(t.local.replica, k, rec) {
		t.local.note(change{op: changeSet, key: k, record: rec})
	}
}

// adopt announces an orphan from here, if it still is one.
func (t *table) adopt(o orphan) {
	ips, wanted := t.local.wanted[o.key]
	if r, _ := t.owner(o.key); wanted && r == nil {
		t.announce(o.key, record{ips, next(o.mobility)})
	}
}

// next is the mobility sequence number of a move. It stays at the end of its
// 32 bits.
func next(mobility uint32) uint32 {
	if mobility+1 == 0 {
		return mobility
	}
	return mobility + 1
}

// drop takes all entries from a replica other than local, and forgets it.
func (t *table) drop(r *replica) {
	for k := range r.entries {
		t.unset(r, k)
	}
	delete(t.replicas, r)
}

func (t *table) mark(s *slot, k key) {
	if !s.dirty {
		s.dirty = true
		t.dirty = append(t.dirty, k)
	}
}

// apply makes a remote replica follow changes, numbered from first on. It
// returns how many endpoints and networks were too many.
func (t *table) apply(r *replica, d delta) (endpoints, networks int) {
	for i, c := range d.changes {
		if d.first+uint64(i) <= r.seq {
			continue // Known from a state that came meanwhile.
		}
		r.seq++
		switch c.op {
		case changeSet:
			if !t.set(r, c.key, c.record) {
				endpoints++
			}
		case changeGone:
			t.unset(r, c.key)
		case changeNetwork:
			if _, had := r.networks[c.key.vni]; !had && len(r.networks) >= MaxNetworks {
				networks++
				continue
			}
			r.networks[c.key.vni] = c.network
		case changeNetworkOut:
			delete(r.networks, c.key.vni)
		}
	}
	return endpoints, networks
}

// replace makes a remote replica what a state says.
func (t *table) replace(r *replica, seq uint64, networks map[uint32]string, entries map[key]record) (refused int) {
	r.seq, r.synced, r.networks = seq, true, networks
	for k := range r.entries {
		if _, ok := entries[k]; !ok {
			t.unset(r, k)
		}
	}
	for k, rec := range entries {
		if !t.set(r, k, rec) {
			refused++
		}
	}
	return refused
}

// told is a difference between what was told of an endpoint and what is.
type told struct {
	key      key
	from, to string // Owners; "" for nobody.
	old, now record
}

// tell takes up to limit dirty slots and returns those that differ from what
// was told, which is thereby told.
func (t *table) tell(limit int) []told {
	n := min(limit, len(t.dirty))
	var list []told
	for _, k := range t.dirty[:n] {
		s := t.slots[k]
		s.dirty = false
		d := told{key: k, from: s.toldOwner, old: s.told}
		if s.best != nil {
			d.to, d.now = s.best.name, s.best.entries[k]
		}
		s.toldOwner, s.told = d.to, d.now
		if s.many == 0 {
			delete(t.slots, k)
		}
		if d.from != d.to || d.old.ips != d.now.ips {
			list = append(list, d)
		}
	}
	if t.dirty = t.dirty[n:]; len(t.dirty) == 0 {
		t.dirty = nil
	}
	return list
}
