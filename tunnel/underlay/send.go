// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package underlay

import (
	"encoding/binary"
	"math/bits"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Layout of a message's control buffer: UDP_SEGMENT's message, then the TOS
// byte's; either alone or both are handed to the kernel.
const (
	segmentSpace = 16 + 8 // CMSG_SPACE of an uint16.
	tosSpace     = 16 + 8 // CMSG_SPACE of an int.
	segmentLen   = 16 + 2
	tosLen       = 16 + 4
)

// sender is one worker's way out. What it points to is the caller's during a
// Send and nothing afterwards.
type sender struct {
	out  [MaxSegments]outgoing // The messages of one source port,
	hdrs [MaxSegments]mmsghdr  // each with its header.

	// A message whose datagrams are sent one by one, likewise.
	each     [MaxSegments]outgoing
	eachHdrs [MaxSegments]mmsghdr
	eachIovs [3 * MaxSegments]unix.Iovec // Two pieces each, and one more where a piece is cut.

	// Messages of one Send by their source port: lists through next.
	ports       uint64 // A bit for each that has any.
	first, last [MaxSourcePorts]uint8
	next        [MaxSegments]uint8
}

// outgoing is what belongs to a header.
type outgoing struct {
	control [segmentSpace + tosSpace]byte
	of      uint8 // The index of the message.
}

// Send sends the messages, those of one flow in order, and sets Drop of each:
// None, TxQueueFull, TxDown, TxRefused, or ExceedsMTU for a datagram that is
// longer than the device's MTU: nothing is ever fragmented. One system call for
// the messages of one source port. It never blocks.
func (u *Underlay) Send(worker int, msgs []Message) {
	s := u.outs[worker]
	for len(msgs) > 0 {
		n := min(len(msgs), MaxSegments)
		s.sort(msgs[:n], len(u.sources))
		for p := s.ports; p != 0; p &= p - 1 {
			u.sendPort(s, msgs[:n], bits.TrailingZeros64(p))
		}
		msgs = msgs[n:]
	}
}

// sort puts up to MaxSegments messages into the lists of their source ports.
func (s *sender) sort(msgs []Message, ports int) {
	s.ports = 0
	for i := range msgs {
		p := msgs[i].Entropy & uint16(ports-1) & (MaxSourcePorts - 1)
		if s.ports>>p&1 == 0 {
			s.ports |= 1 << p
			s.first[p] = uint8(i)
		} else {
			s.next[s.last[p]&(MaxSegments-1)] = uint8(i)
		}
		s.last[p] = uint8(i)
	}
}

// sendPort sends the messages of one source port in order.
func (u *Underlay) sendPort(s *sender, msgs []Message, port int) {
	fd, n := u.sources[port], 0
	for i := s.first[port]; ; i = s.next[i&(MaxSegments-1)] {
		m := &msgs[i]
		m.Drop = dataplane.None
		switch {
		case m.Len > MaxMessage || m.SegSize <= 0 || m.Len > MaxSegments*m.SegSize:
			m.Drop = dataplane.ExceedsMTU
		case m.Len <= m.SegSize || u.segments && m.Dest.segment():
			put(&s.hdrs[n].hdr, &s.out[n].control, m, m.Iovs, m.Len > m.SegSize)
			s.out[n].of = i
			n++
		default:
			// What is before it goes first.
			u.flush(s, fd, msgs, n)
			n = 0
			u.sendEach(s, fd, m)
		}
		if i == s.last[port] {
			break
		}
	}
	u.flush(s, fd, msgs, n)
}

// flush sends the first n of hdrs.
func (u *Underlay) flush(s *sender, fd int, msgs []Message, n int) {
	for done := 0; done < n; {
		sent, errno := sendmmsg(fd, s.hdrs[done:n])
		done += sent
		if errno == 0 {
			continue
		}
		m := &msgs[s.out[done].of]
		done++
		if m.Len > m.SegSize && refusesSegments(errno) {
			u.replay(s, fd, m)
			continue
		}
		m.Drop = dropFor(errno)
		if m.Drop == dataplane.TxDown {
			// So it is for those that follow it to the same place.
			for ; done < n && msgs[s.out[done].of].Dest == m.Dest; done++ {
				msgs[s.out[done].of].Drop = dataplane.TxDown
			}
		}
	}
	release(s.hdrs[:n])
}

// release lets go of what headers point to.
func release(hdrs []mmsghdr) {
	for i := range hdrs {
		hdrs[i].hdr.Iov, hdrs[i].hdr.Name = nil, nil
	}
}

// put describes pieces of a message by a header and its control buffer.
func put(h *unix.Msghdr, c *[segmentSpace + tosSpace]byte, m *Message, iovs []unix.Iovec, segment bool) {
	h.Name, h.Namelen = &m.Dest.name[0], m.Dest.nameN
	h.Iov = unsafe.SliceData(iovs)
	h.SetIovlen(len(iovs))
	at, length := segmentSpace, 0
	if segment {
		binary.NativeEndian.PutUint64(c[0:], segmentLen)
		binary.NativeEndian.PutUint32(c[8:], unix.SOL_UDP)
		binary.NativeEndian.PutUint32(c[12:], unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(c[16:], uint16(m.SegSize))
		at, length = 0, segmentSpace
	}
	if m.TOS != 0 {
		level, kind := uint32(unix.SOL_IP), uint32(unix.IP_TOS)
		if m.Dest.nameN == unix.SizeofSockaddrInet6 {
			level, kind = unix.SOL_IPV6, unix.IPV6_TCLASS
		}
		binary.NativeEndian.PutUint64(c[segmentSpace:], tosLen)
		binary.NativeEndian.PutUint32(c[segmentSpace+8:], level)
		binary.NativeEndian.PutUint32(c[segmentSpace+12:], kind)
		binary.NativeEndian.PutUint32(c[segmentSpace+16:], uint32(m.TOS))
		length += tosSpace
	}
	h.Control = nil
	if length > 0 {
		h.Control = &c[at]
	}
	h.SetControllen(length)
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

// dropFor returns what an errno of sendmmsg means for the message.
func dropFor(errno syscall.Errno) dataplane.Drop {
	switch errno {
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return dataplane.TxQueueFull
	case unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.ENODEV, unix.EBADF:
		return dataplane.TxDown
	case unix.EMSGSIZE:
		return dataplane.ExceedsMTU
	}
	return dataplane.TxRefused
}
