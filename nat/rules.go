package nat

import (
	"fmt"
	"net/netip"
	"slices"

	"heddle/dataplane/wire"
)

// PortRange is ports First to Last, both included.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func (r PortRange) contains(o PortRange) bool { return r.First <= o.First && o.Last <= r.Last }
func (r PortRange) overlaps(o PortRange) bool { return r.First <= o.Last && o.First <= r.Last }

// RuleID is a rule's number, 1 to MaxRules. Numbers of rules that are gone are
// given again.
type RuleID uint16

// rule is a masquerade or a publication.
type rule struct {
	name    string
	uplink  *Uplink // nil: the number is free.
	gateway *Gateway
	hits    uint64 // Connections that it began.

	publish     bool
	class       class
	listen      addr // The zero addr: any of the uplink's.
	first, last uint16
	to          addr
	toPort      uint16
}

// MasqueradeConfig says how a network's containers reach an uplink. The zero
// values of the last three are the defaults: mapping endpoint-independent,
// filtering address-and-port-dependent, IPv6 translated.
type MasqueradeConfig struct {
	Name    string // What errors call it.
	Gateway *Gateway
	Uplink  *Uplink
	// DependentMapping makes mappings address-and-port-dependent: two inside
	// endpoints may share an external port towards different destinations.
	DependentMapping bool
	// OpenFiltering lets anybody outside reach a mapped endpoint. It needs
	// endpoint-independent mapping.
	OpenFiltering bool
	// RouteIPv6 lets IPv6 pass as it is, both ways, without connections.
	RouteIPv6 bool
}

