package daemon

import (
	"slices"
	"sync"

	"heddle/ctl/attach"
)

// place is where an interface is, whatever its name.
type place struct {
	ns    attach.ID
	index int
}

// linkTable tells which ports an event of the host is about, so that one
// interface that comes and goes costs the others nothing. It has as many
// entries as there are links, two of a veth. It may be used from any goroutine.
type linkTable struct {
	changes chan struct{} // A value: some port has changed.

	mu     sync.Mutex
	at     map[place]*link
	places map[*link][]place
	dirty  map[string]bool // Ports whose links changed.
	all    bool            // Events were lost: any may have.
}

func (t *linkTable) init() {
	t.changes = make(chan struct{}, 1)
	t.at = make(map[place]*link)
	t.places = make(map[*link][]place)
	t.dirty = make(map[string]bool)
}

// add has the link's events noted from now on; those of the time since it was
// made count as one.
func (t *linkTable) add(l *link) error {
	places, err := l.locate()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[l] = places
	for _, p := range places {
		t.at[p] = l
	}
	t.mark(l)
	return nil
}

// remove ends what add began.
func (t *linkTable) remove(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.places[l] {
		if t.at[p] == l {
			delete(t.at, p)
		}
	}
	delete(t.places, l)
}

// note takes an event.
func (t *linkTable) note(e attach.LinkEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case attach.Resync:
		t.all = true
		for l := range t.places {
			l.wentDown.Store(true) // Nobody knows.
		}
		t.signal()
	case attach.NamespaceEnded:
		for p, l := range t.at {
			if p.ns == e.NS {
				t.mark(l)
			}
		}
	case attach.LinkChanged, attach.LinkDeleted:
		if l := t.at[place{e.NS, e.Link.Index}]; l != nil {
			if !e.Link.Up && t.places[l][0].index == e.Link.Index {
				l.wentDown.Store(true)
			}
			t.mark(l)
		}
	}
}

// mark notes that a link has changed. The caller holds mu.
func (t *linkTable) mark(l *link) {
	t.dirty[l.name] = true
	t.signal()
}

func (t *linkTable) signal() {
	select {
	case t.changes <- struct{}{}:
	default: // One value waits already, and stands for all.
	}
}

// changed returns the ports that were marked since it was last called.
func (t *linkTable) changed() (ports []string, all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.dirty {
		ports = append(ports, name)
	}
	slices.Sort(ports)
	all = t.all
	clear(t.dirty)
	t.all = false
	return ports, all
}

// locate looks up where the link's interfaces are, the container's first.
func (l *link) locate() ([]place, error) {
	info, err := l.ns.Link(l.f.ifName)
	if err != nil {
		return nil, err
	}
	l.index = info.Index
	places := []place{{l.ns.ID(), info.Index}}
	if l.outer != "" {
		if info, err = l.m.own.Link(l.outer); err != nil {
			return nil, err
		}
		places = append(places, place{l.m.own.ID(), info.Index})
	}
	return places, nil
}
