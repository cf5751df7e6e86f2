package mesh

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"heddle/dataplane/wire"
)

// ErrFlapping is the error, wrapped with the endpoint, when an endpoint has
// moved here too often: two hosts have the same MAC address.
var ErrFlapping = errors.New("it moves to and fro")

// An endpoint that has moved here flapMoves times in flapWindow is refused
// until the window ends (RFC 7432 section 15.1: N = 5, M = 180 s).
const (
	flapMoves  = 5
	flapWindow = 180 * time.Second
	maxMoves   = 4096 // Endpoints that are watched; more are not.
)

// moves counts how often an endpoint has moved here since the window began.
type moves struct {
	since time.Time
	n     int
}

// SetNetworks says which networks this host has, in place of those it had.
func (m *Mesh) SetNetworks(networks []Network) error {
	if len(networks) > MaxNetworks {
		return fmt.Errorf("announce networks: %d of them, at most %d are told", len(networks), MaxNetworks)
	}
	next := make(map[uint32]string, len(networks))
	for _, n := range networks {
		if n.VNI == 0 || n.VNI > MaxVNI || !nameRE.MatchString(n.Name) {
			return fmt.Errorf("announce network %q: want a name like the others' and a VNI from 1 to %d, not %d", n.Name, MaxVNI, n.VNI)
		}
		if other, ok := next[n.VNI]; ok {
			return fmt.Errorf("announce network %q: %q has its VNI, %d", n.Name, other, n.VNI)
		}
		next[n.VNI] = n.Name
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	l := m.table.local
	for vni := range l.networks {
		if _, ok := next[vni]; !ok {
			delete(l.networks, vni)
			l.note(change{op: changeNetworkOut, key: key{vni: vni}})
		}
	}
	for vni, name := range next {
		if l.networks[vni] != name {
			l.networks[vni] = name
			l.note(change{op: changeNetwork, key: key{vni: vni}, network: name})
		}
	}
	m.touched()
	return nil
}

// Announce says that endpoints are behind this host, all of them or, if one is
// bad or there are too many, none. One that another member announces moves
// here. Announcing again changes the IPs; with the same ones it does nothing,
// unless the endpoint has moved away: then it moves back. An endpoint that
// moves away and then vanishes there is announced again by itself after
// orphanDelay, until Withdraw.
func (m *Mesh) Announce(endpoints ...Endpoint) error {
	for _, e := range endpoints {
		if err := e.check(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	l := m.table.local
	added := map[key]struct{}{}
	for _, e := range endpoints {
		k := key{e.MAC, e.VNI}
		if _, ok := l.wanted[k]; !ok {
			added[k] = struct{}{}
		}
		if m.flaps(k) {
			return fmt.Errorf("announce %s in VNI %d: %w: it has come here %d times in %s: two hosts have this address",
				e.MAC, e.VNI, ErrFlapping, flapMoves, flapWindow)
		}
	}
	if n := len(l.wanted) + len(added); n > MaxEndpoints {
		return fmt.Errorf("announce %d endpoints: this host would have %d, at most %d are told", len(endpoints), n, MaxEndpoints)
	}
	for _, e := range endpoints {
		m.announce(key{e.MAC, e.VNI}, packAddrs(e.IPs))
	}
	m.touched()
	return nil
}

// announce makes an endpoint this host's. mu is held.
func (m *Mesh) announce(k key, ips addrs) {
	t := m.table
	t.local.wanted[k] = ips
	owner, rec := t.owner(k)
	switch {
	case owner == nil:
		t.announce(k, record{ips: ips})
	case owner != t.local.replica:
		m.moved(k)
		t.announce(k, record{ips, next(rec.mobility)})
	case rec.ips != ips:
		t.announce(k, record{ips, rec.mobility})
	}
}

// Withdraw says that an endpoint is no longer behind this host. It tells
// whether it was announced, be it that it has moved away since.
func (m *Mesh) Withdraw(vni uint32, mac wire.MAC) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ok := m.withdraw(key{mac, vni})
	m.touched()
	return ok
}

// withdraw forgets an endpoint of this host's. mu is held.
func (m *Mesh) withdraw(k key) bool {
	l := m.table.local
	_, wanted := l.wanted[k]
	delete(l.wanted, k)
	if _, told := l.entries[k]; told {
		m.table.unset(l.replica, k)
		l.note(change{op: changeGone, key: k})
	}
	return wanted
}

// SetEndpoints announces the endpoints and withdraws all others. What was
// announced before with the same IPs stays as it is: one that has moved away
// isn't called back.
func (m *Mesh) SetEndpoints(endpoints []Endpoint) error {
	next := make(map[key]addrs, len(endpoints))
	for _, e := range endpoints {
		if err := e.check(); err != nil {
			return err
		}
		next[key{e.MAC, e.VNI}] = packAddrs(e.IPs)
	}
	if len(next) > MaxEndpoints {
		return fmt.Errorf("announce %d endpoints: at most %d are told", len(next), MaxEndpoints)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	for k := range m.table.local.wanted {
		if _, ok := next[k]; !ok {
			m.withdraw(k)
		}
	}
	for k, ips := range next {
		if old, ok := m.table.local.wanted[k]; !ok || old != ips {
			m.announce(k, ips)
		}
	}
	m.touched()
	return nil
}

// Endpoints returns the endpoints of all live members, this host's included,
// by VNI and MAC: each once, with its owner.
func (m *Mesh) Endpoints() []Endpoint {
	m.mu.Lock()
	list := make([]Endpoint, 0, len(m.table.slots))
	for k, s := range m.table.slots {
		if s.best != nil {
			list = append(list, endpoint(k, s.best.entries[k], s.best.name))
		}
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.MAC, b.MAC))
	})
	return list
}