// AddMasquerade lets a network's containers reach an uplink. A network has one
// at most.
func (n *NAT) AddMasquerade(c MasqueradeConfig) (RuleID, error) {
	n.control.Lock()
	defer n.control.Unlock()
	err := n.known(c.Gateway, c.Uplink)
	switch {
	case err != nil:
	case c.Gateway.masquerade.uplink != nil:
		err = fmt.Errorf("network of gateway %s: %w by rule %s", c.Gateway.config.Name, ErrInUse, n.rules[c.Gateway.masquerade.rule].name)
	case c.OpenFiltering && c.DependentMapping:
		err = fmt.Errorf("endpoint-independent filtering with dependent mapping: %w: a port that is shared has no one behind it", ErrInvalid)
	}
	var id RuleID
	if err == nil {
		id, err = n.addRule(rule{name: c.Name, uplink: c.Uplink, gateway: c.Gateway})
	}
	if err != nil {
		return 0, fmt.Errorf("add masquerade %s: %w", c.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	c.Gateway.masquerade = masquerade{
		uplink: c.Uplink, rule: uint16(id), shared: c.DependentMapping, open: c.OpenFiltering, plain6: c.RouteIPv6,
	}
	n.countShared(c.Uplink)
	return id, nil
}

// countShared gives an uplink's pools what dependent mappings count ports in,
// if there are any. The caller holds mu.
func (n *NAT) countShared(u *Uplink) {
	if !slices.ContainsFunc(n.gatewayList, func(g *Gateway) bool { return g.masquerade.uplink == u && g.masquerade.shared }) {
		return
	}
	for _, exts := range u.exts {
		for _, e := range exts {
			for _, p := range n.table.exts[e].pools {
				if p.shared == nil {
					p.shared = new([1 << 16]uint16)
				}
			}
		}
	}
}

func (n *NAT) known(g *Gateway, u *Uplink) error {
	if g == nil || n.gateways[g.path] != g {
		return fmt.Errorf("its gateway: %w", ErrUnknown)
	}
	if u == nil || n.uplinks[u.path] != u {
		return fmt.Errorf("its uplink: %w", ErrUnknown)
	}
	return nil
}

func (n *NAT) addRule(r rule) (RuleID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 1; i < len(n.rules); i++ {
		if n.rules[i].uplink == nil {
			n.rules[i] = r
			return RuleID(i), nil
		}
	}
	if len(n.rules) > MaxRules {
		return 0, fmt.Errorf("%w: there are %d rules", ErrFull, MaxRules)
	}
	n.rules = append(n.rules, r)
	return RuleID(len(n.rules) - 1), nil
}

// PublicationConfig says where what comes to an uplink's ports goes.
type PublicationConfig struct {
	Name   string // What errors call it.
	Uplink *Uplink
	Proto  uint8 // wire.ProtoTCP, ProtoUDP or ProtoSCTP.
	// Listen is one of the uplink's addresses; the zero Addr is all of To's
	// family.
	Listen netip.Addr
	Ports  PortRange
	// Gateway is that of To's network.
	Gateway *Gateway
	To      netip.Addr
	// ToPorts is as long as Ports: the first goes to the first.
	ToPorts PortRange
}

// Publish adds a publication. Of several for a port, the one with an address
// wins over the one without, and then the narrower range. One that is the same
// as another, or crosses it so that neither is narrower, is refused with the
// other's name. A connection stays with the rule that began it.
func (n *NAT) Publish(c PublicationConfig) (RuleID, error) {
	n.control.Lock()
	defer n.control.Unlock()
	id, err := n.publish(&c)
	if err != nil {
		return 0, fmt.Errorf("publish %s: %w", c.Name, err)
	}
	return id, nil
}

func (n *NAT) publish(c *PublicationConfig) (RuleID, error) {
	if err := n.known(c.Gateway, c.Uplink); err != nil {
		return 0, err
	}
	r := rule{
		name: c.Name, uplink: c.Uplink, gateway: c.Gateway, publish: true,
		listen: addrOf(c.Listen), first: c.Ports.First, last: c.Ports.Last, to: addrOf(c.To), toPort: c.ToPorts.First,
	}
	switch c.Proto {
	case wire.ProtoTCP:
		r.class = tcp
	case wire.ProtoUDP:
		r.class = udp
	case wire.ProtoSCTP:
		r.class = sctp
	default:
		return 0, fmt.Errorf("protocol %d: %w: want TCP, UDP or SCTP", c.Proto, ErrInvalid)
	}
	for _, p := range [2]PortRange{c.Ports, c.ToPorts} {
		if p.First == 0 || p.First > p.Last {
			return 0, fmt.Errorf("ports %v: %w: want 1-65535 or a part of it", p, ErrInvalid)
		}
	}
	switch {
	case c.Ports.Last-c.Ports.First != c.ToPorts.Last-c.ToPorts.First:
		return 0, fmt.Errorf("ports %v to %v: %w: want ranges of one length", c.Ports, c.ToPorts, ErrInvalid)
	case !containedIn(c.Gateway.subnets, r.to) || c.Gateway.isOwn(r.to) || r.to.isLocal():
		return 0, fmt.Errorf("to %v: %w: want a container's address in a subnet of gateway %s", c.To, ErrInvalid, c.Gateway.config.Name)
	case r.listen != (addr{}) && c.Uplink.extOf(r.listen) == 0:
		return 0, fmt.Errorf("listen on %v: %w: want an address of uplink %s", c.Listen, ErrUnknown, c.Uplink.config.Name)
	case r.listen != (addr{}) && r.listen.is4() != r.to.is4():
		return 0, fmt.Errorf("listen on %v for %v: %w: want one family", c.Listen, c.To, ErrInvalid)
	}
	for i := range n.rules {
		o := &n.rules[i]
		if !o.publish || o.uplink != r.uplink || o.class != r.class || o.listen != r.listen || o.to.is4() != r.to.is4() {
			continue
		}
		a, b := r.ports(), o.ports()
		if a.overlaps(b) && (a == b || !a.contains(b) && !b.contains(a)) {
			return 0, fmt.Errorf("ports %v: %w by %s, which has %v", a, ErrInUse, o.name, b)
		}
	}
	id, err := n.addRule(r)
	if err == nil {
		n.paint()
	}
	return id, err
}

func (r *rule) ports() PortRange { return PortRange{r.first, r.last} }

// paint writes the publications into the tables of the external addresses:
// the most specific last. The caller holds control. Workers see all of an
// address's new tables or none.
func (n *NAT) paint() {
	var order []int
	for i := range n.rules {
		if n.rules[i].publish {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &n.rules[a], &n.rules[b]
		if (x.listen == addr{}) != (y.listen == addr{}) {
			if x.listen == (addr{}) {
				return -1
			}
			return 1
		}
		return int(y.last-y.first) - int(x.last-x.first)
	})
	for id := 1; id < len(n.table.exts); id++ {
		e := &n.table.exts[id]
		var rules [classes]*[1 << 16]uint16
		for _, i := range order {
			r := &n.rules[i]
			if e.gone || r.uplink.path != e.uplink || r.listen != e.addr && r.listen != (addr{}) || r.to.is4() != e.addr.is4() {
				continue
			}
			if rules[r.class] == nil {
				rules[r.class] = new([1 << 16]uint16)
			}
			for port := int(r.first); port <= int(r.last); port++ {
				rules[r.class][port] = uint16(i)
			}
		}
		n.mu.Lock()
		e.rules = rules
		n.mu.Unlock()
	}
}

// RemoveRule ends a masquerade or a publication, and its connections at once.
func (n *NAT) RemoveRule(id RuleID) error {
	n.control.Lock()
	defer n.control.Unlock()
	if id == 0 || int(id) >= len(n.rules) || n.rules[id].uplink == nil {
		return fmt.Errorf("remove rule %d: %w", id, ErrUnknown)
	}
	n.mu.Lock()
	r := &n.rules[id]
	published := r.publish
	r.publish = false
	if !published {
		r.gateway.masquerade = masquerade{}
	}
	n.fragments.reset()
	n.generation++
	n.mu.Unlock()
	if published {
		n.paint()
	}
	n.end(func(c *conn) bool { return c.rule == uint16(id) })
	n.mu.Lock()
	n.rules[id] = rule{}
	n.mu.Unlock()
	return nil
}
