// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package mem

import (
	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// settle puts a frame that the port can't take as it is into the ring:
// completed, or cut into segments. It returns why not, or None.
func (q *queue) settle(f *dataplane.Frame) dataplane.Drop {
	if f.Owes.GSO() {
		return q.putSegments(f)
	}
	if !offload.Complete(f.Bytes(), &f.Owes) {
		return dataplane.TxOffload
	}
	return q.out.put(f.Bytes(), f.Owes)
}

// putSegments cuts a GSO frame straight into the ring. The first segment that
// finds no room ends it, and counts as the whole.
func (q *queue) putSegments(f *dataplane.Frame) dataplane.Drop {
	if !q.segmenter.Begin(f.Bytes(), &f.Owes) {
		return dataplane.TxOffload
	}
	for range q.segmenter.Count() {
		s, d := q.out.reserve(offload.SegmentLen(f.Bytes(), &f.Owes))
		if d != dataplane.None {
			return d
		}
		s.n = q.segmenter.Next(s.buf[dataplane.Headroom:])
		s.owes = wire.VNetHdr{}
		q.out.filled++
	}
	return dataplane.None
}
