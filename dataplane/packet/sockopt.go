// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package packet

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// countLost adds what the kernel has dropped since it was last asked, because
// the ring was full or no virtio-net header could express the frame.
func (p *Port) countLost(fd, worker int) {
	if _, dropped := statistics(fd); dropped > 0 {
		p.counters.Drop(worker, dataplane.RxKernel, dropped)
	}
}

// statistics returns how many frames came to the socket since it was last asked,
// and how many of them the kernel has dropped. It resets the kernel's counters, and
// with them TP_STATUS_LOSING. One system call.
func statistics(fd int) (frames, dropped int) {
	var s unix.TpacketStats
	n := uint32(unix.SizeofTpacketStats)
	_, _, _ = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&n)), 0)
	return int(s.Packets), int(s.Drops)
}

// clearError takes the socket's pending error, such as ENETDOWN when the
// interface went down: epoll would report it again and again. Fault finds out
// for itself what is wrong. One system call.
func (q *queue) clearError() {
	var soError int32
	n := uint32(unsafe.Sizeof(soError))
	_, _, _ = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(q.fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&soError)), uintptr(unsafe.Pointer(&n)), 0)
}
