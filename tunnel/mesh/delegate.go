package mesh

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

var errTooMany = errors.New("one member too many")

// delegate is the mesh as memberlist sees it. memberlist calls NotifyAlive,
// NotifyJoin, NotifyUpdate and NotifyLeave with its own lock held.
type delegate struct{ *Mesh }

func (d delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.encode()
}

func (d delegate) NotifyMsg(msg []byte) { d.receive(msg, true) }
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}
func (d delegate) LocalState(bool) []byte                 { return d.encodeDigest() }
func (d delegate) MergeRemoteState(digest []byte, _ bool) { d.receive(digest, false) }
func (d delegate) NotifyAlive(n *memberlist.Node) error   { return d.admit(n) }
func (d delegate) NotifyJoin(n *memberlist.Node)          { d.up(n) }
func (d delegate) NotifyUpdate(n *memberlist.Node)        { d.up(n) }
func (d delegate) NotifyLeave(n *memberlist.Node)         { d.down(n) }

// AckPayload goes with the answer to a probe: the fingerprint of all that is
// known here, and how far the instances go that have changed just now.
func (d delegate) AckPayload() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := binary.BigEndian.AppendUint64([]byte{protocol}, d.fingerprint())
	for _, n := range d.news {
		if in := d.find(n.origin); in != nil && time.Since(n.at) < newsFor {
			b = binary.BigEndian.AppendUint32(b, in.instance)
			b = binary.AppendUvarint(b, in.replica.known())
		}
	}
	return b
}

// NotifyPingComplete takes a member's answer to a probe.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	o, err := parseNode(n.Name)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.find(o)
	if in == nil {
		return
	}
	in.rtt, in.suspect = rtt, time.Time{}
	r := reader{b: payload}
	if r.byte() != protocol {
		return
	}
	if sum := r.take(8); sum != nil {
		d.compare(in, binary.BigEndian.Uint64(sum))
	}
	for len(r.b) > 0 {
		id := r.take(4)
		known := r.uvarint(math.MaxUint64)
		if r.bad {
			return
		}
		d.hear(binary.BigEndian.Uint32(id), known)
	}
}

// What changed within newsFor is told with answers to probes, newsMost
// instances at most.
const (
	newsFor  = 3 * time.Second
	newsMost = 16
)

// news is an instance that has changed.
type news struct {
	origin
	at time.Time
}

// renewed notes that an instance's replica has changed. mu is held.
func (m *Mesh) renewed(o origin) {
	m.news = slices.DeleteFunc(m.news, func(n news) bool { return n.origin == o })
	if len(m.news) >= newsMost {
		m.news = slices.Delete(m.news, 0, 1)
	}
	m.news = append(m.news, news{o, time.Now()})
	m.quiet.changed = true
}

// hear takes the news that another member knows an instance so far. If gossip
// doesn't bring it soon, the instance is asked. mu is held.
func (m *Mesh) hear(instance uint32, known uint64) {
	for _, mb := range m.members {
		if in := mb.current; in != nil && in.instance == instance && mb.name != m.self.name {
			if known > in.replica.known() && known-1 > in.need.upTo {
				m.count.repair()
				m.require(in, known-1, origin{})
			}
			return
		}
	}
}

// fingerprint is one number for what is known of all live members: equal ones
// mean, but for a chance of 2^-64, equal tables. mu is held.
func (m *Mesh) fingerprint() uint64 {
	var sum uint64
	for _, mb := range m.members {
		if c := mb.current; c != nil && c.replica.synced {
			h := fnv.New64a()
			_, _ = h.Write(binary.BigEndian.AppendUint64(appendOrigin(nil, c.origin), c.replica.seq)) // Never fails (hash.Hash).
			sum += h.Sum64()
		}
	}
	return sum
}

// gossip has a message passed on to everybody. One with a name takes the place
// of an earlier one with that name.
func (m *Mesh) gossip(msg []byte, name string) {
	if name == "" {
		m.queue.QueueBroadcast(rumour{msg: msg})
	} else {
		m.queue.QueueBroadcast(namedRumour{rumour{msg}, name})
	}
	if m.queue.NumQueued() > maxQueued {
		m.queue.Prune(maxQueued) // Those go that were passed on most often.
		m.count.refuse(RefusedQueue)
	}
}

// rumour is a message in memberlist's queue.
type rumour struct{ msg []byte }

func (r rumour) Invalidates(memberlist.Broadcast) bool { return false }
func (r rumour) Message() []byte                       { return r.msg }
func (r rumour) Finished()                             {}
func (r rumour) UniqueBroadcast()                      {}

// namedRumour is one that makes earlier ones of its name pointless.
type namedRumour struct {
	rumour
	name string
}

func (r namedRumour) Name() string { return r.name }
