// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package capture

import "heddle/dataplane"

// Tap is a port that copies what passes it. Capture.Wrap makes it.
type Tap struct {
	inner dataplane.Port
	c     *Capture
	id    dataplane.PortID
}

var _ dataplane.Port = (*Tap)(nil)

// Pull implements dataplane.Port: the inner port's, and a copy of what it gave.
// A frame of 64 B costs about 15 ns, one of 1,514 B 45 ns.
func (t *Tap) Pull(b *dataplane.Batch) {
	before := b.N
	t.inner.Pull(b)
	if b.N > before {
		// Pull selects what it adds.
		t.c.rings[b.Worker].copyBatch(b, b.Sel&^(1<<before-1), t.id, In, t.c)
	}
}

// Push implements dataplane.Port: a copy of what is selected, and the inner
// port's. It copies first, because a port may settle what a frame owes.
func (t *Tap) Push(b *dataplane.Batch) {
	if b.Sel != 0 {
		t.c.rings[b.Worker].copyBatch(b, b.Sel, t.id, Out, t.c)
	}
	t.inner.Push(b)
}

// FD implements dataplane.Port: the inner port's.
func (t *Tap) FD(worker int) int { return t.inner.FD(worker) }

// Counters implements dataplane.Port: the inner port's. What a capture missed
// is no drop of the port; Capture.Missed has it.
func (t *Tap) Counters() *dataplane.Counters { return t.inner.Counters() }

// Close closes the inner port. A capture that ends puts the inner port back
// instead; it closes nothing.
func (t *Tap) Close() error { return t.inner.Close() }

// Inner returns the port that is captured.
func (t *Tap) Inner() dataplane.Port { return t.inner }
