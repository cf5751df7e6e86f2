package vswitch

import (
	"time"

	"heddle/dataplane"
)

// lockTries is how often a worker tries for the FDB's lock in one batch before
// it leaves learning to the next: about 10 µs, longer than control code holds
// it unless the kernel takes its CPU meanwhile.
const lockTries = 2000

// learn records that the source key was seen on the port in, and tells None or
// why the frame goes no further. v is what find said just now, and is not
// already what is to be recorded. tries is how often the lock may still be
// tried for. A refresh, once a second for each MAC, costs 40 ns, a new MAC
// 200, in a full table of a million 1,000.
func (t *fdb) learn(n *Network, ageing uint32, in *slot, key uint64, home uint32, v value, now int64, tries *int) dataplane.Drop {
	if v != 0 && v.port() != in.id && v.live(second(now), ageing) {
		if v.static() || v.announced() && in.role != Ordinary {
			return dataplane.None
		}
		if v.held(now) {
			return dataplane.MACFlapping
		}
	}
	for !t.mu.TryLock() {
		if *tries--; *tries < 0 {
			n.contended.Add(1)
			return dataplane.None
		}
	}
	d := t.record(n, ageing, in, key, home, now)
	t.mu.Unlock()
	return d
}

// record is learn with the lock held.
func (t *fdb) record(n *Network, ageing uint32, slot *slot, key uint64, home uint32, now int64) dataplane.Drop {
	in := slot.id
	if p := &t.ports[in]; p.net != n || p.closing {
		return dataplane.None // Detached while the batch was on its way.
	}
	sec := t.tick(now)
	at := t.locate(key, home)
	if at == none {
		if t.insert(n, key, home, newValue(in, sec)) {
			n.learned++
		}
		return dataplane.None
	}
	v := value(t.cells[at].val.Load())
	if v.static() || v.announced() && (v.port() == in || slot.role != Ordinary) {
		return dataplane.None
	}
	next := newValue(in, sec)
	switch {
	case v.port() == in:
		if v.held(now) {
			next |= v & holdBits
		}
	case !v.live(sec, ageing):
		n.learned++
	case v.announced():
		n.moves++ // The station has come here: no flapping, however often it is announced elsewhere.
	case v.held(now):
		return dataplane.MACFlapping
	case t.flaps.move(n, key, v.port(), in, now):
		n.held++
		t.cells[at].val.Store(uint64(v&^holdBits | holdUntil(now+int64(holdDown))))
		return dataplane.MACFlapping
	default:
		n.moves++
	}
	t.pull(at, v)
	t.push(at, next)
	t.cells[at].val.Store(uint64(next))
	if v.port() != in {
		t.resize(v.port())
		t.resize(in)
	}
	if n.macs > n.maxMACs {
		// MaxMACs was lowered below what is announced, and this was a part of it.
		t.evict(&n.crowd)
	}
	return dataplane.None
}

// tick advances the clock to now, and returns the second it shows.
func (t *fdb) tick(now int64) uint32 {
	if s := second(now); s > t.clock {
		t.clock = s
	}
	return t.clock
}

// second is a time in whole seconds since the engine started.
func second(now int64) uint32 { return uint32(now / int64(time.Second)) }