func endpoint(k key, r record, owner string) Endpoint {
	return Endpoint{VNI: k.vni, MAC: k.mac, IPs: r.ips.list(), Owner: owner, Mobility: r.mobility}
}

// flaps tells whether an endpoint has come here too often lately and is
// elsewhere again. mu is held.
func (m *Mesh) flaps(k key) bool {
	mv := m.moves[k]
	if mv == nil || mv.n < flapMoves || time.Since(mv.since) >= flapWindow {
		return false
	}
	owner, _ := m.table.owner(k)
	return owner != nil && owner != m.table.local.replica
}

// moved counts that an endpoint has come here. mu is held.
func (m *Mesh) moved(k key) {
	mv := m.moves[k]
	if mv == nil && len(m.moves) >= maxMoves {
		for k, mv := range m.moves {
			if time.Since(mv.since) >= flapWindow {
				delete(m.moves, k)
			}
		}
		if len(m.moves) >= maxMoves {
			return
		}
	}
	if mv == nil || time.Since(mv.since) >= flapWindow {
		mv = &moves{since: time.Now()}
		m.moves[k] = mv
	}
	mv.n++
}

// touched follows every change of the table: it has the local changes sent,
// repair look whether it has work, and the handler told. mu is held.
func (m *Mesh) touched() {
	if m.table.local.unsent > 0 && !m.flushing && !m.closed {
		m.flushing = true
		time.AfterFunc(flushDelay, m.flush)
	}
	if orphans := m.table.orphans; len(orphans) > 0 {
		m.table.orphans = nil
		time.AfterFunc(orphanDelay, func() { m.adopt(orphans) })
	}
	if len(m.table.dirty) > 0 || len(m.changed) > 0 {
		wake(m.tidings)
	}
	wake(m.kick)
}

// orphanDelay is how long an endpoint that has vanished may be on its way to
// another host: the old owner's withdrawal can overtake the new one's
// announcement.
const orphanDelay = 3 * time.Second

// adopt announces orphans that are still nowhere.
func (m *Mesh) adopt(orphans []orphan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for _, o := range orphans {
		m.table.adopt(o)
	}
	m.touched()
}

// flush gossips the changes since the last one. When they are many, it gossips
// only how far their numbers go, and everyone asks for them: that takes one copy
// for each member, where gossip takes RetransmitMult × log10(n) of them.
func (m *Mesh) flush() {
	m.mu.Lock()
	l := m.table.local
	n := uint64(l.unsent)
	m.renewed(m.self)
	l.unsent, m.flushing = 0, false
	var msg []byte
	if changes, ok := l.logged(l.seq - n); ok && n > 0 && n < maxDelta/4 {
		msg = encodeDelta(m.self, l.seq-n+1, changes)
	}
	head := binary.AppendUvarint(appendOrigin(begin(msgHead), m.self), l.seq)
	m.mu.Unlock()
	switch {
	case n == 0:
	case msg != nil && len(msg) <= maxDelta:
		m.count.out(KindDelta, len(msg))
		m.gossip(msg, "")
	default:
		m.count.out(KindMessage, len(head))
		m.gossip(head, "head "+m.self.node())
	}
}
