package mesh

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// When to ask for what is missing.
const (
	gapDelay    = 200 * time.Millisecond // What comes late by gossip need not be asked for.
	spread      = 200 * time.Millisecond // Added at random, so that not all ask at once.
	retryFirst  = time.Second
	retryMost   = 8 * time.Second
	maxDatagram = 1000    // Bytes of a message that goes by UDP; a longer one takes a stream.
	maxBundle   = 1 << 20 // Bytes of a bundle, unless a single state is longer.
	minAsk      = time.Second
	minMerge    = 3 * time.Second // Between exchanges of memberlist's states over doubts.
	maxAsk      = 30 * time.Second
	patience    = 4 // Answers to probes with another fingerprint until a digest is asked for, although the own one changes.
)

// need is what an instance's replica lacks.
type need struct {
	at    time.Time // When to ask next; zero if nothing is lacking.
	upTo  uint64    // How far its numbers go, as far as is known.
	from  origin    // Who is known to know; zero if nobody is.
	tries int
}

// random returns a number from 0 up to n.
func random[T int | time.Duration](n T) T {
	return rand.N(n) //nolint:gosec // It spreads load: nobody gains by guessing it.
}

// require notes that an instance is known to have announced more than is known
// here. from is who knows it, if anybody but the instance is known to. mu is
// held.
func (m *Mesh) require(in *instance, upTo uint64, from origin) {
	n := &in.need
	n.upTo = max(n.upTo, upTo)
	switch now := time.Now(); {
	case from != origin{}:
		n.from = from
		if n.at.IsZero() || n.tries == 0 {
			n.at = now.Add(random(spread / 4))
		}
	case n.at.IsZero():
		n.at = now.Add(gapDelay + random(spread))
	}
	wake(m.kick)
}

// repair asks for what is missing, until the mesh closes.
func (m *Mesh) repair() {
	defer m.workers.Done()
	timer := time.NewTimer(0)
	expiry := time.NewTicker(time.Minute)
	defer timer.Stop()
	defer expiry.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-expiry.C:
			m.mu.Lock()
			m.expire()
			m.mu.Unlock()
			continue
		case <-m.kick:
		case <-timer.C:
		}
		timer.Reset(m.ask())
	}
}

// ask sends what requests are due and returns how long it is to the next one.
func (m *Mesh) ask() time.Duration {
	next := time.Hour
	asks := map[*instance][]wanted{}
	m.mu.Lock()
	now := time.Now()
	for _, mb := range m.members {
		in := mb.current
		if in == nil || in.need.at.IsZero() || mb.name == m.self.name {
			continue
		}
		n := &in.need
		if wait := n.at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		to := m.whom(in)
		asks[to] = append(asks[to], wanted{in.origin, in.replica.known()})
		pause := min(retryFirst<<min(n.tries, 8), retryMost)
		n.at, n.tries = now.Add(pause), n.tries+1
		next = min(next, pause)
	}
	m.mu.Unlock()
	for to, list := range asks {
		for len(list) > 0 {
			n, size := 0, len(m.self.name)
			for n < len(list) && size < maxDatagram-128 {
				size += len(list[n].name) + 12
				n++
			}
			m.tell(to, KindRequest, appendWanted(appendOrigin(begin(msgWant), m.self), list[:n]))
			list = list[n:]
		}
	}
	return next
}

// whom returns whom to ask for what an instance's replica lacks: first who is
// known to know it, then in turn the instance itself and any other member. mu
// is held.
func (m *Mesh) whom(in *instance) *instance {
	n := in.need
	if n.tries == 0 {
		if from := m.find(n.from); from != nil {
			return from
		}
	}
	if n.tries%2 == 1 {
		for _, mb := range m.members {
			if c := mb.current; c != nil && c != in && mb.name != m.self.name {
				return c // Any: the order of a map is as good as random here.
			}
		}
	}
	return in
}

// listed is the member as memberlist takes it. The caller holds mu.
func (i *instance) listed() *memberlist.Node {
	return &memberlist.Node{Name: i.node(), Addr: i.address.Addr().AsSlice(), Port: i.address.Port()}
}

// tell sends a message to one member, by UDP if it fits.
func (m *Mesh) tell(to *instance, kind Kind, msg []byte) {
	m.mu.Lock()
	node := to.listed()
	m.mu.Unlock()
	m.do(func() {
		var err error
		if len(msg) <= maxDatagram {
			err = m.list.SendBestEffort(node, msg)
		} else {
			err = m.list.SendReliable(node, msg)
		}
		if err == nil {
			m.count.out(kind, len(msg))
		} // Else who waits for it asks again.
	})
}

// receiveWant answers a member that lacks something.
func (m *Mesh) receiveWant(r reader, size int) error {
	who, list := r.origin(), r.wanted()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindRequest, size)
	m.mu.Lock()
	m.hail(who)
	m.mu.Unlock()
	m.do(func() { m.supply(who, list) })
	return nil
}

