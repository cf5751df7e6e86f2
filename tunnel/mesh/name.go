package mesh

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// How long is waited before names are judged.
const (
	nameDelay = time.Second      // For the join to end by which a namesake was met.
	newcomer  = 5 * time.Second  // Who joined this recently yields.
	contest   = 10 * time.Second // Else the newcomer has this long to yield, before the lower instance wins.
	namePings = 4                // Probes that a namesake must leave unanswered to be dead.
)

// nameState is what is known of other instances with this host's name: earlier
// runs of this daemon, or another host that was given the same name.
type nameState struct {
	updating sync.Mutex // Serialises memberlist's UpdateNode.
	judging  sync.Mutex // Serialises settle.

	// Guarded by Mesh.mu.
	rivals    bool                 // There may be some that were not judged.
	met       time.Time            // When the last one was met.
	dialled   bool                 // A join of this host's has succeeded.
	company   time.Time            // When the first other instance was met.
	contested map[uint32]time.Time // Live namesakes, and when they were found to be.
	taken     error                // Why this host has left, until the handler is told.
}

// names judges namesakes as they appear.
func (m *Mesh) names() {
	defer m.workers.Done()
	tick := time.NewTicker(nameDelay)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		due := m.name.rivals && !m.closed && time.Since(m.name.met) >= nameDelay
		m.mu.Unlock()
		if !due {
			continue
		}
		if err := m.settle(); err != nil {
			m.mu.Lock()
			m.name.taken = err
			m.mu.Unlock()
			wake(m.tidings)
		}
	}
}

// settle judges all other instances of this host's name. One at this host's
// address is an earlier run, and so is one that answers no probe: they are
// replaced, which the others are told. If one lives, one of the two leaves: who
// came last, or, if that can't be said, the higher instance. If it is this
// one, the error says so, and the mesh is left.
func (m *Mesh) settle() error {
	m.name.judging.Lock()
	defer m.name.judging.Unlock()
	for {
		r, again := m.rival()
		if r == nil {
			return nil
		}
		switch {
		case slices.Contains(r.replaces, m.self.instance):
			return m.yield(r)
		case r.address != m.address && m.answers(r):
			if !again && !m.isNewcomer() {
				continue
			}
			if again && m.self.instance < r.instance {
				m.note(slog.LevelWarn, "mesh: a live host at %s has the name %s too, and should leave", r.address, m.self.name)
				m.mu.Lock()
				m.name.contested[r.instance] = time.Now().Add(-2 * contest)
				m.mu.Unlock()
				continue
			}
			return m.yield(r)
		}
		m.mu.Lock()
		m.meta.replaces = append(m.meta.replaces, r.instance)
		if n := len(m.meta.replaces); n > maxReplaces {
			m.meta.replaces = m.meta.replaces[n-maxReplaces:]
		}
		m.mu.Unlock()
		m.update()
	}
}

// rival returns a copy of an instance of this host's name that is to be judged,
// and whether it is one that was found to live and was given time to leave.
func (m *Mesh) rival() (r *instance, again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.name.rivals = false
	for id, in := range m.members[m.self.name].instances {
		if slices.Contains(m.meta.replaces, id) {
			continue
		}
		found, contested := m.name.contested[id]
		if contested && time.Since(found) < contest && !slices.Contains(in.replaces, m.self.instance) {
			m.name.rivals = true // Later.
			continue
		}
		if !contested {
			m.name.contested[id] = time.Now()
			m.name.rivals = true
		}
		if contested && time.Since(found) >= 2*contest {
			continue // It was judged again, and is no case for this host.
		}
		c := *in
		return &c, contested
	}
	return nil, false
}

// isNewcomer tells whether this host has joined the others just now, and not
// they it.
func (m *Mesh) isNewcomer() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.name.dialled && time.Since(m.name.company) < newcomer
}

// answers probes an instance.
func (m *Mesh) answers(r *instance) bool {
	addr := net.UDPAddrFromAddrPort(r.address)
	for range namePings {
		if _, err := m.list.Ping(r.node(), addr); err == nil {
			return true
		}
		if m.ctx.Err() != nil {
			return true
		}
	}
	return false
}

// yield leaves the mesh to a namesake and returns the error that says so.
func (m *Mesh) yield(r *instance) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	_ = m.list.Leave(time.Second) // If the others don't hear it, they will miss this host.
	_ = m.list.Shutdown()         // Closing is all that is left to do.
	return fmt.Errorf("%w: a live host at %s is called %s already: give one of them another name, with --node",
		ErrNameTaken, r.address, m.self.name)
}
