package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func (s *holder) accept(from *net.TCPListener) {
	for {
		c, err := from.AcceptTCP()
		if s.isClosed() {
			if err == nil {
				reset(c)
			}
			return
		}
		if err != nil {
			s.pause()
			continue
		}
		to := s.port.pick(c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
		if to.l == nil || !to.l.admit() {
			reset(c)
			continue
		}
		begun := to.l.begin(func() {
			defer to.l.leave()
			to.l.connect(c, to.offset)
		})
		if !begun {
			to.l.leave()
			reset(c)
		}
	}
}

// reset ends a connection as if nobody had listened.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // Then it is ended in the other way.
	_ = c.Close()
}

// connect carries a connection until it has ended.
func (l *Listener) connect(c *net.TCPConn, offset int) {
	inside, err := l.dial("tcp", offset)
	if err != nil {
		l.failed.Add(1)
		reset(c)
		return
	}
	s := &stream{ends: [2]*net.TCPConn{c, inside.(*net.TCPConn)}}
	if !l.add(s) {
		s.end()
		return
	}
	defer l.remove(s)
	ended := make(chan struct{})
	l.done.Go(func() { s.watch(ended, &l.proxy.config.Timeouts) }) // Its own session is one of done.
	s.carry()
	close(ended)
}

// stream is a TCP session.
type stream struct {
	ends     [2]*net.TCPConn // The client's and the container's.
	finished atomic.Int32    // Directions that are.
}

func (s *stream) end() {
	for _, c := range s.ends {
		reset(c)
	}
}

// carry returns when both directions are finished. One that ends by an error
// ends the other.
func (s *stream) carry() {
	back := make(chan struct{})
	go func() {
		defer close(back)
		s.copy(s.ends[0], s.ends[1])
	}()
	s.copy(s.ends[1], s.ends[0])
	<-back
	for _, c := range s.ends {
		_ = c.Close() // Both ways have been told already.
	}
}

// copy carries one direction, by splice(2) (net.TCPConn.ReadFrom).
func (s *stream) copy(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		s.end()
	}
	s.finished.Add(1)
}

// watch ends the session when nothing has been carried for too long.
func (s *stream) watch(ended chan struct{}, t *Timeouts) {
	every := time.NewTicker(min(t.HalfClosed, t.Idle) / 4)
	defer every.Stop()
	for {
		select {
		case <-ended:
			return
		case <-every.C:
			limit := t.Idle
			if s.finished.Load() > 0 {
				limit = t.HalfClosed
			}
			if s.idle() >= limit {
				s.end()
			}
		}
	}
}

// idle asks the kernel for how long no data came from either side (struct
// tcp_info of linux/tcp.h).
func (s *stream) idle() time.Duration {
	idle := time.Duration(1<<63 - 1)
	for _, c := range s.ends {
		raw, err := c.SyscallConn()
		if err != nil {
			return idle // It is closed.
		}
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				idle = min(idle, time.Duration(info.Last_data_recv)*time.Millisecond)
			}
		})
	}
	return idle
}
