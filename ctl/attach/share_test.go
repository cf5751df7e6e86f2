package attach

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The ways to share an interface: as Share chooses here, and as it does on a
// kernel without tcx.
var shares = map[string]attachFunc{
	"Share":  attachProgram,
	"clsact": attachClsact,
}

// newShared is
//
//	client  eth0 192.0.2.1, 2001:db8::1 ── up 192.0.2.10, .11, 2001:db8::10  host
func newShared(t *testing.T) (client, host *netns) {
	t.Helper()
	client, host = newNetNS(t), newNetNS(t)
	client.addVeth(t, "eth0", "up")
	client.ip(t, "link set dev up netns "+host.path)
	for _, ns := range []*netns{client, host} {
		ns.setUp(t, "lo")
		ns.do(t, func() error {
			return errors.Join(
				writeFile("/proc/sys/net/ipv4/icmp_ratemask", "0"),
				writeFile("/proc/sys/net/ipv6/icmp/ratelimit", "0"),
			)
		})
	}
	client.setUp(t, "eth0")
	host.setUp(t, "up")
	client.ip(t, "addr add 192.0.2.1/24 dev eth0")
	client.ip(t, "addr add 2001:db8::1/64 dev eth0 nodad")
	for _, a := range []string{"192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64 nodad"} {
		host.ip(t, "addr add dev up "+a)
	}
	client.running(t, "eth0", true)
	host.running(t, "up", true)
	return client, host
}

func (n *netns) share(t *testing.T, name string, c Claim, attach attachFunc) *Shared {
	t.Helper()
	s, err := in(n.Namespace, func() (*Shared, error) { return share(name, c, attach) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, s) })
	return s
}

// serve answers each TCP connection with its own address and port.
func (n *netns) serve(t *testing.T, address string) {
	t.Helper()
	n.do(t, func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, c.LocalAddr())
				_ = c.Close()
			}
		}()
		return nil
	})
}

// fetch returns what serve says.
func (n *netns) fetch(t *testing.T, address string) string {
	t.Helper()
	var said []byte
	n.do(t, func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			return err
		}
		defer closing(t, c)
		said, err = io.ReadAll(c)
		return err
	})
	return string(said)
}

// silence is for how long nobody answers who isn't going to.
const silence = 300 * time.Millisecond

// refused tells whether the host's stack answers a packet with a RST (TCP) or
// a port unreachable (UDP), or keeps silent for so long.
func (n *netns) refused(t *testing.T, network, address string, wait time.Duration) bool {
	t.Helper()
	err := n.Do(func() error {
		c, err := net.DialTimeout(network, address, wait)
		if err != nil {
			return err
		}
		defer closing(t, c)
		if _, err = c.Write([]byte("?")); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err = c.Read(make([]byte, 1))
		return err
	})
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return true
	case errors.As(err, &timeout) && timeout.Timeout():
		return false
	}
	t.Fatalf("%s %s: %v", network, address, err)
	return false
}

// The host's services and connections go on; for what is Heddle's it is silent.
func TestShare(t *testing.T) {
	for name, attach := range shares {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			client, host := newShared(t)
			host.serve(t, ":80")
			client.serve(t, ":80")
			undisturbed := func() {
				t.Helper()
				for _, a := range []string{"192.0.2.10:80", "192.0.2.11:80", "[2001:db8::10]:80"} {
					if got := client.fetch(t, a); !strings.HasSuffix(got, ":80") {
						t.Errorf("%s says %q", a, got)
					}
				}
				for _, a := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
					host.fetch(t, a)
				}
				for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
					host.ping(t, a, "61500") // Its identifier is in Heddle's range.
				}
				client.ping(t, "192.0.2.10", "61500")
			}
			type probe struct {
				network, address string
				refused          bool
			}
			answers := func(probes ...probe) {
				t.Helper()
				for _, p := range probes {
					wait := silence
					if p.refused {
						wait = patience
					}
					if got := client.refused(t, p.network, p.address, wait); got != p.refused {
						t.Errorf("%s %s: refused %v", p.network, p.address, got)
					}
				}
			}
			undisturbed()
			answers(probe{"tcp", "192.0.2.10:61000", true}, probe{"udp", "192.0.2.10:61000", true}, probe{"tcp", "[2001:db8::10]:61000", true})

			s := host.share(t, "up", testClaim, attach)
			undisturbed()
			answers(
				probe{"tcp", "192.0.2.10:61000", false}, probe{"udp", "192.0.2.10:65535", false}, probe{"udp", "192.0.2.10:53", false},
				probe{"tcp", "[2001:db8::10]:61000", false}, probe{"udp", "[2001:db8::10]:61000", false}, probe{"tcp", "[2001:db8::10]:8080", false},
				probe{"tcp", "192.0.2.10:60999", true}, probe{"tcp", "192.0.2.11:61000", true}, probe{"udp", "[2001:db8::10]:53", true},
			)

			if err := s.Set(Claim{Addresses: addrs("192.0.2.11"), Published: []Published{{Proto: unix.IPPROTO_TCP, Ports: PortRange{90, 95}}}}); err != nil {
				t.Fatal(err)
			}
			undisturbed()
			answers(probe{"tcp", "192.0.2.10:61000", true}, probe{"tcp", "192.0.2.11:90", false}, probe{"tcp", "192.0.2.11:95", false}, probe{"tcp", "192.0.2.11:96", true})

			for range 2 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			undisturbed()
			answers(probe{"tcp", "192.0.2.11:90", true})
			if got := tc(t, host, "up"); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// ping asks once, with an identifier of its own.
