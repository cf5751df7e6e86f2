// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// store keeps copies of frames that wait: for a MAC, or for the first fragment
// of their packet. It has a fixed number of slots, in queues that others hold
// the ends of. Its memory becomes resident as it is used.
type store struct {
	buf   []byte // Slots of slotSize.
	slots []slot // [0] is nobody's.
	free  uint16
	fresh int
	used  int
}

// slotSize is the longest frame that can wait: a jumbo frame.
const slotSize = 9216 + wire.EthHdrLen

type slot struct {
	len  uint16
	next uint16
	path uint16 // Where the frame was going to.
	owes wire.VNetHdr
}

// queue is frames in the order in which they came.
type queue struct{ head, tail, n uint16 }

// put copies a frame to the end of a queue. It returns false if it is too
// long or there is no room.
func (s *store) put(q *queue, f *dataplane.Frame, path uint16) bool {
	if f.Len > slotSize {
		return false
	}
	id := s.free
	switch {
	case id != 0:
		s.free = s.slots[id].next
	case s.fresh < len(s.slots):
		id = uint16(s.fresh)
		s.fresh++
	default:
		return false
	}
	copy(s.buf[int(id)*slotSize:], f.Bytes())
	s.slots[id] = slot{len: uint16(f.Len), path: path, owes: f.Owes}
	if q.tail == 0 {
		q.head = id
	} else {
		s.slots[q.tail].next = id
	}
	q.tail = id
	q.n++
	s.used++
	return true
}

// take moves the first frame of a queue to f, which has room for slotSize
// bytes behind f.Off, and returns where it was going to. With f nil the frame
// is lost. The queue must not be empty.
func (s *store) take(q *queue, f *dataplane.Frame) (path uint16) {
	id := q.head
	o := &s.slots[id]
	if f != nil {
		f.Len = copy(f.Buf[f.Off:], s.buf[int(id)*slotSize:int(id)*slotSize+int(o.len)])
		f.Owes = o.owes
	}
	q.head = o.next
	if q.n--; q.n == 0 {
		q.tail = 0
	}
	o.next = s.free
	s.free = id
	s.used--
	return o.path
}
