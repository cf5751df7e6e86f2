// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package underlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

const (
	line = 64 // Length of a cache line.
	// slotLen is headroom and a datagram, or what a frame in it may grow to,
	// behind an outer header. It is three lines more than a multiple of 4 KB,
	// so that the slots' first lines don't compete for one set of the cache.
	slotLen = dataplane.Headroom + 8 + dataplane.MaxFrame + line&^(line-1)
	slots   = dataplane.BatchSize
	// minAsk is how many messages a Recv asks for at least.
	minAsk = 2
	// controlLen holds control messages of UDP_GRO and the TOS byte.
	controlLen = 64
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// receiver is one worker's way in: its socket and where its datagrams lie,
// 4 MB of address space, of which only what is used takes memory. It is mapped
// and not allocated, so that close gives it back at once.
type receiver struct {
	fd   int
	ask  int // How many messages the next Recv asks for.
	used int // How many of hdrs the kernel has written to.
	slab []byte

	in      [slots]Datagram
	hdrs    [slots]mmsghdr
	iovs    [slots]unix.Iovec
	names   [slots][unix.SizeofSockaddrInet6]byte
	control [slots][controlLen]byte
}

// newReceiver takes over the socket, also where it fails.
func newReceiver(fd int) (*receiver, error) {
	slab, err := unix.Mmap(-1, 0, slots*slotLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map %d bytes to receive in: %w", slots*slotLen, err)
	}
	r := &receiver{fd: fd, ask: minAsk, used: slots, slab: slab}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.slab[i*slotLen+dataplane.Headroom]
		r.iovs[i].SetLen(slotLen - dataplane.Headroom)
		h := &r.hdrs[i].hdr
		h.Iov, h.Iovlen = &r.iovs[i], 1
		h.Name, h.Control = &r.names[i][0], &r.control[i][0]
	}
	return r, nil
}

// close gives back the socket and the memory: what Recv has returned is gone.
func (r *receiver) close() error {
	clear(r.in[:])
	return errors.Join(unix.Close(r.fd), unix.Munmap(r.slab))
}

// Recv returns the datagrams that have arrived, none if there are none; it
// never blocks. They are valid, and the caller's to write to, until the
// worker's next Recv, however many rounds later that is: what doesn't fit a
// batch can wait there. One system call.
//
// It returns about dataplane.PullBytes at most, and up to dataplane.BatchSize.
// more tells that it ended for that reason: another Recv is worth its cost.
func (u *Underlay) Recv(worker int) (in []Datagram, more bool) {
	r := u.receivers[worker]
	for i := range r.hdrs[:r.used] {
		h := &r.hdrs[i].hdr
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(controlLen)
	}
	r.used = 0
	got, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.hdrs[0])), uintptr(r.ask), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		// EAGAIN. An error that waited at the socket is gone by having been
		// reported; what it was about concerns nobody here.
		return nil, false
	}
	r.used = int(got)
	more = r.used == r.ask
	n, bytes := 0, 0
	for i := range r.hdrs[:r.used] {
		if r.describe(i, &r.in[n]) {
			bytes += r.in[n].Len
			n++
		}
	}
	r.ask = min(max(dataplane.PullBytes*r.used/max(bytes, 1), minAsk), slots)
	return r.in[:n], more
}

// describe fills in a Datagram from the i-th message. It returns false for one
// that is longer than a slot.
func (r *receiver) describe(i int, d *Datagram) bool {
	m := &r.hdrs[i]
	if m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return false
	}
	d.Buf = r.slab[i*slotLen:][:slotLen:slotLen]
	d.Off, d.Len, d.SegSize = dataplane.Headroom, int(m.len), max(int(m.len), 1)
	d.Src = sourceOf(&r.names[i])
	d.TOS = 0
	control := r.control[i][:min(int(m.hdr.Controllen), controlLen)]
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(control)))
		size := int(h.Len)
		if size <= unix.SizeofCmsghdr || size > len(control) {
			break
		}
		switch data := control[unix.SizeofCmsghdr:]; {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if seg := int(binary.NativeEndian.Uint32(data)); seg > 0 {
				d.SegSize = min(seg, d.SegSize)
			}
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS:
			d.TOS = data[0] // One byte, where IPv6 has an int.
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			d.TOS = uint8(binary.NativeEndian.Uint32(data))
		}
		control = control[min((size+7)&^7, len(control)):] // CMSG_ALIGN.
	}
	return true
}

// sourceOf returns the address in a struct sockaddr_in or sockaddr_in6.
func sourceOf(name *[unix.SizeofSockaddrInet6]byte) Addr {
	a := Addr{Port: binary.BigEndian.Uint16(name[2:])}
	if binary.NativeEndian.Uint16(name[:]) == unix.AF_INET {
		a.Lo = 0xffff<<32 | uint64(binary.BigEndian.Uint32(name[4:]))
		return a
	}
	a.Hi, a.Lo = binary.BigEndian.Uint64(name[8:]), binary.BigEndian.Uint64(name[16:])
	return a
}
