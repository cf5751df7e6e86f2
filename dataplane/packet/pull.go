// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package packet

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

const (
	// bufStart is where Frame.Buf begins in a slot: after tpacket2_hdr and
	// the sockaddr_ll behind it (TPACKET2_HDRLEN), so that no writer of
	// headroom can reach the status word.
	bufStart = 52
	// slabStart is what a frame in the slab has before it: the headroom, which
	// is whole also after a tag is put back.
	slabStart = dataplane.Headroom + wire.VLANTagLen
	// minMAC is the least tp_mac with which it is so in a slot.
	minMAC = bufStart + slabStart
	// line is what the slab's frames are laid out by: a cache line.
	line = 64
)

// queue is one worker's socket and ring. Only that worker uses it between Open
// and Close.
type queue struct {
	// Immutable after Open.
	fd    int
	ring  []byte   // The mapping.
	slots [][]byte // Its slots, in the order in which the kernel fills them.

	next int // The slot that is looked at next.
	lent int // How many slots before next are still to be given back.
	// idle is set by a Pull that found nothing. Epoll wakes no worker for
	// nothing, so that two of them in a row mean that the socket has an error.
	idle bool

	out       outbox
	segmenter offload.Segmenter
	scratch   []byte // Where segments are made.

	_ [128]byte // Two cache lines, which the next worker's queue has none of.
}

// Pull implements dataplane.Port. Frames that fit a slot lie in the ring: one
// costs the cache misses of its slot's header and two atomic accesses to the
// status word, 22 ns in a batch of 32, given back and all. Longer ones are read
// into b.Slab, with a system call each. Others it makes only after a loss and on
// an error.
func (p *Port) Pull(b *dataplane.Batch) {
	q := &p.queues[b.Worker]
	q.giveBack()
	frames, bytes := b.N, b.Bytes
	seen, at := uint32(0), slabStart
	vain := 0 // Bytes that were read and dropped: they take their time too.
	for q.lent < len(q.slots) && !b.Full() && b.Bytes-bytes+vain < dataplane.PullBytes {
		slot := q.slots[q.next]
		hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
		status := atomic.LoadUint32(&hdr.Status)
		if status&unix.TP_STATUS_USER == 0 {
			break
		}
		seen |= status
		q.lent++
		if q.next++; q.next == len(q.slots) {
			q.next = 0
		}
		f, long := b.Next(), status&unix.TP_STATUS_COPY != 0
		var d dataplane.Drop
		if long {
			d = read(q.fd, f, b.Slab, at, hdr)
		} else {
			d = lend(f, slot, hdr)
		}
		if d == dataplane.None {
			d = restore(f, hdr, status)
		}
		if d != dataplane.None {
			p.counters.Drop(b.Worker, d, 1)
			if long {
				vain += int(hdr.Len)
			}
			continue
		}
		if long {
			at = slabStart + (f.Off+f.Len+line-1)&^(line-1)
		}
		b.Add()
	}
	if b.N > frames {
		p.counters.Rx(b.Worker, b.N-frames, b.Bytes-bytes)
	}
	if seen&unix.TP_STATUS_LOSING != 0 {
		p.countLost(q.fd, b.Worker)
	}
	b.More = q.lent > 0
	if q.lent == 0 && q.idle {
		q.clearError()
	}
	q.idle = q.lent == 0
}

// giveBack ends the loan of the last Pull's frames.
func (q *queue) giveBack() {
	i := q.next - q.lent
	if i < 0 {
		i += len(q.slots)
	}
	for ; q.lent > 0; q.lent-- {
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&q.slots[i][0])), unix.TP_STATUS_KERNEL)
		if i++; i == len(q.slots) {
			i = 0
		}
	}
}

// lend describes by f the frame that lies in a slot. It returns why the frame
// goes no further, or None.
func lend(f *dataplane.Frame, slot []byte, hdr *unix.Tpacket2Hdr) dataplane.Drop {
	mac, n := int(hdr.Mac), int(hdr.Snaplen)
	if hdr.Snaplen != hdr.Len {
		return dataplane.RxKernel // Longer than a slot, and no room in the receive buffer.
	}
	if mac < minMAC || n > len(slot)-mac {
		return dataplane.RxTruncated
	}
	f.Buf, f.Off, f.Len = slot[bufStart:], mac-bufStart, n
	return dataplane.None
}

// read reads the frame of a slot that shows no more than its beginning to
// slab[at:], its virtio-net header in front. The kernel has queued it at the
// socket, in the order of the slots (tpacket_rcv in net/packet/af_packet.c). It
// describes the frame by f, or returns why it goes no further.
func read(fd int, f *dataplane.Frame, slab []byte, at int, hdr *unix.Tpacket2Hdr) dataplane.Drop {
	n := int(hdr.Len)
	if n > dataplane.MaxFrame {
		n = 0 // No more of it than it takes to be rid of it.
	}
	to := slab[at-wire.VNetHdrLen:][:wire.VNetHdrLen+n]
	got, errno := receive(fd, to)
	if errno != 0 {
		// What has befallen the interface (sock_error) is told once, and first.
		got, errno = receive(fd, to)
	}
	if errno != 0 {
		return dataplane.RxKernel
	}
	if got != len(to) {
		return dataplane.RxTruncated
	}
	f.Buf, f.Off, f.Len = slab, at, n
	return dataplane.None
}

// receive takes the first frame of the socket's queue and returns its length,
// its virtio-net header's included, of which b has what fits.
func receive(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(n), errno
}

// restore takes in what the kernel tells beside a frame: what it owes, by the
// virtio-net header in front of it, and its tag. It returns why the frame goes
// no further, or None.
func restore(f *dataplane.Frame, hdr *unix.Tpacket2Hdr, status uint32) dataplane.Drop {
	vnet := f.WithHeadroom(wire.VNetHdrLen)[:wire.VNetHdrLen]
	f.Owes = wire.VNetHdr{Flags: vnet[0]}
	owes := vnet[0]&wire.VNetNeedsCsum != 0 || vnet[1] != wire.VNetGSONone
	if owes {
		f.Owes.Decode(vnet)
	}
	if status&unix.TP_STATUS_VLAN_VALID != 0 && !restoreTag(f, hdr, status) {
		return dataplane.RxBadOffload
	}
	if f.Len > dataplane.MaxFrame {
		return dataplane.RxTruncated
	}
	if owes && !offload.Check(f.Bytes(), &f.Owes) {
		return dataplane.RxBadOffload
	}
	return dataplane.None
}

// restoreTag puts the tag that came beside the frame back between its MACs and
// its EtherType, or returns false if the frame has no place for one.
func restoreTag(f *dataplane.Frame, hdr *unix.Tpacket2Hdr, status uint32) bool {
	tpid := uint16(wire.EtherTypeVLAN)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = hdr.Vlan_tpid
	}
	if !offload.InsertVLAN(f.WithHeadroom(wire.VLANTagLen), hdr.Vlan_tci, tpid, &f.Owes) {
		return false
	}
	f.Off -= wire.VLANTagLen
	f.Len += wire.VLANTagLen
	return true
}
