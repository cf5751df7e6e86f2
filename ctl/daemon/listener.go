package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the clients that are served at a time.
const (
	maxClients   = 64 // Connections that are served.
	maxRefusals  = 16 // Connections beyond that are told so; yet more are closed at once.
	refusalGrace = time.Second
)

// socketMode lets root and the socket's group in.
const socketMode = 0o660

// listen makes the unix socket. The caller holds the socket's lock, so what is
// there is left from a swd that ended, unless something else answers on it.
func listen(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("socket group: %w", err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("socket group %s: gid %q: %w", group, g.Gid, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // The group must get to the socket, which has its own mode.
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Nobody may connect between bind and chmod.
	old := unix.Umask(0o777)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, socketMode)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("socket %s: something else has that name: remove it or choose another --socket", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("socket %s: %w", path, errInUse)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

// limitListener serves maxClients connections at a time. Further ones are told
// so with 429 and closed, and counted.
type limitListener struct {
	net.Listener
	slots    chan struct{}
	refusing chan struct{}
	refused  atomic.Uint64
}

func newLimitListener(l net.Listener) *limitListener {
	return &limitListener{
		Listener: l,
		slots:    make(chan struct{}, maxClients),
		refusing: make(chan struct{}, maxRefusals),
	}
}

// Accept returns the next connection for which there is room.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
		}
		l.refused.Add(1)
		select {
		case l.refusing <- struct{}{}:
			go func() {
				refuse(c)
				<-l.refusing
			}()
		default:
			_ = c.Close()
		}
	}
}

// refuse answers a client before it has asked, and reads what it asks so that
// the close doesn't take the answer away.
func refuse(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(refusalGrace))
	body := fmt.Sprintf(`{"what":"","why":"swd already serves %d clients","hint":"try again, or end one: an idle swctl capture or swctl events --follow"}`+"\n", maxClients)
	_, err := fmt.Fprintf(c, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		len(body), body)
	if err != nil {
		return
	}
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.CloseWrite()
	}
	var sink [4096]byte
	for range 16 {
		if _, err := c.Read(sink[:]); err != nil {
			return
		}
	}
}

// limitConn gives its slot back when it is closed.
type limitConn struct {
	net.Conn
	release func()
}

// Close closes the connection.
func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// peer is who is at the other end of a connection (SO_PEERCRED, unix(7)): as
// of its connect, which its later changes of identity don't alter.
type peer struct {
	pid      int32
	uid, gid uint32
}

// peerOf asks the kernel. The zero peer with pid 0 is one that couldn't be
// asked for.
func peerOf(c net.Conn) (p peer, ok bool) {
	if l, isLimited := c.(*limitConn); isLimited {
		c = l.Conn
	}
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return peer{}, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{}, false
	}
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			p, ok = peer{pid: cred.Pid, uid: cred.Uid, gid: cred.Gid}, true
		}
	})
	return p, ok && err == nil
}
