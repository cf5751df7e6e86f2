package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The one request that Connect makes, and how a Server answers: the body is the
// request's CRC-32 in hex, so that the client knows what has come.
const (
	request = "GET / HTTP/1.0\r\n\r\n"
	answer  = "HTTP/1.0 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n" // And the body.

	endOfRequest = "\r\n\r\n"
	requestMost  = 4096             // Bytes of a request.
	acceptors    = 8                // Connections that a Server answers at the same time.
	backlog      = 4096             // Connections that wait for it.
	peerBound    = 15 * time.Second // That a peer may keep silent.
	kindsMost    = 64               // Different requests that a Server tells apart.
)

// answerTo is the answer to a request.
func answerTo(request []byte) string {
	return fmt.Sprintf("%s%08x", answer, crc32.ChecksumIEEE(request))
}

// Server answers each TCP connection's request and closes it, and keeps nothing
// but a count: HTTP/1.0 as far as ab(1) asks for it. It closes first, so that
// the ports that have to rest (TIME_WAIT) are its own.
type Server struct {
	fd int

	mu       sync.Mutex
	requests uint64
	kinds    map[uint32]bool // CRC-32 of the requests, kindsMost at most.
}

// Served is what a Server has done.
type Served struct {
	Requests uint64 `json:"requests"` // That came whole, each on a connection of its own.
	// Kinds is how many different requests came, as far as 64. A program that
	// always asks the same makes one; another one was damaged on its way.
	Kinds int `json:"kinds"`
}

// Served returns the counts so far. Any goroutine may call it.
func (s *Server) Served() Served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Served{Requests: s.requests, Kinds: len(s.kinds)}
}

func (s *Server) count(request []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if len(s.kinds) < kindsMost {
		s.kinds[crc32.ChecksumIEEE(request)] = true
	}
}

// Listen opens a server on an address of the calling thread's namespace.
func Listen(at netip.AddrPort) (*Server, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	bound := unix.NsecToTimeval(peerBound.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		// The sockets that it accepts inherit it.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}),
		unix.Listen(fd, backlog))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on %v: %w", at, err), unix.Close(fd))
	}
	return &Server{fd: fd, kinds: map[uint32]bool{}}, nil
}

// Run answers until the context ends, and closes the server.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Ends the accepts that wait.
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) })
	defer stop()
	errs := make([]error, acceptors)
	var wg sync.WaitGroup
	for i := range acceptors {
		wg.Go(func() {
			errs[i] = s.accept(ctx)
			cancel()
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, unix.Close(s.fd))...); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func (s *Server) accept(ctx context.Context) error {
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				err = unix.Close(fd)
				return err
			}
			return nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return err
		}
		// What went wrong is the client's to notice.
		_ = s.serve(fd)
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
}

// serve reads a request and answers it.
func (s *Server) serve(fd int) error {
	var buf [requestMost]byte
	for n := 0; n < len(buf); {
		more, err := read(fd, buf[n:])
		if err != nil || more == 0 {
			return err
		}
		n += more
		if bytes.HasSuffix(buf[:n], []byte(endOfRequest)) {
			s.count(buf[:n]) // Before its client can know that it is done.
			_, err := unix.Write(fd, []byte(answerTo(buf[:n])))
			return err
		}
	}
	return nil
}

// read is read(2), begun anew when a signal of Go's scheduler ends it, as it
// does on a socket with a timeout (signal(7)).
func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
