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
