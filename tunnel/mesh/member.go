package mesh

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// State says how a member does.
type State uint8

// States of a member.
const (
	Alive   State = iota // It answers, or others say so.
	Suspect              // This host's last probe of it found no answer; it fails unless it objects.
	Failed               // It has not answered, nor objected.
	Left                 // It said good-bye.
)

// String returns the state's name in lower case.
func (s State) String() string {
	return [...]string{"alive", "suspect", "failed", "left"}[s]
}

// Member is a host of the mesh.
type Member struct {
	Name      string
	Address   netip.AddrPort // Where its gossip is.
	VTEP      netip.AddrPort // Where its VXLAN is.
	State     State
	Networks  []Network     // By VNI; empty if it has failed or left.
	Endpoints int           // How many it announces.
	RTT       time.Duration // Of the last probe that it answered; 0 if none did.
	Self      bool          // It is this host.
	Synced    bool          // What it announces has been received; of a member that has just come nothing is known.
}

// How long members that are gone are kept, to be shown and, if they failed,
// tried again; fewer if room is needed for live ones.
const (
	keepFailed   = 24 * time.Hour
	keepLeft     = 10 * time.Minute
	maxInstances = 4 // Live instances of one name that are known at one time.
	suspectFor   = 10 * time.Second
)

// member is a host, over all its instances.
type member struct {
	name      string
	current   *instance            // Who speaks for it; nil if none lives.
	instances map[uint32]*instance // The live ones, this host's own excepted.

	// Of the last one that lived; valid only if current is nil.
	address, vtep netip.AddrPort
	state         State  // Failed or Left.
	gone          uint32 // That instance.
	since         time.Time

	told *Member // What the handler was told last; nil if that it is down.
}

// instance is one run of a member's daemon.
type instance struct {
	origin
	address  netip.AddrPort
	vtep     netip.AddrPort
	replaces []uint32
	replica  *replica // nil unless it is its member's current one.
	rtt      time.Duration
	suspect  time.Time // When a probe found no answer; zero if the last one did.
	need     need
	spoke    bool // It is or was its member's current one.
}

// view is the member as it is shown. mu is held.
func (m *Mesh) view(mb *member) Member {
	v := Member{Name: mb.name, Address: mb.address, VTEP: mb.vtep, State: mb.state, Self: mb.name == m.self.name}
	if c := mb.current; c != nil {
		v.Address, v.VTEP, v.State, v.RTT = c.address, c.vtep, Alive, c.rtt
		if !c.suspect.IsZero() && time.Since(c.suspect) < suspectFor {
			v.State = Suspect
		}
		v.Endpoints, v.Synced = len(c.replica.entries), c.replica.synced
		for _, vni := range slices.Sorted(maps.Keys(c.replica.networks)) {
			v.Networks = append(v.Networks, Network{c.replica.networks[vni], vni})
		}
	}
	return v
}

// Self returns this host as the others see it.
func (m *Mesh) Self() Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view(m.members[m.self.name])
}

