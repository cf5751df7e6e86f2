package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

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
