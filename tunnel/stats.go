package tunnel

import (
	"net/netip"
	"slices"

	"heddle/dataplane"
)

// Refused counts what bounds have refused; it only grows.
type Refused struct {
	Peers     uint64 // Beyond Config.MaxPeers.
	Announced uint64 // Beyond Config.MaxAnnounced.
}

// Stats is what a VTEP holds and what happened at it.
type Stats struct {
	Peers, MaxPeers         int
	Tunnels                 int
	Announced, MaxAnnounced int // Addresses.

	// Suppressed is how many requests were left out of tunnels because their
	// answer is known or the gateway is here, counted for each tunnel; Answered
	// how many ARP and ND requests tunnels have answered; TooBig how many
	// senders were told of a packet that was too long; Clamped how many SYNs had
	// their MSS lowered.
	Suppressed, Answered, TooBig, Clamped uint64
	Refused
}

// Stats returns the VTEP's. Anybody but a worker may call it at any time.
func (v *VTEP) Stats() Stats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := Stats{
		Peers:        len(v.peers),
		MaxPeers:     v.maxPeers,
		Tunnels:      len(v.tunnels),
		Announced:    v.known.count,
		MaxAnnounced: v.maxAnnounced,
		Refused:      v.refused,
	}
	for i := range v.workers {
		w := &v.workers[i]
		s.Suppressed += w.suppressed.Load()
		s.Answered += w.answered.Load()
		s.TooBig += w.tooBig.Load()
		s.Clamped += w.clamped.Load()
	}
	return s
}

// Counters implements dataplane.Port: what came in from all peers, after
// coalescing, and what could not be told to be a tunnel's.
func (v *VTEP) Counters() *dataplane.Counters { return v.counters }

// Peers returns the peers in the order in which they were added.
func (v *VTEP) Peers() []*Peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.peers)
}

// PeerOf returns whose address it is, or nil.
func (v *VTEP) PeerOf(ip netip.Addr) *Peer {
	if !ip.IsValid() {
		return nil
	}
	return v.ends.Load().at(addrOf(ip)).peer
}

// Tunnels returns the peer's tunnels in the order in which they were added.
func (p *Peer) Tunnels() []*Tunnel {
	p.vtep.mu.Lock()
	defer p.vtep.mu.Unlock()
	return slices.Clone(p.tunnels)
}

// Heard returns the Batch.Now of the last datagram from the peer, to the
// second, and 0 if there was none. Anybody may call it at any time.
func (p *Peer) Heard() int64 { return p.heard.Load() }

// Counters implements dataplane.Port: rx is what came in by the tunnel, after
// coalescing, tx what went out, both without the outer headers.
func (t *Tunnel) Counters() *dataplane.Counters { return t.counters }

// Announced returns how many addresses are announced for the tunnel.
func (t *Tunnel) Announced() int {
	t.vtep.mu.Lock()
	defer t.vtep.mu.Unlock()
	return t.announced
}
