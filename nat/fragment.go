// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"math/bits"
	"time"

	"heddle/dataplane"
)

// fragments remembers packets of which fragments have come (RFC 4787 REQ-14,
// RFC 3022 6.3): the first says how all are translated; those that come before
// it wait. Up to maxFragmented packets, each for fragmentLife; when there are
// more, the oldest goes. Fragments that overlap one that came before are
// dropped (RFC 1858, RFC 5722).
type fragments struct {
	seed  uint64
	list  []fragmented // A ring: the oldest is at first.
	first int
	n     int
	heads []uint16 // Chains by hash into list, +1; 0 ends one.
	seen  []uint64 // seenWords for each of list: units of 8 bytes that came.
	store store
}

const (
	maxFragmented = 1000
	fragmentLife  = uint32(15 * time.Second >> tickShift)
	seenWords     = 1 << 16 / 8 / 64
)

// fragmented is one packet.
type fragmented struct {
	src, dst addr
	id       uint32
	path     uint16 // The link it came in by.
	proto    uint8
	known    bool // The first fragment came.
	refused  bool // It was dropped.
	turned   bool // It was answered, as the others are to be.
	dones    uint8
	next     uint16 // In its chain.
	born     uint32
	done     [2]rewrite
	to       uint16 // Valid only if known: the link it goes by, and to whom.
	hop      addr
	waiting  queue
}

func (fs *fragments) chain(p *packet, path uint16) *uint16 {
	h := hash(fs.seed, p.src, p.dst, uint64(p.fragID)<<32|uint64(path)<<8|uint64(p.proto))
	i, _ := bits.Mul64(h, uint64(len(fs.heads)))
	return &fs.heads[i]
}

// fragment handles the fragment at hand, which came to g or else to u.
func (t *turn) fragment(in *link, g *Gateway, u *Uplink) (uint16, dataplane.Drop) {
	fs, p := &t.nat.fragments, &t.p
	t.expireFragments()
	size := p.end - p.l4
	if p.v6 && !p.later() {
		size = p.end - (p.fragHdr + 8) // The first has the other headers in it.
	}
	if p.more && size%8 != 0 || size <= 0 || p.fragOff+size > 1<<16-1 {
		return 0, dataplane.BadPacket
	}
	e, at := fs.find(p, in.path)
	if e == nil {
		if fs.n == len(fs.list) {
			t.loseOldest()
		}
		e, at = fs.add(p, in.path, t.now)
	}
	if !fs.mark(at, p.fragOff/8, (p.fragOff+size+7)/8) {
		return 0, dataplane.FragmentOverlap
	}
	if p.later() {
		switch {
		case e.refused:
			return 0, dataplane.FragmentLost
		case e.known:
			return t.follow(e)
		case !fs.store.put(&e.waiting, t.f, in.path):
			return 0, dataplane.FragmentLost
		}
		return 0, dataplane.None
	}
	var path uint16
	var d dataplane.Drop
	t.dones, t.turned, t.last.path = 0, false, 0
	if g != nil {
		path, d = t.outboundPacket(g)
	} else {
		path, d = t.inboundPacket(u, u.extOf(p.dst), false)
	}
	e.known, e.turned, e.refused = true, t.turned, d != dataplane.None || t.last.path == 0 && !t.turned
	e.done, e.dones, e.to, e.hop = t.done, uint8(t.dones), t.last.path, t.last.addr
	t.release(e)
	return path, d
}

// follow translates the later fragment at hand like its packet's first.
func (t *turn) follow(e *fragmented) (uint16, dataplane.Drop) {
	p, to := &t.p, t.nat.links[e.to]
	if e.turned {
		_, d := t.turnRound(t.nat.links[e.path])
		return 0, d
	}
	if to == nil {
		return 0, dataplane.FragmentLost // Removed meanwhile.
	}
	if e.dones == 0 {
		from := t.nat.links[e.path]
		if d := t.hop(from, from.source(p.src), to.mtu); d != dataplane.None {
			return 0, d
		}
		return t.deliver(to, e.hop)
	}
	if p.ttl <= 1 {
		return 0, dataplane.TTLExpired
	}
	if p.end-p.l3 > to.mtu && !p.splits(t.f) {
		return 0, dataplane.ExceedsMTU
	}
	for i := range e.dones {
		p.apply(&e.done[i])
	}
	return t.deliver(to, e.hop)
}

// release sends what waited for the first fragment, behind it: by the outbox,
// which goes after the batch.
func (t *turn) release(e *fragmented) {
	at := t.f
	for e.waiting.n > 0 {
		if e.refused {
			t.nat.fragments.store.take(&e.waiting, nil)
			t.drop(dataplane.FragmentLost, 1)
			continue
		}
		f := t.spare()
		t.nat.fragments.store.take(&e.waiting, f)
		if f == nil {
			continue
		}
		// Its place is taken now, as what follows may need others.
		i := t.out.N
		t.route(0)
		t.f = f
		if d := t.p.parse(f, etherTypeOf(f)); d != dataplane.None {
			t.drop(d, 1)
			continue
		}
		path, d := t.follow(e)
		if d != dataplane.None {
			t.drop(d, 1)
		}
		t.out.to[i] = path
	}
	t.f = at
}

func (fs *fragments) find(p *packet, path uint16) (*fragmented, int) {
	for at := *fs.chain(p, path); at != 0; {
		e := &fs.list[at-1]
		if e.src == p.src && e.dst == p.dst && e.id == p.fragID && e.path == path && e.proto == p.proto {
			return e, int(at - 1)
		}
		at = e.next
	}
	return nil, 0
}

// add enters a packet. There must be room.
func (fs *fragments) add(p *packet, path uint16, now uint32) (*fragmented, int) {
	at := (fs.first + fs.n) % len(fs.list)
	head := fs.chain(p, path)
	fs.list[at] = fragmented{
		src: p.src, dst: p.dst, id: p.fragID, path: path, proto: p.proto, born: now, next: *head,
	}
	*head = uint16(at + 1)
	fs.n++
	clear(fs.seen[at*seenWords : (at+1)*seenWords])
	return &fs.list[at], at
}

// mark notes that the units from first up to end have come; false, and nothing
// is noted, if one of them had before.
func (fs *fragments) mark(at, first, end int) bool {
	seen := fs.seen[at*seenWords : (at+1)*seenWords]
	for pass := range 2 {
		for i := first; i < end; {
			w, from := i/64, i%64
			n := min(64-from, end-i)
			m := (^uint64(0) >> (64 - n)) << from
			if pass == 0 && seen[w]&m != 0 {
				return false
			}
			if pass == 1 {
				seen[w] |= m
			}
			i += n
		}
	}
	return true
}

// expireFragments forgets packets that are older than fragmentLife.
func (t *turn) expireFragments() {
	fs := &t.nat.fragments
	for fs.n > 0 && t.now > fs.list[fs.first].born && t.now-fs.list[fs.first].born > fragmentLife {
		t.loseOldest()
	}
}

// loseOldest forgets the oldest packet and what waits for it.
func (t *turn) loseOldest() {
	fs := &t.nat.fragments
	e := &fs.list[fs.first]
	for e.waiting.n > 0 {
		fs.store.take(&e.waiting, nil)
		t.drop(dataplane.FragmentLost, 1)
	}
	p := packet{src: e.src, dst: e.dst, fragID: e.id, proto: e.proto}
	for at := fs.chain(&p, e.path); *at != 0; at = &fs.list[*at-1].next {
		if int(*at-1) == fs.first {
			*at = e.next
			break
		}
	}
	fs.first = (fs.first + 1) % len(fs.list)
	fs.n--
}
