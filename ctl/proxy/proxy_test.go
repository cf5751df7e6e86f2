package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/ctl/attach"
)

func TestMain(m *testing.M) { lab.Main(m) }

// patience is how long a test waits for something that takes microseconds, on a
// machine that is busy with something else for seconds.
const patience = 30 * time.Second

// scene is
//
//	outside  eth0 192.0.2.1 ── up 192.0.2.10, .11, 2001:db8::10  host   proxy   container  lo 198.18.0.2
//
// There is no link between host and container: what passes, the proxy carries.
type scene struct {
	*lab.T
	outside, host, container *lab.NetNS
	proxy                    *Proxy
	inside                   *attach.Namespace
}

func newScene(tb testing.TB, c Config) *scene {
	tb.Helper()
	tb.Cleanup(func() {
		if left := lab.Goroutines(patience); left != nil {
			tb.Error(left)
		}
	})
	t := lab.New(tb)
	// The runtime keeps the pipes that it splices by until it collects them.
	tb.Cleanup(func() { runtime.GC(); runtime.GC() })
	s := &scene{T: t, outside: t.NewNetNS("outside"), host: t.NewNetNS("host"), container: t.NewNetNS("container")}
	t.Veth(s.outside, "eth0", s.host, "up")
	t.NoError(s.outside.AddAddress("eth0", "192.0.2.1/24"))
	t.NoError(s.host.AddAddress("up", "192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64"))
	t.NoError(s.container.AddAddress("lo", "198.18.0.2/32"))
	open := func(n *lab.NetNS) *attach.Namespace {
		ns, err := attach.ByPath(n.Path())
		t.NoError(err)
		tb.Cleanup(func() { _ = ns.Close() }) // Some tests have done it.
		return ns
	}
	c.Host, s.inside = open(s.host), open(s.container)
	s.proxy = New(c)
	return s
}

// publish publishes ports to the container's port to and those that follow.
func (s *scene) publish(pub Publication, to uint16) *Listener {
	s.Helper()
	l, err := s.proxy.Publish(pub)
	s.NoError(err)
	s.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.Error(err)
		}
	})
	l.SetTarget(&Target{Namespace: s.inside, Addr: netip.MustParseAddr("198.18.0.2"), First: to})
	return l
}

// serve answers TCP connections in the container with f.
func (s *scene) serve(port int, f func(c *net.TCPConn)) {
	s.Helper()
	var l net.Listener
	s.NoError(s.container.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort("198.18.0.2", strconv.Itoa(port)))
		return err
	}))
	var served sync.WaitGroup
	s.Cleanup(func() {
		_ = l.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				f(c.(*net.TCPConn))
				_ = c.Close()
			})
		}
	})
}

// echoAll sends back what it gets, once it has got all.
func echoAll(c *net.TCPConn) {
	b, _ := io.ReadAll(c)
	_, _ = c.Write(append([]byte(c.RemoteAddr().(*net.TCPAddr).IP.String()+" "), b...))
}

// dial connects from a namespace.
func (s *scene) dial(n *lab.NetNS, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	if err == nil {
		s.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// ask sends all, finishes, and returns all that comes.
func (s *scene) ask(address, text string) (string, error) {
	c, err := s.dial(s.host, "tcp", address)
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func tcp(first, last uint16) Publication {
	return Publication{Proto: unix.IPPROTO_TCP, Ports: attach.PortRange{First: first, Last: last}}
}

func udp(first, last uint16) Publication {
	return Publication{Proto: unix.IPPROTO_UDP, Ports: attach.PortRange{First: first, Last: last}}
}

// The host reaches the container at all its addresses, each side can finish
// first, and the container sees its own address as the client's.
func TestTCP(tb *testing.T) {
	s := newScene(tb, Config{})
	s.serve(80, echoAll)
	s.serve(82, echoAll)
	l := s.publish(tcp(8080, 8082), 80)
	big := strings.Repeat("0123456789", 200_000)
	for _, address := range []string{"127.0.0.1:8080", "127.0.0.53:8080", "[::1]:8080", "192.0.2.10:8080", "192.0.2.11:8082", "[2001:db8::10]:8080"} {
		if got, err := s.ask(address, big); err != nil || got != "198.18.0.2 "+big {
			s.Errorf("%s: %.20q, %d bytes, %v", address, got, len(got), err)
		}
	}
	// Nobody listens in the container.
	if got, err := s.ask("127.0.0.1:8081", "x"); err == nil {
		s.Errorf("of no server: %q", got)
	}
	// What comes from outside is NAT's.
	s.NoError(s.outside.Do(func() error {
		_, err := net.DialTimeout("tcp", "192.0.2.10:8080", 200*time.Millisecond)
		if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
			return fmt.Errorf("from outside: %w", err)
		}
		return nil
	}))
	l.SetTarget(nil)
	if got, err := s.ask("127.0.0.1:8080", "x"); err == nil {
		s.Errorf("of no target: %q", got)
	}
	s.Eventually(patience, "all sessions have ended", func() error {
		if got, want := l.Stats(), (Stats{Sessions: 8, Failed: 2}); got != want {
			return errors.New("they haven't")
		}
		return nil
	})
	if len(s.proxy.sessions) != 0 {
		s.Errorf("%d sessions are held", len(s.proxy.sessions))
	}
}

// A server that resets resets the client.
func TestTCPReset(tb *testing.T) {
	s := newScene(tb, Config{})
	s.serve(80, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		reset(c)
	})
	s.publish(tcp(8080, 8080), 80)
	// ENOTCONN: it was before the client had finished.
	if got, err := s.ask("127.0.0.1:8080", "x"); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ENOTCONN) {
		s.Errorf("%q, %v", got, err)
	}
}

