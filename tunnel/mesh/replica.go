package mesh

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Bounds of what one replica keeps besides its entries.
const (
	maxPending = 4096 // Changes that came before the ones that they follow.
	maxLog     = 1024 // Own changes that are kept to repair others' gaps without sending all.
)

// replica is what one instance announces, up to the change numbered seq. Its
// entries change only through the table, which knows who owns what.
type replica struct {
	origin
	seq      uint64
	synced   bool // All up to seq is known. Of a new instance nothing is, not even that it announces nothing.
	entries  map[key]record
	networks map[uint32]string
	pending  map[uint64]delta // By first; beyond seq + 1.
	waiting  int              // Changes in pending.
}

func newReplica(o origin) *replica {
	return &replica{origin: o, entries: map[key]record{}, networks: map[uint32]string{}, pending: map[uint64]delta{}}
}

// known is seq as msgWant and msgDigest tell it.
func (r *replica) known() uint64 {
	if !r.synced {
		return 0
	}
	return r.seq + 1
}

// encodeState writes all of it as a msgState.
func (r *replica) encodeState() []byte {
	b := make([]byte, 0, 64+len(r.entries)*(minEndpoint+5))
	b = append(b, begin(msgState)...)
	b = binary.AppendUvarint(appendOrigin(b, r.origin), r.seq)
	b = binary.AppendUvarint(b, uint64(len(r.networks)))
	for _, vni := range slices.Sorted(maps.Keys(r.networks)) {
		b = appendNetwork(b, vni, r.networks[vni])
	}
	b = binary.AppendUvarint(b, uint64(len(r.entries)))
	for k, rec := range r.entries {
		b = appendRecord(appendKey(b, k), rec)
	}
	return b
}

// encodeDelta writes changes as one msgDelta.
func encodeDelta(o origin, first uint64, changes []change) []byte {
	b := binary.AppendUvarint(appendOrigin(begin(msgDelta), o), first)
	for _, c := range changes {
		b = appendChange(b, c)
	}
	return b
}

// local is what this instance announces, and what it would announce.
type local struct {
	*replica
	wanted map[key]addrs // Announced by the daemon; entries lacks those that have moved away.
	log    []change      // The last changes; log[len-1] has number seq.
	unsent int           // How many of them wait for the flush.
}

// logged returns the changes after number seq, if they are all still there.
func (l *local) logged(seq uint64) ([]change, bool) {
	n := l.seq - seq
	if seq > l.seq || n > uint64(len(l.log)) {
		return nil, false
	}
	return l.log[uint64(len(l.log))-n:], true
}

// note numbers a change of this instance's.
func (l *local) note(c change) {
	l.seq++
	l.unsent++
	l.log = append(l.log, c)
	if len(l.log) > 2*maxLog {
		l.log = append(l.log[:0], l.log[len(l.log)-maxLog:]...)
	}
}
