// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// maxPaths bounds gateways and uplinks together. Path 0 is none.
const maxPaths = 4096 + 256

// maxNesting is how many calls of Push may be on a worker's stack: a frame
// that goes from an uplink into a network whose gateway it reaches again.
const maxNesting = 2

// worker is what one worker has to itself.
type worker struct {
	turns [maxNesting]turn
	flows [maxFlows]flow
	depth int           // How many of turns are in use.
	stray atomic.Uint64 // Frames in a loop, or of a link that was removed.
	tick  dataplane.Batch
	spent *dataplane.Counters // Of what Tick drops.
	_     [128]byte
}

// turn is what one call of Push works with. Between calls masks and drops are
// zero.
type turn struct {
	nat *NAT
	b   *dataplane.Batch
	f   *dataplane.Frame // The frame at hand.
	p   packet           // Its packet.
	now uint32           // Tick.

	flows  *[maxFlows]flow // The worker's.
	missed int             // Frames of the last batch that no short cut served.
	primed uint32          // See prime.

	masks   [maxPaths]uint64 // The frames for a path.
	touched [dataplane.BatchSize]uint16
	paths   int // How many of touched are valid.

	drops   [dataplane.DropCount]int
	dropped bool

	out outbox

	// How the frame at hand was translated, for the fragments that follow it.
	done  [2]rewrite
	dones int
	// turned tells that it was answered, for the same.
	turned bool
	last   struct { // Where it was delivered.
		path  uint16
		addr  addr
		fresh uint32 // Until when its MAC is believed.
	}
}

// outbox is frames that Heddle makes or has kept, and where they go.
type outbox struct {
	dataplane.Batch
	to [dataplane.BatchSize]uint16
}

// etherTypeOf returns the EtherType of a frame that has one.
func etherTypeOf(f *dataplane.Frame) uint16 {
	return binary.BigEndian.Uint16(f.Bytes()[wire.EthTypeOff:])
}

func (t *turn) drop(d dataplane.Drop, n int) {
	t.drops[d] += n
	t.dropped = true
}

// send puts frame i of the batch on a path.
func (t *turn) send(i int, path uint16) {
	if t.masks[path] == 0 {
		t.touched[t.paths&(dataplane.BatchSize-1)] = path
		t.paths++
	}
	t.masks[path] |= 1 << i
}

// spare returns a frame of the outbox with room for slotSize bytes, or nil if
// all are taken, which is counted. It is sent where route says.
func (t *turn) spare() *dataplane.Frame {
	if t.out.Full() {
		t.drop(dataplane.TxQueueFull, 1)
		return nil
	}
	f := t.out.Next()
	f.Owes = wire.VNetHdr{}
	return f
}

// route sends the frame that spare returned last.
func (t *turn) route(path uint16) {
	t.out.to[t.out.N&(dataplane.BatchSize-1)] = path
	t.out.Add()
}

// open begins a turn for frames that came to a link, or for none, with the NAT
// locked; nil if there are too many turns, or the link is gone.
func (n *NAT) open(b *dataplane.Batch, l *link) *turn {
	w := &n.workers[b.Worker]
	if w.depth == maxNesting {
		w.lose(b)
		return nil
	}
	n.mu.Lock()
	if l != nil && n.links[l.path] != l {
		n.mu.Unlock()
		w.lose(b)
		return nil
	}
	t := &w.turns[w.depth]
	w.depth++
	t.b, t.now = b, tickOf(b.Now)
	n.table.advance(t.now, agedPerTurn)
	return t
}

func (w *worker) lose(b *dataplane.Batch) {
	w.stray.Store(w.stray.Load() + uint64(bits.OnesCount64(b.Sel)))
}

// agedPerTurn bounds the connections that a batch looks at for ageing.
const agedPerTurn = 128

// close ends the turn: it unlocks the NAT, pushes the frames on their paths
// and counts those that go no further.
func (t *turn) close(counters *dataplane.Counters) {
	n, b := t.nat, t.b
	n.mu.Unlock()
	sel, in := b.Sel, b.In
	for _, path := range t.touched[:t.paths] {
		b.Sel = t.masks[path]
		t.masks[path] = 0
		n.paths[path].Load().push(b)
	}
	t.paths = 0
	b.Sel, b.In = sel, in
	if t.out.N > 0 {
		t.flush()
	}
	if t.dropped {
		t.dropped = false
		for d := range t.drops {
			if c := t.drops[d]; c != 0 {
				counters.Drop(b.Worker, dataplane.Drop(d), c)
				t.drops[d] = 0
			}
		}
	}
	n.workers[b.Worker].depth--
}

// flush pushes the frames of the outbox, those of one path together.
func (t *turn) flush() {
	o := &t.out
	o.Worker, o.Now = t.b.Worker, t.b.Now
	for left := o.Sel; left != 0; {
		path := o.to[dataplane.First(left)]
		o.Sel = 0
		for s := left; s != 0; s &= s - 1 {
			if o.to[dataplane.First(s)] == path {
				o.Sel |= s & -s
			}
		}
		left &^= o.Sel
		t.nat.paths[path].Load().push(&o.Batch)
	}
	o.Reset()
}

// path is a way out. It never changes: control code puts another in its place.
type path struct {
	port     dataplane.Port      // An uplink's port.
	sink     dataplane.Sink      // A gateway's network.
	id       dataplane.PortID    // The gateway's port on it.
	counters *dataplane.Counters // The gateway's.
}

func (p *path) push(b *dataplane.Batch) {
	switch {
	case p == nil: // Removed after the frames were routed, or path 0, which is none.
	case p.port != nil:
		p.port.Push(b)
	default:
		n := 0
		for s := b.Sel; s != 0; s &= s - 1 {
			n += b.Frames[dataplane.First(s)].Len
		}
		p.counters.Rx(b.Worker, bits.OnesCount64(b.Sel), n)
		b.In = p.id
		p.sink.Push(b)
	}
}
