// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"sync/atomic"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

const (
	// maxNesting is how many tunnels' own frames may be on their way on one
	// worker: a gateway may turn one round into another tunnel. Deeper is a loop.
	maxNesting = 2
	// slabLen holds the datagrams that a Push makes: those of one super-frame,
	// which is what one message takes, so that it stays in the cache from one to
	// the next. When it is full, what there is is sent.
	slabLen = 72 << 10
	// maxHeaders is the longest L2 to L4 headers of a SYN whose MSS is lowered.
	maxHeaders = 2048
	// ownFrame is room for a frame that a tunnel makes: an ICMPv6 error of
	// 1,280 bytes and its L2 header with tags.
	ownFrame = 1536
	// ports is how many source ports flows are spread over: the sockets of an
	// underlay, or a multiple.
	ports = underlay.MaxSourcePorts
)

// worker is what one worker has to itself. Only that worker writes to it.
type worker struct {
	// Of Tunnel.Push.
	out       underlay.Outbox
	slab      []byte // What is in out and was made here.
	used      int    // How much of slab is.
	segmenter offload.Segmenter
	ready     [dataplane.BatchSize]ready // Of the batch's frames.
	byPort    [ports]uint64              // Frames by source port; between calls all zero.
	touched   [ports]uint8               // Ports with frames, in the order of their first.

	// What tunnels themselves send into their networks. See made and flush.
	own   [maxNesting]dataplane.Batch
	depth int // How many of own are being pushed.

	// Of VTEP.Pull and VTEP.Push.
	datagrams []underlay.Datagram // What the last Recv gave,
	more      bool                // whether there is more behind,
	next      int                 // which of them is next,
	at        int                 // and where in it.
	coalescer offload.Coalescer
	from      [dataplane.BatchSize]*Tunnel // Of the frames of the batch that Pull filled.

	suppressed, answered, tooBig, clamped atomic.Uint64

	_ [128]byte
}

// ready is what a frame needs to be sent.
type ready struct {
	tos   uint8
	clamp uint16 // MSS to lower to, 0 to leave it.
	l4    uint16 // Valid only with clamp.
}

func (w *worker) init(v *VTEP, index int) {
	w.slab = make([]byte, slabLen)
	for i := range w.own {
		b := &w.own[i]
		b.Worker = index
		buf := make([]byte, dataplane.BatchSize*(dataplane.Headroom+ownFrame))
		for f := range b.Frames {
			b.Frames[f].Buf = buf[: dataplane.Headroom+ownFrame : dataplane.Headroom+ownFrame]
			b.Frames[f].Off = dataplane.Headroom
			buf = buf[dataplane.Headroom+ownFrame:]
		}
	}
}

// count adds to a counter that only this worker writes to.
func count(c *atomic.Uint64, n int) { c.Store(c.Load() + uint64(n)) }

// made returns a frame of n bytes, at most ownFrame, for the tunnel itself to
// fill, and the batch whose Add makes it part of what flush pushes; nil if there
// is no room, which is counted.
func (w *worker) made(t *Tunnel, b *dataplane.Batch, n int) ([]byte, *dataplane.Batch) {
	if w.depth == maxNesting || w.own[w.depth].Full() {
		t.counters.Drop(b.Worker, dataplane.TxQueueFull, 1)
		return nil, nil
	}
	own := &w.own[w.depth]
	f := own.Next()
	f.Len, f.Owes = n, wire.VNetHdr{}
	return f.Bytes(), own
}

// flush pushes what the tunnel has made into its network.
func (w *worker) flush(t *Tunnel, now int64) {
	if w.depth == maxNesting || w.own[w.depth].N == 0 {
		return
	}
	b := &w.own[w.depth]
	b.In, b.Now = t.id, now
	w.depth++
	t.counters.Rx(b.Worker, b.N, b.Bytes)
	t.network.Push(b)
	w.depth--
	b.Reset()
}
