package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The one request that Connect makes, and the one answer of a Server.
const (
	request = "GET / HTTP/1.0\r\n\r\n"
	answer  = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

	endOfRequest = "\r\n\r\n"
	requestMost  = 4096            // Bytes of a request.
	acceptors    = 8               // Connections that a Server answers at the same time.
	backlog      = 4096            // Connections that wait for it.
	peerBound    = 2 * time.Second // That a peer may keep silent.
)

// Server answers each TCP connection's request with "ok" and closes it, and
// keeps nothing: HTTP/1.0 as far as ab(1) asks for it. It closes first, so that
// the ports that have to rest (TIME_WAIT) are its own.
type Server struct{ fd int }

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
	return &Server{fd}, nil
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
		_ = serve(fd)
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
}

// serve reads a request and answers it.
func serve(fd int) error {
	var buf [requestMost]byte
	for n := 0; n < len(buf); {
		more, err := read(fd, buf[n:])
		if err != nil || more == 0 {
			return err
		}
		n += more
		if bytes.HasSuffix(buf[:n], []byte(endOfRequest)) {
			_, err := unix.Write(fd, []byte(answer))
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