// Members returns all members that are known, this host included, by name.
// Failed ones are shown for a day, those that left for ten minutes.
func (m *Mesh) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Member, 0, len(m.members))
	for _, mb := range m.members {
		list = append(list, m.view(mb))
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// up takes note of a live instance, new or with new metadata. memberlist's
// lock is held.
func (m *Mesh) up(n *memberlist.Node) {
	o, err := parseNode(n.Name)
	if err != nil || o == m.self {
		return // admit has refused the former.
	}
	info, err := decodeMeta(n.Meta)
	if err != nil {
		return // Likewise.
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.members[o.name]
	if mb == nil {
		mb = &member{name: o.name, instances: map[uint32]*instance{}}
		m.members[o.name] = mb
	}
	in := mb.instances[o.instance]
	if in == nil {
		in = &instance{origin: o}
		mb.instances[o.instance] = in
		m.alive.Add(1)
		if m.name.company.IsZero() {
			m.name.company = time.Now()
		}
	}
	in.address, in.vtep, in.replaces = netip.AddrPortFrom(addr.Unmap(), n.Port), info.vtep, info.replaces
	if o.name == m.self.name {
		m.name.rivals, m.name.met = true, time.Now()
	} else {
		m.choose(mb)
	}
	m.changed[o.name] = struct{}{}
	m.touched()
}

// down takes note that an instance has failed or left. memberlist's lock is
// held.
func (m *Mesh) down(n *memberlist.Node) {
	o, err := parseNode(n.Name)
	if err != nil || o == m.self {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose(o, Failed)
}

// lose takes an instance out. mu is held.
func (m *Mesh) lose(o origin, as State) {
	mb := m.members[o.name]
	if mb == nil {
		return
	}
	in := mb.instances[o.instance]
	if in == nil {
		return
	}
	delete(mb.instances, o.instance)
	delete(m.name.contested, o.instance)
	m.alive.Add(-1)
	if !in.spoke && mb.current != nil {
		m.count.refuse(RefusedName) // A second host of this name has come and gone again.
	}
	if mb.current == in {
		mb.address, mb.vtep, mb.state, mb.gone, mb.since = in.address, in.vtep, as, in.instance, time.Now()
		m.retire(mb)
		m.choose(mb)
	}
	m.changed[o.name] = struct{}{}
	m.touched()
}

// retire takes what a member's current instance announces out. mu is held.
func (m *Mesh) retire(mb *member) {
	m.table.drop(mb.current.replica)
	mb.current.replica = nil
	mb.current.need = need{}
	mb.current = nil
	m.quiet.changed = true
}

// choose decides which live instance speaks for a member: the one that does,
// until another says that it has replaced it, or it is gone; then, of those
// that nobody replaces, the lowest. mu is held; not for this host itself.
func (m *Mesh) choose(mb *member) {
	replaced := map[uint32]bool{}
	for _, in := range mb.instances {
		for _, id := range in.replaces {
			replaced[id] = true
		}
	}
	var best *instance
	for _, in := range mb.instances {
		switch {
		case replaced[in.instance]:
		case in == mb.current:
			return
		case best == nil || in.instance < best.instance:
			best = in
		}
	}
	if best == nil {
		return // Those that replace each other stay until they die.
	}
	if mb.current != nil {
		m.retire(mb)
	}
	best.replica = newReplica(best.origin)
	mb.current = best
	best.spoke = true
	m.quiet.changed = true
	m.require(best, 0, origin{})
}

// find returns the current instance of an origin, if that is the current one.
// mu is held.
func (m *Mesh) find(o origin) *instance {
	if mb := m.members[o.name]; mb != nil && mb.current != nil && mb.current.instance == o.instance {
		return mb.current
	}
	return nil
}

// reach returns a live instance, current or not: whom to answer. mu is held.
func (m *Mesh) reach(o origin) *instance {
	if mb := m.members[o.name]; mb != nil {
		return mb.instances[o.instance]
	}
	return nil
}

// admit says whether an instance may be a member. It makes room for it by
// forgetting the member that has been gone for longest.
func (m *Mesh) admit(n *memberlist.Node) error {
	o, err := parseNode(n.Name)
	if err != nil {
		m.count.refuse(RefusedMember)
		return err
	}
	if n.DMin > protocol || n.DMax < protocol {
		m.count.refuse(RefusedVersion)
		return errVersion
	}
	if _, err := decodeMeta(n.Meta); err != nil {
		m.count.refuseMessage(err)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	mb := m.members[o.name]
	if mb == nil && len(m.members) >= MaxMembers && !m.forget() {
		m.count.refuse(RefusedMember)
		return errTooMany
	}
	if mb != nil && mb.instances[o.instance] == nil && len(mb.instances) >= maxInstances {
		m.count.refuse(RefusedName)
		return errTooMany
	}
	return nil
}

// forget drops the member that has been gone for longest, if there is one. mu
// is held.
func (m *Mesh) forget() bool {
	gone := slices.DeleteFunc(slices.Collect(maps.Values(m.members)), func(mb *member) bool {
		return mb.current != nil || len(mb.instances) > 0 || mb.told != nil
	})
	if len(gone) == 0 {
		return false
	}
	oldest := slices.MinFunc(gone, func(a, b *member) int { return a.since.Compare(b.since) })
	delete(m.members, oldest.name)
	return true
}

// expire drops members that have been gone for long. mu is held.
func (m *Mesh) expire() {
	for name, mb := range m.members {
		keep := keepFailed
		if mb.state == Left {
			keep = keepLeft
		}
		if mb.current == nil && len(mb.instances) == 0 && mb.told == nil && time.Since(mb.since) > keep {
			delete(m.members, name)
		}
	}
}