// supply sends a member what it lacks.
func (m *Mesh) supply(who origin, list []wanted) {
	var bundle []byte
	for i, w := range list {
		m.mu.Lock()
		to := m.reach(who)
		var msg []byte
		if in := m.find(w.origin); in != nil && in.replica.known() > w.known {
			msg = m.encodeFor(in, w.known)
		}
		m.mu.Unlock()
		if to == nil {
			return // It will ask again when it is a member here.
		}
		if msg != nil {
			m.count.out(KindState, len(msg))
			bundle = binary.BigEndian.AppendUint32(bundle, uint32(len(msg)))
			bundle = append(bundle, msg...)
		}
		if len(bundle) > maxBundle || (i == len(list)-1 && len(bundle) > 0) {
			m.tell(to, KindMessage, append(begin(msgBundle), bundle...))
			bundle = nil
		}
	}
}

// encodeFor writes what an instance has announced since a number is known: the
// changes, if they are this host's and not long past, else all. mu is held.
func (m *Mesh) encodeFor(in *instance, known uint64) []byte {
	if in.origin == m.self && known > 0 {
		if changes, ok := m.table.local.logged(known - 1); ok {
			return encodeDelta(m.self, known, changes)
		}
	}
	return in.replica.encodeState()
}

// quiet decides when to ask for a digest. Fingerprints differ while changes get
// round, so one that differs says nothing; two in a row do, if the own one has
// not changed meanwhile.
type quiet struct {
	misses  int
	last    uint64        // The own one at the last miss.
	asked   time.Time     // When it was last.
	next    time.Time     // Not before.
	pause   time.Duration // Until the next but one; doubled while digests teach nothing.
	merged  time.Time     // When states were exchanged over a doubt.
	changed bool          // The table has changed since the last digest was asked for.
}

// compare takes the fingerprint in a member's answer to a probe. mu is held.
func (m *Mesh) compare(in *instance, theirs uint64) {
	q := &m.quiet
	own := m.fingerprint()
	if own == theirs {
		q.misses = 0
		return
	}
	q.misses++
	stable := q.misses >= 2 && own == q.last
	q.last = own
	now := time.Now()
	if q.changed {
		q.changed, q.pause, q.next = false, 0, q.asked.Add(minAsk)
	}
	if (!stable && q.misses < patience) || now.Before(q.next) {
		return
	}
	q.misses = 0
	q.pause = min(max(2*q.pause, minAsk), maxAsk)
	q.asked, q.next = now, now.Add(q.pause)
	m.do(func() { m.tell(in, KindRequest, appendOrigin(begin(msgAsk), m.self)) })
}

// receiveAsk sends a member a digest.
func (m *Mesh) receiveAsk(r reader, size int) error {
	who := r.origin()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindRequest, size)
	m.mu.Lock()
	m.hail(who)
	to := m.reach(who)
	m.mu.Unlock()
	if to != nil {
		m.tell(to, KindDigest, m.encodeDigest())
	}
	return nil
}

// encodeDigest says how far each live instance is known here.
func (m *Mesh) encodeDigest() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]wanted, 0, len(m.members))
	for _, mb := range m.members {
		if c := mb.current; c != nil && c.replica.synced {
			list = append(list, wanted{c.origin, c.replica.known()})
		}
	}
	return appendWanted(appendOrigin(begin(msgDigest), m.self), list)
}

// receiveDigest finds what another member knows better.
func (m *Mesh) receiveDigest(r reader, size int) error {
	who, list := r.origin(), r.wanted()
	if err := r.end(); err != nil {
		return err
	}
	m.count.in(KindDigest, size)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range list {
		in := m.find(w.origin)
		if in == nil {
			m.doubt(w.origin, who)
		}
		if in == nil || in.origin == m.self || w.known <= in.replica.known() {
			continue
		}
		m.count.repair()
		if in.replica.synced {
			m.require(in, w.known-1, in.origin) // Which can tell the difference.
		} else {
			m.require(in, w.known-1, who)
		}
	}
	return nil
}

// doubt exchanges memberlist's states with a member to whom an instance lives
// that is gone here, was never heard of, or is not the current one. Otherwise nobody would say so before
// memberlist's next exchange with somebody at random, a minute or two later: a
// refutation is gossiped once. mu is held.
func (m *Mesh) doubt(o, who origin) {
	mb, from := m.members[o.name], m.find(who)
	if from != nil && o.name != m.self.name && (mb == nil || mb.current != nil || (mb.state == Failed && mb.gone == o.instance)) {
		m.merge(from.address)
	}
}

// hail exchanges states with a member that has failed, as was thought, and asks
// something. mu is held.
func (m *Mesh) hail(who origin) {
	if mb := m.members[who.name]; mb != nil && mb.current == nil && mb.state == Failed && mb.gone == who.instance {
		m.merge(mb.address)
	}
}

// merge exchanges memberlist's states with an address, twice: who was taken for
// failed hears of it by the first exchange, and has refuted it by the second.
// mu is held.
func (m *Mesh) merge(a netip.AddrPort) {
	now := time.Now()
	if now.Sub(m.quiet.merged) < minMerge {
		return
	}
	m.quiet.merged = now
	join := func() { _, _ = m.list.Join([]string{a.String()}) } // If it fails, another sign brings another try.
	m.do(join)
	time.AfterFunc(rejoinAgain, func() { m.do(join) })
}
