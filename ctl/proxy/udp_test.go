package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

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

// none fails while there are sessions.
func (l *Listener) none() error {
	if open := l.Stats().Open; open != 0 {
		return errors.New(strconv.FormatInt(open, 10) + " are open")
	}
	return nil
}

// exchange sends a datagram and gets it back.
func (s *scene) exchange(c net.Conn, text string) {
	s.Helper()
	_, err := io.WriteString(c, text)
	s.NoError(err)
	b := make([]byte, maxDatagram)
	if n, err := c.Read(b); err != nil || string(b[:n]) != text {
		s.Errorf("%s: %.20q, %d bytes, %v", c.RemoteAddr(), b[:n], n, err)
	}
}

// A connected client gets only what comes from where it sent to.
func TestUDP(tb *testing.T) {
	const limit = 8 * time.Second // Longer than the machine may be busy with something else.
	s := newScene(tb, Config{Timeouts: Timeouts{UDP: limit, UDPOneWay: limit}})
	s.serveUDP("53")
	s.serveUDP("55")
	l := s.publish(udp(5353, 5355), 53)
	var all []net.Conn
	for _, address := range []string{"127.0.0.1:5353", "127.0.0.53:5353", "[::1]:5353", "192.0.2.10:5353", "192.0.2.11:5355", "[2001:db8::10]:5353"} {
		c, err := s.dial(s.host, "udp", address)
		s.NoError(err)
		s.exchange(c, "hello")
		s.exchange(c, strings.Repeat("x", 60_000))
		all = append(all, c)
	}
	if got, want := l.Stats(), (Stats{Open: 6, Sessions: 6}); got != want {
		s.Errorf("%+v, want %+v", got, want)
	}
	s.Eventually(patience, "the sessions have ended", l.none)
	s.exchange(all[0], "again")
}

// What nobody answers ends sooner than what somebody does.
func TestUDPOneWay(tb *testing.T) {
	s := newScene(tb, Config{Timeouts: Timeouts{UDP: time.Hour, UDPOneWay: 50 * time.Millisecond}})
	s.serveUDP("53")
	l := s.publish(udp(5353, 5353), 53)
	c, err := s.dial(s.host, "udp", "127.0.0.1:5353")
	s.NoError(err)
	_, err = io.WriteString(c, "quiet")
	s.NoError(err)
	s.Eventually(patience, "a session has ended", func() error {
		if l.Stats() != (Stats{Sessions: 1}) {
			return errors.New("not yet")
		}
		return nil
	})
}

// Where the container's port is closed the session ends at once; the publication
// stays.
func TestUDPClosedPort(tb *testing.T) {
	s := newScene(tb, Config{Timeouts: Timeouts{UDP: time.Hour, UDPOneWay: time.Hour}})
	l := s.publish(udp(5353, 5353), 53)
	c, err := s.dial(s.host, "udp", "127.0.0.1:5353")
	s.NoError(err)
	_, err = io.WriteString(c, "x")
	s.NoError(err)
	s.Eventually(patience, "a session has ended", func() error {
		if l.Stats() != (Stats{Sessions: 1}) {
			return errors.New("not yet")
		}
		return nil
	})
	s.serveUDP("53")
	s.exchange(c, "again")
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
