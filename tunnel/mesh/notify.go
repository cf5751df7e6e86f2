package mesh

import "slices"

// notifyBatch is how many endpoints are told between two looks at the members.
const notifyBatch = 1024

// notify tells the handler what differs from what it was told last, until the
// mesh closes. That is what bounds it: however slow the handler is, no more
// waits for it than there are members and endpoints.
func (m *Mesh) notify() {
	defer m.workers.Done()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.tidings:
		}
		for m.ctx.Err() == nil && m.tellSome() {
		}
	}
}

// tellSome tells some and returns whether there may be more. The order keeps
// what Handler promises: who is up, then endpoints, and when none is left, who
// is down.
func (m *Mesh) tellSome() bool {
	var up, changed, down []Member
	m.mu.Lock()
	for name := range m.changed {
		mb := m.members[name]
		if mb == nil || name == m.self.name {
			delete(m.changed, name)
			continue
		}
		if mb.current == nil {
			continue
		}
		delete(m.changed, name)
		v := m.view(mb)
		switch {
		case mb.told == nil:
			up = append(up, v)
		case mb.told.Address != v.Address || mb.told.VTEP != v.VTEP || !slices.Equal(mb.told.Networks, v.Networks):
			changed = append(changed, v)
		}
		mb.told = &v
	}
	endpoints := m.table.tell(notifyBatch)
	if len(m.table.dirty) == 0 {
		for name := range m.changed {
			delete(m.changed, name)
			if mb := m.members[name]; mb.told != nil {
				mb.told = nil
				down = append(down, m.view(mb))
			}
		}
	}
	more := len(m.table.dirty) > 0
	taken := m.name.taken
	m.name.taken = nil
	m.mu.Unlock()

	h := m.cfg.Handler
	if h == nil {
		return more
	}
	for _, v := range up {
		h.MemberUp(v)
	}
	for _, v := range changed {
		h.MemberChanged(v)
	}
	for _, d := range endpoints {
		m.tellEndpoint(h, d)
	}
	for _, v := range down {
		h.MemberDown(v)
	}
	if taken != nil {
		h.NameTaken(taken)
	}
	return more
}

// tellEndpoint tells the handler of one endpoint, unless it is only this
// host's.
func (m *Mesh) tellEndpoint(h Handler, d told) {
	me := m.self.name
	elsewhere := func(owner string) bool { return owner != "" && owner != me }
	switch {
	case d.from != "" && d.to != "" && (elsewhere(d.from) || elsewhere(d.to)):
		h.EndpointChanged(endpoint(d.key, d.old, d.from), endpoint(d.key, d.now, d.to))
	case elsewhere(d.to):
		h.EndpointAdded(endpoint(d.key, d.now, d.to))
	case elsewhere(d.from):
		h.EndpointRemoved(endpoint(d.key, d.old, d.from))
	}
}
