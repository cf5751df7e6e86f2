package attach

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The ways to silence an interface: as Silence chooses here, and as it does on
// a kernel without tcx.
var silences = map[string]func(ns *netns, name string) (io.Closer, error){
	"Silence": func(ns *netns, name string) (io.Closer, error) { return ns.Silence(name) },
	"clsact":  silenceByClsact,
}

func silenceByClsact(ns *netns, name string) (io.Closer, error) {
	return in(ns.Namespace, func() (io.Closer, error) {
		l, err := byName(name)
		if err != nil {
			return nil, err
		}
		program, err := loadSilencer()
		if err != nil {
			return nil, err
		}
		defer func() { _ = program.Close() }() // The filter holds it.
		return attachClsact(l.Attrs().Index, program, silencer)
	})
}

//	container  eth0 198.18.0.2 ── hd-web 198.18.0.1  host
//
// The host's end has an address, which a veth port's never has, and the
// container knows its MAC: the host's stack would answer.
func TestSilence(t *testing.T) {
	for name, silence := range silences {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			container, host := newNetNS(t), newNetNS(t)
			create(t, pairOf(container, host), false)
			i := eth0()
			i.DefaultRoutes = nil
			if err := container.Configure(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			outer := host.link(t, "hd-web")
			host.ip(t, "addr add 198.18.0.1/24 dev hd-web")
			host.ip(t, "neigh add 198.18.0.2 dev hd-web lladdr 02:00:00:00:00:09")
			container.ip(t, "neigh add 198.18.0.1 dev eth0 lladdr "+outer.MAC.String())
			ping := newPinger(t, container, "198.18.0.1")
			tap := newPacketSocket(t, host, outer.Index)

			ping.send(t, 1)
			if got := ping.reply(t); got != 1 {
				t.Fatalf("before: reply %d", got)
			}
			tap.awaitRequest(t, 1)

			c, err := silence(host, "hd-web")
			if err != nil {
				t.Fatal(err)
			}
			ping.send(t, 2)
			tap.awaitRequest(t, 2)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			// Frames keep their order: had the stack answered the second,
			// that answer would come before the third's.
			ping.send(t, 3)
			if got := ping.reply(t); got != 3 {
				t.Errorf("reply %d while silenced", got)
			}
			if err := c.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
			if got := tc(t, host, "hd-web"); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// pinger sends ICMP echo requests and reads the replies.
type pinger struct {
	conn net.PacketConn
	to   net.Addr
}

func newPinger(t *testing.T, ns *netns, to string) *pinger {
	t.Helper()
	p := &pinger{to: &net.IPAddr{IP: net.ParseIP(to)}}
	ns.do(t, func() (err error) {
		p.conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

// send sends the echo request seq: type 8, code 0, checksum, identifier 0x4854,
// sequence number (RFC 792).
func (p *pinger) send(t *testing.T, seq uint16) {
	t.Helper()
	b := []byte{8, 0, 0, 0, 0x48, 0x54, 0, 0}
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], ^(0x0800 + 0x4854 + seq))
	if _, err := p.conn.WriteTo(b, p.to); err != nil {
		t.Fatal(err)
	}
}

// reply returns the sequence number of the next echo reply.
func (p *pinger) reply(t *testing.T) uint16 {
	t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 8 && b[0] == 0 {
			return binary.BigEndian.Uint16(b[6:])
		}
	}
}

// packetSocket is an AF_PACKET socket on an interface.
type packetSocket struct{ fd int }

func newPacketSocket(t *testing.T, ns *netns, index int) packetSocket {
	t.Helper()
	var s packetSocket
	ns.do(t, func() (err error) {
		const all = 0x0300 // ETH_P_ALL in network order.
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}),
		)
	})
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	return s
}

// read reads a frame. A signal, of which Go's runtime sends many, ends a read
// that has a timeout (signal(7)).
func (s packetSocket) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// awaitRequest reads frames until the echo request seq.
func (s packetSocket) awaitRequest(t *testing.T, seq uint16) {
	t.Helper()
	b := make([]byte, 1500)
	for {
		n, err := s.read(b)
		if err != nil {
			t.Fatalf("the packet socket doesn't see request %d: %v", seq, err)
		}
		const ethernet, ip = 14, 20
		if n >= ethernet+ip+8 && binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_IP && b[ethernet+9] == unix.IPPROTO_ICMP &&
			b[ethernet+ip] == 8 && binary.BigEndian.Uint16(b[ethernet+ip+6:]) == seq {
			return
		}
	}
}

