// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package mem

import (
	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// pushSettled sends a frame that the port can't take as it is: completed, or
// cut into segments, which it writes straight into the ring. It returns how
// many frames and bytes went out and counts what didn't, segment by segment.
func (p *Port) pushSettled(q *queue, worker int, f *dataplane.Frame) (frames, bytes int) {
	if f.Owes.GSO() {
		return p.pushSegments(q, worker, f)
	}
	d := dataplane.TxOffload
	if offload.Complete(f.Bytes(), &f.Owes) {
		if d = q.out.put(f.Bytes(), f.Owes); d == dataplane.None {
			return 1, f.Len
		}
	}
	p.counters.Drop(worker, d, 1)
	return 0, 0
}

func (p *Port) pushSegments(q *queue, worker int, f *dataplane.Frame) (frames, bytes int) {
	if !q.segmenter.Begin(f.Bytes(), &f.Owes) {
		p.counters.Drop(worker, dataplane.TxOffload, 1)
		return 0, 0
	}
	count := q.segmenter.Count()
	for ; frames < count; frames++ {
		s, d := q.out.reserve(offload.SegmentLen(f.Bytes(), &f.Owes))
		if d != dataplane.None {
			p.counters.Drop(worker, d, count-frames)
			break
		}
		s.n = q.segmenter.Next(s.buf[dataplane.Headroom:])
		s.owes = wire.VNetHdr{}
		bytes += s.n
		q.out.filled++
	}
	return frames, bytes
}
