package nat

import (
	"fmt"
	"net/netip"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// StackConfig is what control code chooses for the way to the host's stack.
type StackConfig struct {
	// Name is what errors call it.
	Name string
	// MAC is that of the interface behind Port.
	MAC wire.MAC
	// Addresses are the host's own: those at which containers reach it and from
	// which it sends to them. At most MaxAddresses.
	Addresses []netip.Addr
	// MTU is the interface's, in bytes of L3, MinMTU to MaxMTU.
	MTU int
	// Port leads to the interface: the caller attaches it to the engine with
	// the Stack as its sink.
	Port dataplane.Port
}

// AddStack lets the host and the containers of masqueraded networks reach each
// other. There is one Stack at most.
func (n *NAT) AddStack(c StackConfig) (*Stack, error) {
	n.control.Lock()
	defer n.control.Unlock()
	s := &Stack{nat: n}
	err := s.set(c.MAC, c.MTU, nil)
	switch {
	case err != nil:
	case c.Port == nil:
		err = fmt.Errorf("no port: %w", ErrInvalid)
	case n.stack != nil:
		err = fmt.Errorf("the way to the host: %w: there is one at most", ErrInUse)
	default:
		s.own, err = ownAddresses(c.Addresses)
	}
	if err != nil {
		return nil, fmt.Errorf("add the way to the host, %s: %w", c.Name, err)
	}
	s.direct, s.announce = true, 0
	s.counters = c.Port.Counters()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.join(&s.link, &path{port: c.Port}) {
		return nil, fmt.Errorf("add the way to the host, %s: %w: there are %d links", c.Name, ErrFull, maxPaths-1)
	}
	n.stack = s
	return s, nil
}

func ownAddresses(all []netip.Addr) (own []addr, err error) {
	if len(all) > MaxAddresses {
		return nil, fmt.Errorf("%d addresses: %w: want at most %d", len(all), ErrInvalid, MaxAddresses)
	}
	for _, a := range all {
		o := addrOf(a)
		if !a.IsValid() || a.Is4In6() || o.isLocal() || o.isMulticast() {
			return nil, fmt.Errorf("address %v: %w: want one that others can send to", a, ErrInvalid)
		}
		own = append(own, o)
	}
	return own, nil
}

// SetAddresses changes which addresses are the host's.
func (s *Stack) SetAddresses(all []netip.Addr) error {
	own, err := ownAddresses(all)
	if err != nil {
		return fmt.Errorf("the host's addresses: %w", err)
	}
	n := s.nat
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	s.own = own
	return nil
}

// Swap puts another Port object in the stack's port's place; see Engine.Swap.
func (s *Stack) Swap(p dataplane.Port) {
	n := s.nat
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	s.counters = p.Counters()
	n.paths[s.path].Store(&path{port: p})
}

// RemoveStack ends the way to the host. A worker may be in it until its batch
// ends: detach its port from the engine first.
func (n *NAT) RemoveStack(s *Stack) error {
	n.control.Lock()
	defer n.control.Unlock()
	if n.stack != s || s == nil {
		return fmt.Errorf("remove the way to the host: %w", ErrUnknown)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stack = nil
	n.shut(&s.link)
	return nil
}