// tc is what tc(8) knows of an interface: its qdisc and filters.
func tc(t *testing.T, ns *netns, name string) (shown string) {
	t.Helper()
	ns.do(t, func() error {
		for _, args := range []string{"qdisc show dev " + name + " clsact", "filter show dev " + name + " ingress", "filter show dev " + name + " egress"} {
			out, err := exec.Command("tc", strings.Fields(args)...).CombinedOutput()
			if err != nil {
				return errors.Join(err, errors.New(string(out)))
			}
			shown += string(out)
		}
		return nil
	})
	return strings.TrimSpace(shown)
}

// What a swd leaves that is killed: nothing with tcx.
func TestSilenceEndsWithTheProcess(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "a", "b")
	cmd := startChild(t, "silence "+ns.path+" a")
	if _, err := ns.Silence("a"); !errors.Is(err, ErrTaken) {
		t.Errorf("while another holds it: %v", err)
	}
	stopProcess(cmd)
	var c io.Closer
	await(t, "it is free after it was killed", func() (free bool) { // The kernel lets go of a program by and by.
		var err error
		if c, err = ns.Silence("a"); err != nil && !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
		return err == nil
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// With clsact a killed swd leaves the filter, which the next one replaces.
func TestSilenceReplacesALeftFilter(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "a", "b")
	left := func() {
		c, err := silenceByClsact(ns, "a")
		if err != nil {
			t.Fatal(err)
		}
		// Its descriptors go, as with the process, and its filter stays.
		if err := c.(*filterCloser).ns.Close(); err != nil {
			t.Fatal(err)
		}
	}
	left()
	if got := tc(t, ns, "a"); strings.Count(got, "direct-action") != 1 {
		t.Fatalf("filters: %s", got)
	}
	c, err := silenceByClsact(ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	if got := tc(t, ns, "a"); strings.Count(got, "direct-action") != 1 {
		t.Errorf("filters: %s", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := tc(t, ns, "a"); got != "" {
		t.Errorf("left: %s", got)
	}

	left()
	for _, name := range []string{"a", "a", "none"} {
		if err := ns.Unsilence(name); err != nil {
			t.Errorf("Unsilence(%s): %v", name, err)
		}
	}
	if got := tc(t, ns, "a"); got != "" {
		t.Errorf("left after Unsilence: %s", got)
	}
}

// Others' clsact, and their filters, are left alone.
func TestSilenceBesideOthersFilters(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "a", "b")
	other := func(parent uint32, priority uint16) *netlink.BpfFilter {
		program, err := loadSilencer()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = program.Close() })
		return &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: ns.link(t, "a").Index, Parent: parent, Priority: priority, Handle: 1, Protocol: unix.ETH_P_ALL},
			Fd:          program.FD(), Name: "somebody", DirectAction: true,
		}
	}
	egress := other(netlink.HANDLE_MIN_EGRESS, 1)
	ns.do(t, func() error {
		return errors.Join(netlink.QdiscAdd(clsact(egress.LinkIndex)), netlink.FilterAdd(egress))
	})
	before := tc(t, ns, "a")
	c, err := silenceByClsact(ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := tc(t, ns, "a"); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}

	first := other(netlink.HANDLE_MIN_INGRESS, clsactPriority)
	ns.do(t, func() error { return netlink.FilterAdd(first) })
	before = tc(t, ns, "a")
	if _, err := silenceByClsact(ns, "a"); !errors.Is(err, ErrTaken) {
		t.Errorf("with another's filter in the first place: %v", err)
	}
	if after := tc(t, ns, "a"); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

func TestSilenceOutlivesItsInterface(t *testing.T) {
	for name, silence := range silences {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			ns := newNetNS(t)
			ns.addVeth(t, "a", "b")
			c, err := silence(ns, "a")
			if err != nil {
				t.Fatal(err)
			}
			ns.ip(t, "link del dev a")
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if _, err := silence(ns, "a"); !errors.Is(err, ErrNoLink) {
				t.Errorf("of no interface: %v", err)
			}
		})
	}
}
