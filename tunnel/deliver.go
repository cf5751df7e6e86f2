// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import "heddle/dataplane"

// Push implements dataplane.Sink: the VTEP is its own. It hands each frame that
// Pull gave to the network of the tunnel that it came by, those of one tunnel
// together and in order.
func (v *VTEP) Push(b *dataplane.Batch) {
	w := &v.workers[b.Worker]
	in, all := b.In, b.Sel
	for left := all; left != 0; {
		t := w.from[dataplane.First(left)]
		var sel uint64
		bytes := 0
		for s := left; s != 0; s &= s - 1 {
			if i := dataplane.First(s); w.from[i] == t {
				sel |= 1 << i
				bytes += b.Frames[i].Len
			}
		}
		left &^= sel
		b.In, b.Sel = t.id, sel
		t.counters.Rx(b.Worker, selected(b), bytes)
		t.network.Push(b)
	}
	b.In, b.Sel = in, all
}

// FD implements dataplane.Port: the underlay's descriptor of the worker.
func (v *VTEP) FD(worker int) int { return v.under.FD(worker) }
