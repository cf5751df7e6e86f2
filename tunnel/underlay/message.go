// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package underlay

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Datagram is what Recv gives: one UDP datagram, or several of one sender and
// size that the kernel has joined (UDP_GRO), back to back.
type Datagram struct {
	// Buf is the buffer; the bytes are Buf[Off:Off+Len]. It is the caller's
	// to write to until the worker's next Recv: at least dataplane.Headroom
	// bytes in front, and what stands behind up to len(Buf), at least
	// dataplane.MaxFrame bytes from Off on: room for a frame to grow in.
	Buf []byte
	Off int
	Len int
	// SegSize is the length of each datagram in it, the last one's may be
	// less; 1 ≤ SegSize ≤ Len, and SegSize == Len if it is a single one. An
	// empty one has Len 0 and SegSize 1.
	SegSize int
	// Src is the sender.
	Src Addr
	// TOS is the DSCP and ECN byte of the IP header: of all of them, since
	// the kernel joins no datagrams that differ in it.
	TOS uint8
}

// What one message may be (UDP_MAX_SEGMENTS of Linux before 6.9, and what an
// IPv4 packet holds).
const (
	MaxSegments = 64
	MaxMessage  = 65535 - 20 - 8
)

// Message is one or several datagrams to one destination, to be sent by one
// system call or a part of one: a super-packet that the kernel or the NIC cuts
// (UDP_SEGMENT). An Outbox builds them.
type Message struct {
	// Dest is where it goes.
	Dest *Dest
	// Iovs are the pieces, back to back: for each datagram one or two, fewer
	// where what follows each other lies so in memory.
	Iovs []unix.Iovec
	// Len is the sum of the pieces, at most MaxMessage.
	Len int
	// SegSize is the length of each datagram but the last, which may be
	// shorter. There are at most MaxSegments.
	SegSize int
	// Entropy chooses the source port: equal for one flow, spread between
	// flows. Any bits of a flow's hash.
	Entropy uint16
	// TOS is the DSCP and ECN byte of the IP header.
	TOS uint8
	// Drop is set by Send: None if all of it went, otherwise why it did not,
	// or, where its datagrams are sent one by one, why the first that failed
	// and those behind it did not.
	Drop dataplane.Drop
	// Frames and Bytes are the caller's, to count by when it is sent or
	// dropped; nothing here looks at them.
	Frames, Bytes int
}

// Size of an Outbox: a batch of dataplane.BatchSize frames of one segment
// each to different sockets, or 512 datagrams of two pieces.
const (
	OutboxMessages = dataplane.BatchSize
	outboxIovs     = 1024
)

// Outbox builds messages from datagrams: those that follow each other to one
// destination and of one flow become one message, as far as sizes allow. It
// belongs to one worker. The zero value is empty and ready; it must not be
// copied once it holds something.
type Outbox struct {
	n, iovN int
	// Of the last message:
	first int  // where in iovs it begins,
	limit int  // how long it may become,
	ended bool // and whether a shorter datagram has ended it.
	// reach is where the capacity of its last piece ends: what lies behind that
	// may be another allocation, which the piece's pointer wouldn't keep alive.
	reach uintptr
	msgs  [OutboxMessages]Message
	iovs  [outboxIovs]unix.Iovec
}

// Add appends a datagram made of a header piece and a payload piece, which may
// be empty; neither is copied, and both must stay as they are until Reset.
// Together they are 1 to MaxMessage bytes. It returns the message that the
// datagram is in, for the caller to count in Frames and Bytes, or nil if there
// is no room: then Send what is there, Reset, and Add again.
func (o *Outbox) Add(to *Dest, entropy uint16, tos uint8, header, payload []byte) *Message {
	if o.iovN > outboxIovs-2 {
		return nil
	}
	n := len(header) + len(payload)
	m := &o.msgs[max(o.n-1, 0)]
	if o.n == 0 || o.ended || m.Dest != to || n > m.SegSize || m.Len+n > o.limit || m.Entropy != entropy || m.TOS != tos {
		if o.n == OutboxMessages {
			return nil
		}
		m = &o.msgs[o.n]
		m.Dest, m.SegSize, m.Entropy, m.TOS = to, n, entropy, tos
		o.n++
		o.first, o.limit = o.iovN, min(MaxMessage, MaxSegments*n)
	}
	o.ended = n < m.SegSize
	o.piece(header)
	if len(payload) > 0 {
		o.piece(payload)
	}
	m.Iovs = o.iovs[o.first:o.iovN:o.iovN]
	m.Len += n
	return m
}

// piece appends to the last message. What lies behind its last piece, within that
// one's capacity, makes it longer: the kernel takes less time for one than for 88.
func (o *Outbox) piece(b []byte) {
	base := unsafe.SliceData(b)
	if o.iovN > o.first {
		last := &o.iovs[(o.iovN-1)&(outboxIovs-1)]
		at := uintptr(unsafe.Pointer(base))
		if uintptr(unsafe.Pointer(last.Base))+uintptr(last.Len) == at && at+uintptr(len(b)) <= o.reach {
			last.Len += uint64(len(b))
			return
		}
	}
	iov := &o.iovs[o.iovN&(outboxIovs-1)]
	iov.Base = base
	iov.SetLen(len(b))
	o.reach = uintptr(unsafe.Pointer(base)) + uintptr(cap(b))
	o.iovN++
}

// Together says that the next count datagrams, of size bytes each or the last
// one less, are better in one message: if they fit into one, but not into what is
// left of the last, the next Add begins another. A receiver that joins what comes
// together makes one frame of them.
func (o *Outbox) Together(count, size int) {
	if o.n > 0 && count*size <= min(MaxMessage, MaxSegments*size) && o.msgs[o.n-1].Len+count*size > o.limit {
		o.ended = true
	}
}

// Messages returns what there is to send, valid until Reset.
func (o *Outbox) Messages() []Message { return o.msgs[:o.n] }

// Reset empties the outbox and lets go of the caller's memory.
func (o *Outbox) Reset() {
	clear(o.iovs[:o.iovN])
	clear(o.msgs[:o.n])
	o.n, o.iovN, o.ended = 0, 0, false
}
