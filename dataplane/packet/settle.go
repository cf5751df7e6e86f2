// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package packet

import (
	"unsafe"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// scratchLen holds the longest segment: none is longer than what it is cut from.
const scratchLen = wire.VNetHdrLen + dataplane.MaxFrame

// settle sends a frame whose virtio-net header the kernel has refused, such as
// UDP GSO before Linux 6.2, after doing in software what the frame owes. It
// uses the outbox from message slot on one at a time, and returns why the
// frame was not sent, or None.
func (q *queue) settle(f *dataplane.Frame, slot int) dataplane.Drop {
	switch {
	case f.Owes.GSO():
		return q.sendSegments(f, slot)
	case f.Owes.Partial():
		if !offload.Complete(f.Bytes(), &f.Owes) {
			return dataplane.TxOffload
		}
		q.out.add(slot, f)
		return q.sendOne(slot)
	}
	return dataplane.TxRefused
}

// sendSegments cuts a GSO frame and sends the segments one by one: this is the
// way of old kernels and odd frames, 45 system calls for 64 KB.
func (q *queue) sendSegments(f *dataplane.Frame, slot int) dataplane.Drop {
	if !q.segmenter.Begin(f.Bytes(), &f.Owes) {
		return dataplane.TxOffload
	}
	iov := &q.out.iovs[slot]
	clear(q.scratch[:wire.VNetHdrLen])
	for range q.segmenter.Count() {
		n := q.segmenter.Next(q.scratch[wire.VNetHdrLen:])
		if n == 0 {
			return dataplane.TxOffload
		}
		iov.Base = unsafe.SliceData(q.scratch)
		iov.Len = uint64(wire.VNetHdrLen + n)
		if d := q.sendOne(slot); d != dataplane.None {
			return d
		}
	}
	return dataplane.None
}

// sendOne sends the message in a slot of the outbox.
func (q *queue) sendOne(slot int) dataplane.Drop {
	if _, errno := q.send(slot, slot+1); errno != 0 {
		return dropFor(errno)
	}
	return dataplane.None
}
