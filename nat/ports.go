// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"math/bits"
	"math/rand/v2"

	"heddle/dataplane"
)

// random is where external ports come from (RFC 6056): ChaCha8, seeded from
// the system.
type random struct{ *rand.ChaCha8 }

// under returns a number below n.
func (r random) under(n int) int {
	hi, _ := bits.Mul64(r.Uint64(), uint64(n))
	return int(hi)
}

// external is an address of an uplink that stands for inside addresses.
type external struct {
	addr   addr
	uplink uint16 // Its path.
	gone   bool   // Its uplink doesn't have it any more.

	pools [classes]*pool
	// rules are the publications by port, nil if there is none; 0 is none's.
	// Wider and less specific ones stand only where no other is.
	rules [classes]*[1 << 16]uint16
}

// pool is the ports of one address and class that inside endpoints can get:
// a bit for each that is taken.
type pool struct {
	first, last uint16
	free        int
	used        [1 << 16 / 64]uint64
	// shared counts the connections that use a port by
	// address-and-port-dependent mappings; nil until there is one.
	shared *[1 << 16]uint16
	// closed is what can be had back; nil where nothing ever ends (UDP, ICMP).
	closed *closedPorts
}

func (p *pool) isUsed(port uint16) bool { return p.used[port/64]>>(port%64)&1 != 0 }

func (p *pool) take(port uint16) {
	p.used[port/64] |= 1 << (port % 64)
	if port >= p.first && port <= p.last {
		p.free--
	}
}

func (p *pool) give(port uint16) {
	p.used[port/64] &^= 1 << (port % 64)
	if port >= p.first && port <= p.last {
		p.free++
	}
}

// isPublished tells whether a port belongs to a publication.
func (e *external) isPublished(cl class, port uint16) bool {
	return e.rules[cl] != nil && e.rules[cl][port] != 0
}

// has tells whether an inside endpoint may be given a port at all.
func (e *external) has(cl class, port uint16) bool {
	p := e.pools[cl]
	return port >= p.first && port <= p.last && !e.isPublished(cl, port)
}

// release gives back what allocate or share took.
func (e *external) release(cl class, port uint16) {
	p := e.pools[cl]
	if p.shared != nil && p.shared[port] > 0 {
		if p.shared[port]--; p.shared[port] > 0 {
			return
		}
	}
	p.give(port)
}

// allocate takes a port that nobody has, the wanted one if it can (RFC 4787
// REQ-3: port preservation without overloading), else the first free one from
// a random place on. Parity is not kept: RFC 4787 REQ-4 recommends it for RTP
// senders that don't say where their RTCP goes, and it would halve the pool of
// every other (RFC 7857 lets a NAT leave it out). It looks at 1,024
// words at most, 1 µs.
func (e *external) allocate(cl class, want uint16, r random) (port uint16, ok bool) {
	p := e.pools[cl]
	if e.has(cl, want) && !p.isUsed(want) {
		p.take(want)
		return want, true
	}
	if p.free <= 0 {
		return 0, false
	}
	n := int(p.last) - int(p.first) + 1
	at := int(p.first) + r.under(n)
	for seen := 0; seen < n; {
		w := at / 64
		freeBits := ^p.used[w] >> (at % 64)
		skip := 64 - at%64
		if freeBits != 0 {
			skip = bits.TrailingZeros64(freeBits)
			port := at + skip
			if port <= int(p.last) && e.has(cl, uint16(port)) {
				p.take(uint16(port))
				return uint16(port), true
			}
			skip++
		}
		seen += skip
		if at += skip; at > int(p.last) {
			seen -= at - int(p.last) - 1 // What is behind the end was no candidate.
			at = int(p.first)
		}
	}
	return 0, false
}

// shareTries is how many ports share looks at.
const shareTries = 128

// share takes a port for an address-and-port-dependent mapping: one that no
// endpoint-independent mapping has, and with which no connection to the same
// outside endpoint is there yet.
func (t *table) share(ext uint16, cl class, want uint16, out addr, outPort uint16) (port uint16, ok bool) {
	e := &t.exts[ext]
	p := e.pools[cl]
	n := int(p.last) - int(p.first) + 1
	for try := range shareTries {
		port = want
		if try > 0 {
			port = p.first + uint16(t.rand.under(n))
		}
		if !e.has(cl, port) || p.isUsed(port) && p.shared[port] == 0 || p.shared[port] == 1<<16-1 {
			continue
		}
		if t.findExternal(t.hashExternal(cl, ext, port, out, outPort), cl, ext, port, out, outPort) != 0 {
			continue
		}
		if p.shared[port] == 0 {
			p.take(port)
		}
		p.shared[port]++
		return port, true
	}
	return 0, false
}

// mayTakePort tells whether a host may have another external port. Unless it
// has a limit of its own, it gets three quarters of what the others leave; of
// ports that connections share there is no such part.
func (t *table) mayTakePort(h *host, ext uint16, cl class, limit int, shared bool) dataplane.Drop {
	free := t.exts[ext].pools[cl].free
	switch {
	case shared:
		if limit > 0 && int(h.ports) >= limit {
			return dataplane.HostLimit
		}
	case free <= 0:
		return dataplane.NoFreePort
	case limit > 0 && int(h.ports) >= limit, limit == 0 && int(h.ports) >= fairShare*free:
		return dataplane.HostLimit
	}
	return dataplane.None
}
