package mesh

import (
	"errors"
	"slices"
	"sync/atomic"
)

// Kind is a kind of message that is counted by itself.
type Kind uint8

// Kinds. Packet and stream are whole UDP datagrams and TCP streams of the
// gossip, encrypted, memberlist's own messages included; the others are what
// they carry for the mesh, before encryption.
const (
	KindPacket  Kind = iota // UDP payload.
	KindStream              // Bytes of a TCP stream.
	KindDelta               // Changes of one member.
	KindState               // All that a member announces.
	KindDigest              // How far a member knows each other one.
	KindRequest             // Asking for any of these.
	KindMessage             // Good-byes and sequence numbers.
	KindCount               // How many kinds there are.
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	return [...]string{"packet", "stream", "delta", "state", "digest", "request", "message"}[k]
}

// SizeBounds are the upper bounds, in bytes, of the buckets of Sizes but the
// last, which has none.
var SizeBounds = [...]int{32, 64, 128, 256, 512, 1024, 4096, 16384, 65536, 1 << 20}

// Sizes counts messages by size.
type Sizes struct {
	Count, Bytes uint64
	Buckets      [len(SizeBounds) + 1]uint64 // Not cumulative.
}

// Refusal is a reason why something that came from the network was not taken.
type Refusal uint8

// Refusals.
const (
	RefusedKey       Refusal = iota // Not encrypted with a key of this mesh.
	RefusedMalformed                // Authentic (or not encrypted) and no message of the mesh.
	RefusedVersion                  // Of a version of the protocol that this host doesn't speak.
	RefusedSize                     // Longer than any message may be.
	RefusedStreams                  // Too many streams at one time.
	RefusedQueue                    // A queue was full; it is asked for again.
	RefusedMember                   // One member more than MaxMembers, or a bad name.
	RefusedEndpoint                 // One endpoint more than MaxEndpoints or MaxTable.
	RefusedNetwork                  // One network more than MaxNetworks.
	RefusedName                     // A second live host with a member's name that has come, and has left again.
	RefusalCount                    // How many reasons there are.
)

// String returns the reason as a word for metrics.
func (r Refusal) String() string {
	return [...]string{"wrong-key", "malformed", "version", "too-long", "streams", "queue-full",
		"members", "endpoints", "networks", "name-taken"}[r]
}

// Stats is what a Mesh has counted.
type Stats struct {
	In, Out [KindCount]Sizes
	Refused [RefusalCount]uint64

	Gaps      uint64 // Times that a change was missing and asked for.
	Repairs   uint64 // Times that another member turned out to know more.
	Rejoins   uint64 // Times that a lost address was tried.
	Moves     uint64 // Endpoints that went from one owner to another.
	Queued    int    // Messages that wait to be gossiped.
	Endpoints int    // Endpoints in the table, this host's included.
}

// counters are Stats while they grow. All methods may be called from anywhere.
type counters struct {
	sizes   [2][KindCount]sizes // In, out.
	refused [RefusalCount]atomic.Uint64
	gaps    atomic.Uint64
	repairs atomic.Uint64
	rejoins atomic.Uint64
}

type sizes struct {
	bytes   atomic.Uint64
	buckets [len(SizeBounds) + 1]atomic.Uint64
}

func (s *sizes) add(n int) {
	i, _ := slices.BinarySearch(SizeBounds[:], n) // The first bound that is no less.
	s.bytes.Add(uint64(n))
	s.buckets[i].Add(1)
}

func (s *sizes) read() (v Sizes) {
	v.Bytes = s.bytes.Load()
	for i := range s.buckets {
		v.Buckets[i] = s.buckets[i].Load()
		v.Count += v.Buckets[i]
	}
	return v
}

func (c *counters) in(k Kind, n int)  { c.sizes[0][k].add(n) }
func (c *counters) out(k Kind, n int) { c.sizes[1][k].add(n) }
func (c *counters) refuse(r Refusal)  { c.refused[r].Add(1) }
func (c *counters) gap()              { c.gaps.Add(1) }
func (c *counters) repair()           { c.repairs.Add(1) }
func (c *counters) rejoin()           { c.rejoins.Add(1) }

// refuseMessage counts a message that could not be read.
func (c *counters) refuseMessage(err error) {
	if errors.Is(err, errVersion) {
		c.refuse(RefusedVersion)
	} else {
		c.refuse(RefusedMalformed)
	}
}

// Stats returns what has been counted since New.
func (m *Mesh) Stats() Stats {
	var s Stats
	for k := range KindCount {
		s.In[k], s.Out[k] = m.count.sizes[0][k].read(), m.count.sizes[1][k].read()
	}
	for r := range RefusalCount {
		s.Refused[r] = m.count.refused[r].Load()
	}
	s.Gaps, s.Repairs, s.Rejoins = m.count.gaps.Load(), m.count.repairs.Load(), m.count.rejoins.Load()
	s.Queued = m.queue.NumQueued()
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Moves, s.Endpoints = m.table.moves, len(m.table.slots)
	return s
}
