// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package underlay

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// retryAfter is how many messages to a destination go a datagram at a time before
// the kernel is asked again whether it cuts them: its route may have changed.
const retryAfter = 1024

// segment tells whether the kernel is to cut a message to the destination.
func (d *Dest) segment() bool {
	if d.perDatagram.Load() <= 0 {
		return true
	}
	d.perDatagram.Add(-1)
	return false
}

// refusesSegments tells whether an errno is that of a kernel that can't cut
// here: EIO without a checksum offload or with IPsec, EINVAL with options that
// exclude it (udp_send_skb in net/ipv4/udp.c); before Linux 6.12 EINVAL is also
// that of a segment longer than the MTU.
func refusesSegments(errno syscall.Errno) bool { return errno == unix.EIO || errno == unix.EINVAL }

// replay sends a message that the kernel refused to cut. That a kernel can't is
// remembered if it wasn't for the datagrams themselves: if one went.
func (u *Underlay) replay(s *sender, fd int, m *Message) {
	if u.sendEach(s, fd, m) > 0 {
		m.Dest.perDatagram.Store(retryAfter)
	}
}

// sendEach sends a message's datagrams as messages of their own and returns how
// many went. The first failure ends it, since the others would meet the same,
// and is the message's Drop.
func (u *Underlay) sendEach(s *sender, fd int, m *Message) (sent int) {
	n := s.split(m)
	for sent < n {
		more, errno := sendmmsg(fd, s.eachHdrs[sent:n])
		if errno != 0 {
			m.Drop = dropFor(errno)
			break
		}
		sent += more
	}
	release(s.eachHdrs[:n])
	clear(s.eachIovs[:])
	return sent
}

// split makes a message of each of m's datagrams, in eachHdrs, and returns how
// many there are.
func (s *sender) split(m *Message) (n int) {
	used, within := 0, 0 // Of eachIovs; of the piece at hand.
	for at := 0; at < len(m.Iovs) && n < MaxSegments; n++ {
		first, left := used, m.SegSize
		for at < len(m.Iovs) && left > 0 && used < len(s.eachIovs) {
			piece := m.Iovs[at]
			take := min(left, int(piece.Len)-within)
			s.eachIovs[used].Base = (*byte)(unsafe.Add(unsafe.Pointer(piece.Base), within))
			s.eachIovs[used].SetLen(take)
			used++
			left -= take
			if within += take; within == int(piece.Len) {
				at, within = at+1, 0
			}
		}
		put(&s.eachHdrs[n].hdr, &s.each[n].control, m, s.eachIovs[first:used:used], false)
	}
	return n
}
