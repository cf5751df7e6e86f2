package dataplane

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	// maxEvents bounds what one wait returns. The kernel goes on with the
	// others at the next wait: it puts descriptors that stay readable at the
	// end of its list (ep_send_events in fs/eventpoll.c), so none is starved.
	maxEvents = 1024
	// pollInterval is how long a worker with polled ports sleeps, in
	// milliseconds.
	pollInterval = 1
)

// poller waits for descriptors with epoll(7), level-triggered, and can be
// woken by an eventfd(2), which it reports as port 0. It belongs to one
// worker; only wake may be called by others.
type poller struct {
	epfd, wakefd int
	events       [maxEvents]syscall.EpollEvent
}

func (p *poller) open() error {
	epfd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	const efdCloexec, efdNonblock = syscall.O_CLOEXEC, syscall.O_NONBLOCK
	wakefd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, efdCloexec|efdNonblock, 0)
	if errno != 0 {
		_ = syscall.Close(epfd)
		return os.NewSyscallError("eventfd2", errno)
	}
	p.epfd, p.wakefd = epfd, int(wakefd)
	if err := p.add(p.wakefd, 0); err != nil {
		p.close()
		return err
	}
	return nil
}

func (p *poller) close() {
	_ = syscall.Close(p.wakefd)
	_ = syscall.Close(p.epfd)
}

// add waits for fd to become readable from now on.
func (p *poller) add(fd int, id PortID) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(id)}
	if err := syscall.EpollCtl(p.epfd, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("wait for port %d: %w", id, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// remove ends add. A descriptor that is not waited for is no error: it was
// muted, or closed, which removes it too.
func (p *poller) remove(fd int) { _ = syscall.EpollCtl(p.epfd, syscall.EPOLL_CTL_DEL, fd, nil) }

// wait blocks for at most timeout milliseconds, for ever if it is negative,
// and returns how many events there are; none after a signal.
func (p *poller) wait(timeout int) int {
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events[0])), maxEvents, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// event returns which port the i-th event of the last wait is for, 0 for a
// wake, and whether the descriptor reports an error or a hang-up.
func (p *poller) event(i int) (id PortID, hung bool) {
	ev := &p.events[i&(maxEvents-1)]
	return PortID(ev.Fd), ev.Events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0
}

// wake makes wait return, now or when it is next called. Anybody may call it.
func (p *poller) wake() {
	one := uint64(1)
	_, _ = syscall.Write(p.wakefd, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// clearWake forgets the wakes so far.
func (p *poller) clearWake() {
	var count [8]byte
	_, _ = syscall.Read(p.wakefd, count[:])
}
