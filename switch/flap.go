package vswitch

import (
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// What flapping is and what follows from it.
const (
	// flapMoves is how many moves between the same two ports a MAC may make
	// within flapWindow; at the next the entry is held where it is.
	flapMoves  = 5
	flapWindow = time.Second
	// holdDown is how long it is held. Frames with this source from another
	// port are dropped meanwhile.
	holdDown = time.Second
	// flapQuiet is how long after a FlapEvent the same MAC causes no other.
	flapQuiet = 10 * time.Second

	moverSets  = 256 // A power of two.
	moverWays  = 4
	flapEvents = 256
)

// holdUntil is the part of a value that says held until then: milliseconds
// modulo 16 s, rounded up. It is unambiguous for entries seen in the last two
// seconds, and others are never held: held is set and kept when an entry is
// seen, for no longer than holdDown.
func holdUntil(then int64) value {
	ms := (then + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	return heldBit | value(ms&holdMask)<<holdShift
}

// held tells whether the entry may not move now.
func (v value) held(now int64) bool {
	if v&heldBit == 0 || int64(second(now))-int64(v.seen()) > 2 {
		return false
	}
	left := (int64(v>>holdShift) - now/int64(time.Millisecond)) & holdMask
	return left != 0 && left <= int64(holdDown/time.Millisecond)
}

// flapTable remembers the moves of the MACs that moved last: 1,024 in sets of
// four by hash. In a full set, the one whose last move is longest ago makes
// room: to forget a flapping MAC takes four others of its set that moved more
// recently, and costs no more than that it is held later. fdb.mu guards it.
type flapTable struct {
	movers [moverSets * moverWays]mover
	events [flapEvents]FlapEvent // A ring; the oldest stay.
	first  int                   // The oldest event.
	n      int                   // How many there are.
	lost   uint64                // Events that found it full.
}

// mover is a MAC's moves between two ports.
type mover struct {
	key  uint64           // As in the table; 0 is free.
	a, b dataplane.PortID // The two ports, a < b.
	made uint8            // How many of at are valid.
	next uint8            // Index in at of the oldest, if all are valid.
	seen bool             // Whether there was a FlapEvent.
	told int64            // When the last one was; valid only if seen.
	last int64            // When the MAC moved last or was kept from it.
	at   [flapMoves]int64 // When it moved, a ring.
}

// FlapEvent says that a MAC moved to and fro too often and is held down.
type FlapEvent struct {
	Network *Network
	MAC     wire.MAC
	Port    dataplane.PortID // Where it is held.
	Other   dataplane.PortID // From where its frames are dropped.
	Now     int64            // Batch.Now of the frame that was the last straw.
}

// move records a move from one port to another and tells whether it is one too
// many: then it isn't made.
func (f *flapTable) move(n *Network, key uint64, from, to dataplane.PortID, now int64) bool {
	m := f.find(key)
	a, b := min(from, to), max(from, to)
	if m.key != key {
		*m = mover{key: key, a: a, b: b}
	} else if m.a != a || m.b != b {
		m.a, m.b, m.made, m.next = a, b, 0, 0
	}
	m.last = now
	if m.made < flapMoves || now-m.at[m.next] > int64(flapWindow) {
		m.at[m.next] = now
		m.next = (m.next + 1) % flapMoves
		m.made = min(m.made+1, flapMoves)
		return false
	}
	m.made, m.next = 0, 0
	if !m.seen || now-m.told >= int64(flapQuiet) {
		m.seen, m.told = true, now
		f.tell(FlapEvent{Network: n, MAC: wire.MAC(key >> 16), Port: from, Other: to, Now: now})
	}
	return true
}

// find returns the mover of key, or the one to overwrite.
func (f *flapTable) find(key uint64) *mover {
	set := f.movers[key*0x9e3779b97f4a7c15>>32%moverSets*moverWays:][:moverWays]
	oldest := &set[0]
	for i := range set {
		m := &set[i]
		if m.key == key || m.key == 0 {
			return m
		}
		if m.last < oldest.last {
			oldest = m
		}
	}
	return oldest
}

func (f *flapTable) tell(e FlapEvent) {
	if f.n == flapEvents {
		f.lost++
		return
	}
	f.events[(f.first+f.n)%flapEvents] = e
	f.n++
}

// take moves the oldest events to buf.
func (f *flapTable) take(buf []FlapEvent) int {
	n := min(len(buf), f.n)
	for i := range n {
		buf[i] = f.events[f.first]
		f.events[f.first] = FlapEvent{}
		f.first = (f.first + 1) % flapEvents
	}
	f.n -= n
	return n
}
