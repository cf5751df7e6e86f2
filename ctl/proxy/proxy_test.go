package proxy

import (
	"bytes"
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

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/ctl/attach"
)

func TestMain(m *testing.M) { lab.Main(m) }

// patience is how long a test waits for something that takes microseconds.
const patience = 5 * time.Second

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
	tb.Cleanup(func() { goleak.VerifyNone(tb) })
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
	if got, err := s.ask("127.0.0.1:8080", "x"); !errors.Is(err, unix.ECONNRESET) {
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
	s := newScene(tb, Config{Timeouts: Timeouts{Idle: 400 * time.Millisecond, HalfClosed: 400 * time.Millisecond}})
	s.serve(80, echo)
	s.serve(81, func(c *net.TCPConn) {
		_, _ = io.ReadAll(c)
		for range 10 {
			time.Sleep(100 * time.Millisecond) // What is tested is that time passes.
			_, _ = c.Write([]byte("."))
		}
	})
	l := s.publish(tcp(8080, 8081), 80)
	began := time.Now()
	c := s.hold(1)[0]
	if got, err := s.ask("127.0.0.1:8081", "x"); err != nil || got != ".........." {
		s.Errorf("a slow answer: %q, %v", got, err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) || time.Since(began) > patience {
		s.Errorf("of an idle connection after %v: %v", time.Since(began), err)
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

// serveUDP answers datagrams in the container, with who they came from.
func (s *scene) serveUDP(port string) {
	s.Helper()
	var c net.PacketConn
	s.NoError(s.container.Do(func() (err error) {
		c, err = net.ListenPacket("udp", "198.18.0.2:"+port)
		return err
	}))
	s.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if !bytes.Equal(b[:n], []byte("quiet")) {
				_, _ = c.WriteTo(b[:n], from)
			}
		}
	}()
}

// A connected client gets only what comes from where it sent to.
func TestUDP(tb *testing.T) {
	s := newScene(tb, Config{Timeouts: Timeouts{UDP: time.Second, UDPOneWay: 50 * time.Millisecond}})
	s.serveUDP("53")
	s.serveUDP("55")
	l := s.publish(udp(5353, 5355), 53)
	exchange := func(c net.Conn, text string) {
		s.Helper()
		_, err := io.WriteString(c, text)
		s.NoError(err)
		b := make([]byte, maxDatagram)
		if n, err := c.Read(b); err != nil || string(b[:n]) != text {
			s.Errorf("%s: %.20q, %d bytes, %v", c.RemoteAddr(), b[:n], n, err)
		}
	}
	var all []net.Conn
	for _, address := range []string{"127.0.0.1:5353", "127.0.0.53:5353", "[::1]:5353", "192.0.2.10:5353", "192.0.2.11:5355", "[2001:db8::10]:5353"} {
		c, err := s.dial(s.host, "udp", address)
		s.NoError(err)
		exchange(c, "hello")
		exchange(c, strings.Repeat("x", 60_000))
		all = append(all, c)
	}
	if got, want := l.Stats(), (Stats{Open: 6, Sessions: 6}); got != want {
		s.Errorf("%+v, want %+v", got, want)
	}
	ended := func() error {
		if open := l.Stats().Open; open != 0 {
			return errors.New(strconv.FormatInt(open, 10) + " are open")
		}
		return nil
	}
	s.Eventually(patience, "the sessions have ended", ended)
	exchange(all[0], "again")
	// One that nobody answers ends sooner.
	c, err := s.dial(s.host, "udp", "127.0.0.1:5353")
	s.NoError(err)
	_, err = io.WriteString(c, "quiet")
	s.NoError(err)
	s.Eventually(patience, "the sessions have ended", ended)
	// The container's port is closed: the session ends, the publication stays.
	c, err = s.dial(s.host, "udp", "127.0.0.1:5354")
	s.NoError(err)
	_, err = io.WriteString(c, "x")
	s.NoError(err)
	s.Eventually(patience, "the session has ended", ended)
	exchange(all[0], "again")
}

func TestUDPLimit(tb *testing.T) {
	s := newScene(tb, Config{MaxSessions: 1})
	s.serveUDP("53")
	l := s.publish(udp(5353, 5353), 53)
	for range 2 {
		c, err := s.dial(s.host, "udp", "127.0.0.1:5353")
		s.NoError(err)
		_, err = io.WriteString(c, "x")
		s.NoError(err)
	}
	s.Eventually(patience, "one is refused", func() error {
		if l.Stats() != (Stats{Open: 1, Sessions: 1, Refused: 1}) {
			return errors.New("not yet")
		}
		return nil
	})
	l.Flush()
	s.Eventually(patience, "it has ended", func() error {
		if l.Stats().Open != 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// A port that the host uses is refused, by the name of what uses it; and a
// range is held whole or not at all.
func TestPublishRefuses(tb *testing.T) {
	s := newScene(tb, Config{})
	listen := func(network, address string) {
		s.NoError(s.host.Do(func() error {
			if network == "udp" {
				c, err := net.ListenPacket(network, address)
				if err == nil {
					s.Cleanup(func() { _ = c.Close() })
				}
				return err
			}
			l, err := net.Listen(network, address)
			if err == nil {
				s.Cleanup(func() { _ = l.Close() })
			}
			return err
		}))
	}
	listen("tcp", "127.0.0.1:80")
	listen("tcp", ":81")
	listen("udp", "192.0.2.11:53")
	s.NoError(s.host.Do(func() error { // A connection that could meet the published port's packets.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 10), Port: 40000}}
		c, err := d.Dial("tcp", "192.0.2.11:81")
		if err == nil {
			s.Cleanup(func() { _ = c.Close() })
		}
		return err
	}))
	at := func(pub Publication, addrs ...string) Publication {
		for _, a := range addrs {
			pub.Addrs = append(pub.Addrs, netip.MustParseAddr(a))
		}
		return pub
	}
	for _, test := range []struct {
		pub  Publication
		want error
		text string
	}{
		{tcp(80, 80), attach.ErrPortInUse, "publish port 80/tcp: the host uses 127.0.0.1:80 (proxy.test, process "},
		{tcp(40000, 40000), attach.ErrPortInUse, "192.0.2.10:40000 in a connection to 192.0.2.11:81 (proxy.test"},
		{tcp(70, 90), attach.ErrPortInUse, "80/tcp"},
		{at(tcp(81, 81), "192.0.2.10"), attach.ErrPortInUse, "publish port 192.0.2.10:81/tcp: the host uses [::]:81 (proxy.test"},
		{udp(53, 53), attach.ErrPortInUse, "53/udp: the host uses 192.0.2.11:53"},
		{at(tcp(82, 82), "127.0.0.1", "192.0.2.12"), unix.EADDRNOTAVAIL, "192.0.2.12:82/tcp: the host has no such address"},
		{Publication{Proto: 1, Ports: attach.PortRange{First: 1, Last: 1}}, nil, "protocol 1: want TCP, UDP or SCTP"},
		{tcp(0, 1), nil, "ports 0-1: want"},
		{tcp(2, 1), nil, "ports 2-1: want"},
		{tcp(1, 16385), ErrFull, "at most"},
	} {
		l, err := s.proxy.Publish(test.pub)
		if err == nil {
			s.Errorf("%+v: no error", test.pub)
			s.NoError(l.Close())
			continue
		}
		if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			s.Errorf("%+v: %v", test.pub, err)
		}
	}
	if s.proxy.ports != 0 {
		s.Errorf("%d ports are held", s.proxy.ports)
	}
	s.publish(tcp(70, 79), 80)
	s.publish(at(tcp(80, 80), "192.0.2.10", "2001:db8::10"), 80) // The host has it at another address.
	s.publish(at(udp(53, 53), "127.0.0.1", "192.0.2.10"), 53)
	if _, err := s.proxy.Publish(tcp(75, 75)); !errors.Is(err, attach.ErrPortInUse) {
		s.Errorf("published already: %v", err)
	}
	// Now the host can't have it.
	s.NoError(s.host.Do(func() error {
		if l, err := net.Listen("tcp", ":79"); !errors.Is(err, unix.EADDRINUSE) {
			_ = l.Close()
			return errors.New("the host can listen on a published port")
		}
		return nil
	}))
}

// SCTP is held, where the kernel has it.
func TestSCTP(tb *testing.T) {
	s := newScene(tb, Config{})
	s.publish(Publication{Proto: unix.IPPROTO_SCTP, Ports: attach.PortRange{First: 5000, Last: 5001}}, 5000)
	_, err := s.proxy.Publish(Publication{Proto: unix.IPPROTO_SCTP, Ports: attach.PortRange{First: 5001, Last: 5001}})
	fd, has := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if has == nil {
		s.NoError(unix.Close(fd))
	}
	if (err != nil) != (has == nil) {
		s.Errorf("the second time: %v; the kernel: %v", err, has)
	}
}
