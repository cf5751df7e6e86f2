package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/ctl/attach"
)

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
	s.publish(tcp(75, 75), 80) // Publications may share a port.
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
	s.publish(Publication{Proto: unix.IPPROTO_SCTP, Ports: attach.PortRange{First: 5001, Last: 5001}}, 5000)
	s.NoError(s.host.Do(func() error {
		taken, err := bindSCTP(netip.Addr{}, 5001)
		if taken != nil {
			return errors.Join(errors.New("the host can bind a published port"), taken.Close())
		}
		if err != nil && !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		return nil
	}))
}

// Publications share ports: the one that names the address, whose home the
// address is, or with the narrower range is the one; and each gives back what is
// its own only.
func TestPublicationsShareAPort(tb *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		tb.Run(proto, func(tb *testing.T) {
			s := newScene(tb, Config{})
			number := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[proto]
			publish := func(first, last uint16, to uint16, addrs ...string) *Listener {
				pub := Publication{Proto: number, Ports: attach.PortRange{First: first, Last: last}}
				for _, a := range addrs {
					pub.Addrs = append(pub.Addrs, netip.MustParseAddr(a))
				}
				return s.publish(pub, to)
			}
			for port := 1000; port < 1060; port += 10 {
				s.namePort(proto, port)
			}
			is := func(address string, want int) {
				s.Helper()
				if got := s.portAt(proto, address, want == 0); got != want {
					s.Errorf("%s %s leads to port %d, want %d", proto, address, got, want)
				}
			}
			wide := publish(8000, 8009, 1000) // Only the first port leads to somebody.
			other := publish(8000, 8000, 1010)
			is("127.0.0.1:8000", 1010)
			is("[::1]:8000", 1010)
			named := publish(8000, 8000, 1020, "192.0.2.11")
			is("192.0.2.11:8000", 1020)
			is("192.0.2.10:8000", 1010)
			second := publish(8000, 8000, 1030)
			is("192.0.2.10:8000", 1010)
			second.SetHome([]netip.Addr{netip.MustParseAddr("192.0.2.10")})
			is("192.0.2.10:8000", 1030)
			is("127.0.0.1:8000", 1010)
			s.NoError(other.Close())
			is("127.0.0.1:8000", 1030)
			s.NoError(second.Close())
			is("127.0.0.1:8000", 1000)
			s.NoError(wide.Close())
			is("192.0.2.11:8000", 1020)
			is("192.0.2.10:8000", 0)
			four := publish(8000, 8000, 1040, "0.0.0.0")
			is("192.0.2.10:8000", 1040)
			is("192.0.2.11:8000", 1020)
			is("[::1]:8000", 0)
			s.NoError(named.Close())
			is("192.0.2.11:8000", 1040)
			s.NoError(four.Close())
			is("192.0.2.11:8000", 0)
			s.proxy.mu.Lock()
			defer s.proxy.mu.Unlock()
			if s.proxy.ports != 0 || len(s.proxy.held) != 0 {
				s.Errorf("%d ports and %d sockets' are left", s.proxy.ports, len(s.proxy.held))
			}
		})
	}
}

// namePort has the container answer at a port with its number.
func (s *scene) namePort(proto string, port int) {
	s.Helper()
	if proto == "tcp" {
		s.serve(port, func(c *net.TCPConn) { _, _ = c.Write([]byte(strconv.Itoa(port))) })
		return
	}
	var c *net.UDPConn
	s.NoError(s.container.Do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 2), Port: port})
		return err
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(strconv.Itoa(port)), from)
		}
	}()
	s.Cleanup(func() {
		_ = c.Close()
		<-ended
	})
}

// portAt returns the container's port that a host's leads to; 0 for none, which
// isn't waited for long where it is expected: the kernel doesn't always say so.
func (s *scene) portAt(proto, address string, none bool) int {
	s.Helper()
	c, err := s.dial(s.host, proto, address)
	if err != nil {
		return 0
	}
	b := make([]byte, 100)
	if none {
		s.NoError(c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
	}
	if proto == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return 0
		}
	}
	n, err := c.Read(b)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(string(b[:n]))
	s.NoError(err)
	return port
}