func (n *netns) ping(t *testing.T, to, id string) {
	t.Helper()
	n.do(t, func() error {
		out, err := exec.Command("ping", "-c1", "-W20", "-e", id, to).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping %s: %w: %s", to, err, out)
		}
		return nil
	})
}

// A swd that is killed leaves nothing.
func TestShareEndsWithTheProcess(t *testing.T) {
	checkLeaks(t)
	client, host := newShared(t)
	cmd := startChild(t, "share "+host.path+" up")
	if _, err := host.Share("up", testClaim); !errors.Is(err, ErrTaken) {
		t.Errorf("while another holds it: %v", err)
	}
	if _, err := host.Silence("up"); !errors.Is(err, ErrTaken) {
		t.Errorf("silence while another holds it: %v", err)
	}
	if _, err := host.Free("up"); !errors.Is(err, ErrTaken) {
		t.Errorf("free while another holds it: %v", err)
	}
	if client.refused(t, "tcp", "192.0.2.10:61000", silence) {
		t.Error("the host answers for the child")
	}
	stopProcess(cmd)
	if !client.refused(t, "tcp", "192.0.2.10:61000", patience) { // TCP asks again.
		t.Error("the host doesn't answer after the child was killed")
	}
	host.share(t, "up", testClaim, attachProgram)
}

// With clsact a killed swd leaves the filter, which the next one replaces.
func TestShareReplacesALeftFilter(t *testing.T) {
	checkLeaks(t)
	_, host := newShared(t)
	left := host.share(t, "up", testClaim, shares["clsact"])
	if err := left.closer.(*filterCloser).ns.Close(); err != nil {
		t.Fatal(err)
	}
	left.closer = io.NopCloser(nil) // Its descriptors go, as with the process, and its filter stays.
	host.share(t, "up", testClaim, shares["clsact"])
	if got := tc(t, host, "up"); strings.Count(got, "direct-action") != 1 {
		t.Errorf("filters: %s", got)
	}
	if err := host.Unsilence("up"); err != nil {
		t.Fatal(err)
	}
	if got := tc(t, host, "up"); got != "" {
		t.Errorf("left after Unsilence: %s", got)
	}
}

func TestShareRefuses(t *testing.T) {
	checkLeaks(t)
	_, host := newShared(t)
	host.serve(t, "192.0.2.11:61500")
	one := addrs("192.0.2.10")
	own, err := readFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, ifname string
		claim        Claim
		want         error
		text         string
	}{
		{"no interface", "none", Claim{}, ErrNoLink, "interface none"},
		{"loopback", "lo", Claim{}, nil, "no Ethernet"},
		{"backwards", "up", Claim{Addresses: one, Ports: PortRange{2, 1}}, nil, "ports 2-1"},
		{"port 0", "up", Claim{Addresses: one, Ports: PortRange{0, 1}}, nil, "ports 0-1"},
		{"the host's connections", "up", Claim{Addresses: one, Ports: PortRange{60999, 65535}}, ErrPortInUse, "from 32768-60999: port in use (give the uplink other ports, or: sysctl -w net.ipv4.ip_local_reserved_ports=60999-65535"},
		{"a host's service", "up", Claim{Addresses: addrs("192.0.2.10", "192.0.2.11"), Ports: PortRange{61000, 65535}}, ErrPortInUse, "192.0.2.11:61500 (" + own + ", process"},
		{"published elsewhere", "up", Claim{Addresses: one, Published: []Published{{Addr: netip.MustParseAddr("192.0.2.11"), Proto: unix.IPPROTO_TCP, Ports: PortRange{80, 80}}}}, nil, "192.0.2.11 is not to be shared"},
		{"too many", "up", Claim{Addresses: make([]netip.Addr, MaxClaimed+1)}, nil, "1025 addresses"},
	}
	before := host.state(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := host.Share(test.ifname, test.claim)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v", err)
			}
		})
	}
	if after := host.state(t); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
	// The service's address isn't claimed; then its port is published; then the
	// ports are reserved.
	for _, c := range []Claim{
		{Addresses: one, Ports: PortRange{61000, 65535}},
		{Addresses: addrs("192.0.2.11"), Ports: PortRange{61000, 65535}, Published: []Published{{Proto: unix.IPPROTO_TCP, Ports: PortRange{61500, 61500}}}},
		{Addresses: one, Ports: PortRange{50000, 50009}},
	} {
		if c.Ports.First == 50000 {
			host.do(t, func() error { return writeFile(localReservedPorts, "7,50000-50009") })
		}
		s, err := host.Share("up", c)
		if err != nil {
			t.Fatal(err)
		}
		closing(t, s)
	}
}

func TestShareOutlivesItsInterface(t *testing.T) {
	for name, attach := range shares {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			_, host := newShared(t)
			s := host.share(t, "up", testClaim, attach)
			host.ip(t, "link del dev up")
			if err := errors.Join(s.Set(Claim{}), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
