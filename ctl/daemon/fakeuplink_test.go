package daemon

import (
	"fmt"
	"net/netip"

	"heddle/ctl/attach"
	"heddle/ctl/proxy"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// fakeUplink is an uplink's device in memory.
type fakeUplink struct {
	h    *fakeHost
	o    uplinkOrder
	mem  *mem.Port
	down error
}

func (u *fakeUplink) port() dataplane.Port { return u.mem }

func (u *fakeUplink) check() error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	return u.down
}

func (u *fakeUplink) claim(c attach.Claim) error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	u.o.claim = c
	return nil
}

func (u *fakeUplink) spares(c attach.Claim) error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	for port := range u.h.held {
		if port >= c.Ports.First && port <= c.Ports.Last {
			return fmt.Errorf("port %d: %w", port, attach.ErrPortInUse)
		}
	}
	return nil
}

func (u *fakeUplink) release() error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	u.h.opened--
	delete(u.h.uplinks, u.o.ifName)
	return u.mem.Close()
}

// fakeWatch tells the states that a test sets.
type fakeWatch struct {
	h      *fakeHost
	name   string
	states chan attach.UplinkState
}

func (w *fakeWatch) States() <-chan attach.UplinkState { return w.states }

func (w *fakeWatch) Close() error {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	delete(w.h.watches, w.name)
	close(w.states)
	return nil
}

func (h *fakeHost) watchUplink(name string) (uplinkWatch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &fakeWatch{h: h, name: name, states: make(chan attach.UplinkState, 10)}
	w.states <- h.nics[name]
	h.watches[name] = w
	return w, nil
}

func (h *fakeHost) openUplink(o uplinkOrder) (uplinkDevice, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	if !h.nics[o.ifName].Present {
		return nil, fmt.Errorf("interface %s: %w", o.ifName, attach.ErrNoLink)
	}
	h.opened++
	u := &fakeUplink{h: h, o: o, mem: mem.New(mem.Config{Workers: o.workers})}
	h.uplinks[o.ifName] = u
	return u, nil
}

// fakeStack is the way to the host's stack in memory.
type fakeStack struct {
	h   *fakeHost
	mem *mem.Port
	set attach.Stack
}

func (s *fakeStack) name() string         { return "heddle0" }
func (s *fakeStack) mac() wire.MAC        { return 0x02000000dd01 }
func (s *fakeStack) port() dataplane.Port { return s.mem }
func (s *fakeStack) check() error         { return nil }

func (s *fakeStack) configure(c attach.Stack) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.set = c
	return nil
}

func (s *fakeStack) release() error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.opened--
	s.h.stack = nil
	return s.mem.Close()
}

func (h *fakeHost) openStack(workers int) (stackDevice, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	h.opened++
	h.stack = &fakeStack{h: h, mem: mem.New(mem.Config{Workers: workers})}
	return h.stack, nil
}

// setNIC makes an interface what s says.
func (h *fakeHost) setNIC(name string, s attach.UplinkState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nics[name] = s
	if w := h.watches[name]; w != nil {
		w.states <- s
	}
}

// fakeLocal is ports that a host in memory holds.
type fakeLocal struct {
	h *fakeHost
	p proxy.Publication
}

func (l *fakeLocal) SetTarget(*proxy.Target) {}
func (l *fakeLocal) SetHome([]netip.Addr)    {}
func (l *fakeLocal) Stats() proxy.Stats      { return proxy.Stats{} }
func (l *fakeLocal) Flush()                  {}

func (l *fakeLocal) Close() error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.opened--
	delete(l.h.held, l.p.Ports.First)
	return nil
}

func (h *fakeHost) publish(p proxy.Publication) (localPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[p.Ports.First] {
		return nil, fmt.Errorf("port %d: %w", p.Ports.First, attach.ErrPortInUse)
	}
	h.held[p.Ports.First] = true
	h.opened++
	return &fakeLocal{h, p}, nil
}
