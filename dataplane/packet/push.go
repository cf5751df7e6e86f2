// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package packet

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// outbox is what one sendmmsg(2) sends: a message for each frame, of one piece
// each. Its iovecs point into the frames during a Push and nowhere after.
type outbox struct {
	msgs [dataplane.BatchSize]mmsghdr
	iovs [dataplane.BatchSize]unix.Iovec
	of   [dataplane.BatchSize]uint8 // The index in the batch of each message's frame.
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// init ties each message to its iovec. The outbox must not move afterwards.
func (o *outbox) init() {
	for i := range o.msgs {
		o.msgs[i].hdr.Iov = &o.iovs[i]
		o.msgs[i].hdr.Iovlen = 1
	}
}

// add puts a frame into the outbox, behind the virtio-net header that tells
// the kernel what it owes: the header is written into the frame's headroom.
func (o *outbox) add(n int, f *dataplane.Frame) {
	piece := f.WithHeadroom(wire.VNetHdrLen)
	var h wire.VNetHdr
	if f.Owes.Partial() || f.Owes.GSO() {
		h = f.Owes
		h.Flags &= wire.VNetNeedsCsum // Nothing else is for the sender to say.
		// The kernel puts that many bytes of a long frame in one piece of
		// memory (packet_snd in net/packet/af_packet.c): the headers, not all
		// that whoever made the frame had in one piece.
		h.HdrLen = uint16(offload.HeaderLen(f.Bytes(), &f.Owes))
	}
	h.Encode(piece)
	o.iovs[n].Base = unsafe.SliceData(piece)
	o.iovs[n].Len = uint64(len(piece))
}

// Push implements dataplane.Port. What it does itself takes 10 ns a frame. The
// system call on a veth runs the receiving stack too: to where a stack without
// a listener drops the frame, 2 µs for 64 B and 6 µs for 64 KB.
func (p *Port) Push(b *dataplane.Batch) {
	q := &p.queues[b.Worker]
	o := &q.out
	n, bytes := 0, 0
	for s := b.Sel; s != 0; s &= s - 1 {
		i := dataplane.First(s)
		o.add(n, &b.Frames[i])
		o.of[n] = uint8(i)
		bytes += b.Frames[i].Len
		n++
	}
	frames := n
	for done := 0; done < n; {
		sent, errno := q.send(done, n)
		done += sent
		if errno == 0 {
			continue
		}
		lost, d := 1, dropFor(errno)
		switch {
		case d == dataplane.TxDown:
			lost = n - done
		case errno == unix.EINVAL:
			d = q.settle(&b.Frames[o.of[done]], done)
		}
		if d != dataplane.None {
			for _, i := range o.of[done : done+lost] {
				bytes -= b.Frames[i].Len
			}
			p.counters.Drop(b.Worker, d, lost)
			frames -= lost
		}
		done += lost
	}
	clear(o.iovs[:n])
	if frames > 0 {
		p.counters.Tx(b.Worker, frames, bytes)
	}
}

// send sends the messages from first to end, and returns how many went out,
// or 0 and the error of the first one. It returns early, without an error,
// where one in the middle fails.
//
// The first send after an interface came back up reports the error of its
// having been down (sock_error): what is down is asked a second time.
func (q *queue) send(first, end int) (int, syscall.Errno) {
	n, errno := sendmmsg(q.fd, q.out.msgs[first:end])
	if errno != 0 && dropFor(errno) == dataplane.TxDown {
		n, errno = sendmmsg(q.fd, q.out.msgs[first:end])
	}
	return n, errno
}

// sendmmsg sends messages until one fails, and returns how many went out, or
// the error of the first.
func sendmmsg(fd int, msgs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// dropFor returns what an errno of sendmmsg means for the frame.
func dropFor(errno syscall.Errno) dataplane.Drop {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return dataplane.TxQueueFull
	case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EIO, unix.EBADF:
		return dataplane.TxDown
	}
	return dataplane.TxRefused
}
