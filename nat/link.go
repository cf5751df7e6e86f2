// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// link is what gateways and uplinks have in common: a station on an Ethernet
// that forwards.
type link struct {
	path    uint16 // Its number among all; ≥ 1.
	mac     wire.MAC
	mtu     int
	subnets []prefix // On the link; their hosts are the station's addresses.
	ranges  []prefix // The same without repetition, and without those of one address.
	own     []addr   // All addresses it answers for.
	quiet   bool     // Somebody else answers: a shared uplink's host.
	nextHop [2]addr  // An uplink's, IPv4 and IPv6; the zero addr: none.
	direct  bool     // There are two stations, with one MAC: see Stack.

	neighbours neighbours
	errors     bucket // Limits the ICMP errors it makes.
	announce   int    // How often it still says where it is.
}

func (l *link) isOwn(a addr) bool {
	for i := range l.own {
		if l.own[i] == a {
			return true
		}
	}
	return false
}

// reaches tells whether an address is that of a station on the link.
func (l *link) reaches(a addr) bool {
	return containedIn(l.subnets, a) || a != (addr{}) && (a == l.nextHop[0] || a == l.nextHop[1])
}

// isNear tells whether an address that isn't the link's own is on the link. An
// uplink may have 1,024 addresses, but they are of few subnets.
func (l *link) isNear(a addr) bool { return containedIn(l.ranges, a) }

// source returns the link's address of a's family, in a's subnet if it has
// one; the zero addr if it has none.
func (l *link) source(a addr) (from addr) {
	for i := range l.subnets {
		s := &l.subnets[i]
		if s.contains(a) {
			return s.host
		}
		if from == (addr{}) && s.host.is4() == a.is4() && !s.host.isLinkLocal6() {
			from = s.host
		}
	}
	return from
}

// neighbours is who has which MAC on a link (ARP, RFC 826; ND, RFC 4861).
//
// An entry that was confirmed in the last 30 s is believed. An older one is
// used on, and asked after once a second: three times at its MAC, then by
// broadcast, and after six tries without an answer it is forgotten. So a next
// hop that changes its MAC is found again by its own announcement at once, or
// else within 36 s. Frames for an address without a MAC wait, three for each.
//
// When the table is full, the one of 16 at random that was asked after or
// confirmed longest ago makes room.
type neighbours struct {
	addrTable
	list []neighbour
	hop  [2]uint16 // The next hops' numbers, IPv4 and IPv6; 0: not known.
}

type neighbour struct {
	mac       wire.MAC // 0: not known.
	confirmed uint32   // Ticks.
	asked     uint32
	tries     uint8
	fixed     bool  // Control code said so.
	waiting   queue // In NAT.waiting.
}

const (
	reachable     = uint32(30 * time.Second >> tickShift)
	askEvery      = uint32(time.Second >> tickShift)
	unicastTries  = 3
	maxTries      = 6
	maxWaiting    = 3
	evictionTries = 16
)

// lookup returns an address's entry, a new one if need be.
func (t *turn) lookup(l *link, a addr) uint16 {
	if id := l.neighbours.find(0, a); id != 0 {
		return id
	}
	ns := &l.neighbours
	if ns.n == len(ns.keys)-1 {
		t.evict(ns)
	}
	id := ns.add(0, a)
	if id != 0 {
		ns.list[id] = neighbour{asked: t.now - askEvery - 1}
	}
	return id
}

// evict makes room in a full table.
func (t *turn) evict(ns *neighbours) {
	oldest, age := uint16(0), uint32(0)
	for range evictionTries {
		id := uint16(1 + t.nat.table.rand.under(len(ns.list)-1))
		n := &ns.list[id]
		if a := min(t.now-n.confirmed, t.now-n.asked); !n.fixed && a >= age {
			oldest, age = id, a
		}
	}
	if oldest != 0 {
		t.forget(ns, oldest)
	}
}

