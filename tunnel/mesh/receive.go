package mesh

import (
	"bytes"
	"encoding/binary"
	"math"
)

// receive takes a message of the mesh's own from another member. It holds no
// memberlist lock. msg is memberlist's: what is kept of it is copied. What is
// rumoured came by gossip, and is passed on if it is new.
func (m *Mesh) receive(msg []byte, rumoured bool) {
	kind, r, err := open(msg)
	if err != nil {
		m.count.refuseMessage(err)
		return
	}
	switch kind {
	case msgDelta:
		err = m.receiveDelta(r, msg, rumoured)
	case msgHead:
		err = m.receiveHead(r, msg)
	case msgState:
		err = m.receiveState(r, len(msg))
	case msgWant:
		err = m.receiveWant(r, len(msg))
	case msgAsk:
		err = m.receiveAsk(r, len(msg))
	case msgDigest:
		err = m.receiveDigest(r, len(msg))
	case msgBundle:
		err = m.receiveBundle(r)
	case msgBye:
		err = m.receiveBye(r, msg)
	default:
		err = errMalformed
	}
	if err != nil {
		m.count.refuseMessage(err)
	}
}

// receiveDelta applies changes that follow what is known, keeps those that
// come too early, and passes on what is new.
func (m *Mesh) receiveDelta(r reader, msg []byte, rumoured bool) error {
	o := r.origin()
	d := r.delta()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindDelta, len(msg))
	m.mu.Lock()
	in := m.find(o)
	if in == nil || in.origin == m.self {
		m.mu.Unlock()
		return nil // Of an instance that isn't a member, or ours come home.
	}
	rep := in.replica
	last := d.first + uint64(len(d.changes)) - 1
	_, waits := rep.pending[d.first]
	if last <= rep.seq || waits {
		m.mu.Unlock()
		return nil
	}
	if rep.waiting+len(d.changes) <= maxPending {
		rep.waiting += len(d.changes)
		rep.pending[d.first] = d
	}
	m.follow(in)
	if len(rep.pending) > 0 || !rep.synced {
		if in.need.at.IsZero() {
			m.count.gap()
		}
		m.require(in, last, origin{})
	}
	m.mu.Unlock()
	if rumoured && len(msg) <= maxDelta {
		m.gossip(bytes.Clone(msg), "")
	}
	return nil
}

// follow applies the pending changes of an instance that follow what is known.
// mu is held.
func (m *Mesh) follow(in *instance) {
	rep := in.replica
	for progress := true; progress; {
		progress = false
		for first, d := range rep.pending {
			if first > rep.seq+1 {
				continue
			}
			delete(rep.pending, first)
			rep.waiting -= len(d.changes)
			if first+uint64(len(d.changes))-1 > rep.seq {
				endpoints, networks := m.table.apply(rep, d)
				m.count.refused[RefusedEndpoint].Add(uint64(endpoints))
				m.count.refused[RefusedNetwork].Add(uint64(networks))
				rep.synced = true // Numbered from 1, or after a state.
				progress = true
			}
		}
	}
	m.follows(in)
}

// follows notes that an instance's replica has changed. mu is held.
func (m *Mesh) follows(in *instance) {
	if in.replica.synced && in.replica.seq >= in.need.upTo {
		in.need = need{}
	}
	m.renewed(in.origin)
	m.changed[in.name] = struct{}{}
	m.touched()
}

// receiveHead learns how far an instance's numbers go.
func (m *Mesh) receiveHead(r reader, msg []byte) error {
	o, seq := r.origin(), r.uvarint(math.MaxUint64>>1)
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindMessage, len(msg))
	m.mu.Lock()
	in := m.find(o)
	fresh := in != nil && in.origin != m.self && seq > in.replica.seq && seq > in.need.upTo
	if fresh {
		m.require(in, seq, o)
	}
	m.mu.Unlock()
	if fresh {
		m.gossip(bytes.Clone(msg), "head "+o.node())
	}
	return nil
}

// receiveState replaces what is known of an instance.
func (m *Mesh) receiveState(r reader, size int) error {
	o := r.origin()
	seq, networks, entries := r.state()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindState, size)
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.find(o)
	if in == nil || in.origin == m.self || (in.replica.synced && seq <= in.replica.seq) {
		return nil
	}
	refused := m.table.replace(in.replica, seq, networks, entries)
	m.count.refused[RefusedEndpoint].Add(uint64(refused))
	m.follow(in)
	return nil
}

// receiveBundle takes several messages.
func (m *Mesh) receiveBundle(r reader) error {
	for len(r.b) > 0 {
		b := r.take(4)
		if b == nil {
			return errMalformed
		}
		n := binary.BigEndian.Uint32(b)
		if n > math.MaxInt32 {
			return errMalformed
		}
		msg := r.take(int(n))
		if len(msg) >= 2 && msg[1] == msgBundle {
			return errMalformed // One in another would nest without end.
		}
		if r.bad {
			return errMalformed
		}
		m.receive(msg, false)
	}
	return nil
}

// receiveBye marks a member that leaves. memberlist says so as well, but not
// that it is not a failure.
func (m *Mesh) receiveBye(r reader, msg []byte) error {
	o := r.origin()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindMessage, len(msg))
	m.mu.Lock()
	mb := m.members[o.name]
	var fresh bool
	switch {
	case mb == nil || o.name == m.self.name:
	case m.find(o) != nil:
		m.lose(o, Left)
		fresh = true
	case mb.current == nil && mb.state == Failed && mb.gone == o.instance:
		mb.state = Left
		m.changed[o.name] = struct{}{}
		fresh = true
	}
	m.mu.Unlock()
	if fresh {
		m.gossip(bytes.Clone(msg), "bye "+o.node())
	}
	return nil
}