// hold opens n connections that stay.
func (s *scene) hold(n int) (all []net.Conn) {
	s.Helper()
	for range n {
		c, err := s.dial(s.host, "tcp", "127.0.0.1:8080")
		s.NoError(err)
		_, err = io.WriteString(c, "x")
		s.NoError(err)
		_, err = io.ReadFull(c, make([]byte, 1))
		s.NoError(err)
		all = append(all, c)
	}
	return all
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func TestLimit(tb *testing.T) {
	s := newScene(tb, Config{MaxSessions: 3})
	s.serve(80, echo)
	l := s.publish(tcp(8080, 8080), 80)
	held := s.hold(3)
	if got, err := s.ask("127.0.0.1:8080", "x"); err == nil {
		s.Errorf("the fourth: %q", got)
	}
	if got, want := l.Stats(), (Stats{Open: 3, Sessions: 3, Refused: 1}); got != want {
		s.Errorf("%+v, want %+v", got, want)
	}
	s.NoError(held[0].Close())
	s.Eventually(patience, "there is room again", func() error {
		_, err := s.ask("127.0.0.1:8080", "x")
		return err
	})
}

// Idle sessions end, and those that carry don't, also when one side has
// finished long ago.
func TestIdle(tb *testing.T) {
	const limit = 6 * time.Second // Longer than the machine may be busy with something else.
	s := newScene(tb, Config{Timeouts: Timeouts{Idle: limit, HalfClosed: limit}})
	s.serve(80, echo)
	s.serve(81, func(c *net.TCPConn) {
		_, _ = io.ReadAll(c)
		for began := time.Now(); time.Since(began) < limit+limit/2; {
			time.Sleep(limit / 40) // What is tested is that time passes.
			_, _ = c.Write([]byte("."))
		}
	})
	l := s.publish(tcp(8080, 8081), 80)
	c := s.hold(1)[0]
	if got, err := s.ask("127.0.0.1:8081", "x"); err != nil || strings.Trim(got, ".") != "" {
		s.Errorf("a slow answer: %q, %v", got, err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		s.Errorf("of an idle connection: %v", err)
	}
	s.Eventually(patience, "it has ended", func() error {
		if l.Stats().Open != 0 {
			return errors.New("it hasn't")
		}
		return nil
	})
}

func TestFlushAndClose(tb *testing.T) {
	s := newScene(tb, Config{})
	s.serve(80, echo)
	l := s.publish(tcp(8080, 8080), 80)
	gone := func(c net.Conn) {
		s.Helper()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			s.Errorf("%v", err)
		}
	}
	c := s.hold(1)[0]
	l.Flush()
	gone(c)
	c = s.hold(1)[0]
	for range 2 {
		s.NoError(l.Close())
	}
	gone(c)
	if _, err := s.dial(s.host, "tcp", "127.0.0.1:8080"); !errors.Is(err, unix.ECONNREFUSED) {
		s.Errorf("after Close: %v", err)
	}
	s.publish(tcp(8080, 8080), 80) // Though connections linger.
	s.hold(1)
	s.NoError(s.inside.Close())
	if got, err := s.ask("127.0.0.1:8080", "x"); err == nil {
		s.Errorf("of a closed namespace: %q", got)
	}
}