// forget removes an entry and loses what waits for it.
func (t *turn) forget(ns *neighbours, id uint16) {
	for n := &ns.list[id]; n.waiting.n > 0; {
		t.nat.waiting.take(&n.waiting, nil)
		t.drop(dataplane.NoNeighbour, 1)
	}
	for f := range ns.hop {
		if ns.hop[f] == id {
			ns.hop[f] = 0
		}
	}
	ns.remove(id)
	t.nat.generation++
}

// deliver addresses the frame at hand to an address on the link and returns
// the link's path; 0 with None if it has to wait.
func (t *turn) deliver(l *link, a addr) (path uint16, d dataplane.Drop) {
	if l.direct {
		return t.handOver(l, a)
	}
	return t.deliverTo(l, t.lookup(l, a))
}

func (t *turn) deliverTo(l *link, id uint16) (path uint16, d dataplane.Drop) {
	if id == 0 {
		return 0, dataplane.NoNeighbour
	}
	n := &l.neighbours.list[id]
	t.last.path, t.last.addr = l.path, l.neighbours.keys[id].addr
	if n.mac != 0 {
		setMACs(t.f.Bytes(), n.mac, l.mac)
		t.last.fresh = n.confirmed + reachable
		if n.fixed {
			t.last.fresh = t.now + reachable
		}
		if t.now-n.confirmed > reachable && !n.fixed && int32(t.now-n.confirmed) > 0 {
			t.probe(l, id)
		}
		if p := &t.p; p.end-p.l3 > l.mtu && p.splits(t.f) {
			return t.split(l.path, l.mtu)
		}
		return l.path, dataplane.None
	}
	t.probe(l, id)
	if n.waiting.n == maxWaiting || !t.nat.waiting.put(&n.waiting, t.f, l.path) {
		return 0, dataplane.NoNeighbour
	}
	return 0, dataplane.None
}

// probe asks after an entry unless that was less than a second ago.
func (t *turn) probe(l *link, id uint16) {
	n := &l.neighbours.list[id]
	if t.now-n.asked < askEvery {
		return
	}
	n.asked = t.now
	if n.tries++; n.tries > maxTries {
		n.mac, n.tries = 0, 1
		t.nat.generation++
		for n.waiting.n > 0 {
			t.nat.waiting.take(&n.waiting, nil)
			t.drop(dataplane.NoNeighbour, 1)
		}
	}
	to := n.mac
	if n.tries > unicastTries {
		to = 0
	}
	t.ask(l, l.neighbours.keys[id].addr, to)
}

// heard notes that an address on the link has a MAC, and sends what waited for
// it. A new entry is made only if create: for who wants something from us.
func (t *turn) heard(l *link, a addr, mac wire.MAC, create bool) {
	if mac.IsZero() || mac.IsMulticast() || !l.reaches(a) || l.isOwn(a) {
		return
	}
	ns := &l.neighbours
	id := ns.find(0, a)
	if id == 0 && create {
		id = t.lookup(l, a)
	}
	if id == 0 || ns.list[id].fixed {
		return
	}
	n := &ns.list[id]
	if n.mac != mac {
		t.nat.generation++
	}
	n.mac, n.confirmed, n.tries = mac, t.now, 0
	for n.waiting.n > 0 {
		f := t.spare()
		path := t.nat.waiting.take(&n.waiting, f)
		if f != nil {
			setMACs(f.Bytes(), mac, l.mac)
			t.route(path)
		}
	}
}

// bucket lets through a bounded rate, with a burst (RFC 1812 4.3.2.8).
type bucket struct {
	tokens int32
	last   uint32
}

const (
	errorRate  = 100 // A second.
	errorBurst = 50
)

func (b *bucket) take(now uint32) bool {
	const scale = int64(time.Second >> tickShift) // Ticks a second, about 7.
	if gone := int64(now - b.last); gone > 0 && gone < 1<<31 {
		b.last = now
		b.tokens = int32(min(errorBurst, int64(b.tokens)+gone*errorRate/scale))
	}
	if b.tokens <= 0 {
		return false
	}
	b.tokens--
	return true
}
