package underlay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// TestReplay: what the kernel refuses to cut goes a datagram at a time, is
// remembered, and tried again. A socket without checksums makes it refuse.
func TestReplay(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWired(t)
		a, b := w.pair(v6, Config{SourcePorts: 1})
		noCheck := func(on int) {
			must(t, unix.SetsockoptInt(a.sources[0], a.family.noCheckLevel, a.family.noCheckTX, on))
		}
		noCheck(1)
		// The one in the middle is refused; the others must neither be lost nor come twice.
		data := several(rand.New(rand.NewPCG(3, 3)), 10, 900, 900, 899, 900, 900, 1)
		a.sends(0, 0, data...)
		same(t, "refused", b.recv(len(data)), data, 0)
		if a.to.Segments() {
			t.Error("that the kernel refuses is not remembered")
		}
		a.sends(0, 2, data...)
		same(t, "remembered", b.recv(len(data)), data, 2)
		noCheck(0)
		for range retryAfter {
			if a.to.Segments() {
				break
			}
			a.sends(0, 0, data[1:4]...)
			same(t, "again", b.recv(3), data[1:4], 0)
		}
		a.sends(0, 0, data[1:4]...)
		if all := b.recv(3); all[0].of != 3 {
			t.Error("the kernel is not asked again")
		}
		if !a.to.Segments() {
			t.Error("once asked again, it is still taken to refuse")
		}
	}
}

// TestMTU: what is longer than the device's MTU is dropped and not fragmented,
// and nothing else with it.
func TestMTU(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWired(t)
		a, b := w.pair(v6, Config{})
		overhead := 28
		if v6 {
			overhead = 48
		}
		w.a.ip("link set v0 mtu 1400")
		r := rand.New(rand.NewPCG(4, 4))
		fits := random(r, 1400-overhead)
		long := random(r, 1400-overhead+1)
		if got := names(a.send(0, 0, fits, long, fits[:10], fits[:20])); got != "none exceeds-mtu none" {
			t.Errorf("drops %s", got)
		}
		// A shorter one joins the long one's message and goes with it.
		same(t, "what fits", b.recv(2), [][]byte{fits, fits[:20]}, 0)
		if got := names(a.send(0, 0, long, long)); got != "exceeds-mtu" {
			t.Errorf("drops %s of a super-packet", got)
		}
		if !a.to.Segments() {
			t.Error("long datagrams are taken for a kernel that can't segment")
		}
		// A lower MTU of the route, which an ICMP error may have set, limits nothing.
		w.a.ip("link set v0 mtu 1500")
		net := netip.PrefixFrom(address(v6, 2).Addr(), address(v6, 2).Addr().BitLen())
		w.a.ip(fmt.Sprintf("route add %s dev v0 mtu 1300", net))
		a.sends(0, 0, long, long)
		same(t, "beyond the route's MTU", b.recv(2), [][]byte{long, long}, 0)
		mtu, err := a.pathMTUFrom(w)
		if err != nil || mtu != 1300 {
			t.Errorf("path MTU %d, %v, want the route's 1300", mtu, err)
		}
	}
}

func (e *end) pathMTUFrom(w *wired) (mtu int, err error) {
	w.a.do(func() { mtu, err = e.PathMTU(e.to.Addr().AddrPort().Addr()) })
	return mtu, err
}

func TestPathMTU(t *testing.T) {
	w := newWired(t)
	a, _ := w.pair(false, Config{})
	if mtu, err := a.pathMTUFrom(w); err != nil || mtu != 1500 {
		t.Errorf("path MTU %d, %v, want 1500", mtu, err)
	}
	w.a.do(func() {
		if _, err := a.PathMTU(netip.MustParseAddr("203.0.113.1")); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("without a route: %v", err)
		}
		if _, err := a.PathMTU(netip.MustParseAddr("2001:db8::2")); !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Errorf("of the other family: %v", err)
		}
	})
}

// TestLinkDown: a device that goes down and comes back is no end, nor is a
// place without a route.
func TestLinkDown(t *testing.T) {
	w := newWired(t)
	a, b := w.pair(false, Config{})
	data := several(rand.New(rand.NewPCG(5, 5)), 100, 200, 300)
	w.a.ip("link set v0 down")
	if got := names(a.send(0, 0, data...)); got != "tx-down tx-down tx-down" {
		t.Errorf("drops %s", got)
	}
	nowhere := dest(t, netip.MustParseAddrPort("203.0.113.1:4789"))
	w.a.ip("link set v0 up")
	w.connected(false)
	a.box.Add(nowhere, 0, 0, data[0], nil)
	a.box.Add(a.to, 0, 0, data[1], nil)
	a.box.Add(nowhere, 0, 0, data[2], nil)
	if got := names(a.flush()); got != "tx-down none tx-down" {
		t.Errorf("drops %s", got)
	}
	same(t, "after it came back", b.recv(1), data[1:2], 0)
	a.box.Add(dest(t, address(true, 2)), 0, 0, data[0], nil)
	if d := a.flush()[0]; d != dataplane.TxDown {
		t.Errorf("to the other family: %s", d)
	}
}

// TestFull: a socket whose buffer is full drops messages, counted, whether that
// is of the way out or the way in.
func TestFull(t *testing.T) {
	w := newWired(t)
	a, b := w.pair(false, Config{SourcePorts: 1})
	r := rand.New(rand.NewPCG(6, 6))
	must(t, unix.SetsockoptInt(b.FD(0), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
	for range 100 {
		a.sends(0, 0, several(r, 1000)...)
	}
	arrived := 0
	for start := time.Now(); ; {
		arrived += len(b.recvOn(0))
		lost, err := b.Lost(0)
		if err == nil && lost > 0 && arrived+int(lost) == 100 {
			break
		}
		if err != nil || time.Since(start) > patience {
			t.Fatalf("%d of 100 arrived, but %d were lost, %v", arrived, lost, err)
		}
	}
	// A qdisc that sends nothing keeps the sender's memory.
	w.a.exec("tc qdisc add dev v0 root tbf rate 8kbit burst 1600 limit 100000000")
	var full, sent int
	for range 100 {
		for _, d := range a.send(0, 0, repeat(r, 40, 1400, 1400)...) {
			switch d {
			case dataplane.TxQueueFull:
				full++
			case dataplane.None:
				sent++
			default:
				t.Fatalf("dropped: %s", d)
			}
		}
	}
	if full == 0 || sent < 8 {
		t.Errorf("%d super-packets were sent before the buffer was full, %d dropped", sent, full)
	}
}

// TestRefused: what a firewall rejects is refused, and the next is not.
func TestRefused(t *testing.T) {
	w := newWired(t)
	a, b := w.pair(false, Config{})
	w.a.exec("nft add table ip t")
	w.a.exec("nft add chain ip t o { type filter hook output priority 0 ; }")
	w.a.exec("nft add rule ip t o ip length 128 drop")
	data := several(rand.New(rand.NewPCG(7, 7)), 99, 100, 101)
	if got := names(a.send(0, 0, data...)); got != "none tx-refused none" {
		t.Errorf("drops %s", got)
	}
	same(t, "the others", b.recv(2), [][]byte{data[0], data[2]}, 0)
}

// TestWrongChecksum: the kernel drops what has a wrong UDP checksum, and takes
// what has none.
func TestWrongChecksum(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWired(t)
		_, b := w.pair(v6, Config{})
		raw, to := -1, address(v6, 2).Addr()
		w.a.do(func() {
			var err error
			raw, err = unix.Socket(b.family.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
			must(t, err)
		})
		send := func(checksum uint16, data []byte) {
			u := []byte{0xc0, 0, port >> 8, port & 0xff, 0, byte(8 + len(data)), byte(checksum >> 8), byte(checksum)}
			must(t, unix.Sendto(raw, append(u, data...), 0, sockaddr(netip.AddrPortFrom(to, 0))))
		}
		data := several(rand.New(rand.NewPCG(8, 8)), 20, 200, 20, 200)
		send(0x1234, data[0])
		send(0x1234, data[1]) // More than 76 bytes are verified when they are read.
		send(0, data[2])
		send(0, data[3])
		same(t, "without a checksum", b.recv(2), data[2:], 0)
		if lost, err := b.Lost(0); err != nil || lost != 1 {
			t.Errorf("%d counted, %v", lost, err)
		}
		must(t, unix.Close(raw))
	}
}

// TestPortInUse: a clear refusal, whoever has the port, and nothing is left open.
func TestPortInUse(t *testing.T) {
	n := newNetNS(t)
	n.ip("addr add 192.0.2.1/32 dev lo")
	before := descriptors(t)
	refused := func(who string, c Config, want error, says string) {
		t.Helper()
		_, err := n.tryOpen(c)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %v and %q", who, err, want, says)
		}
	}
	all := netip.MustParseAddrPort("0.0.0.0:4789")
	n.ip("link add vx0 type vxlan id 1 dstport 4789 local 192.0.2.1 dev lo")
	n.ip("link set vx0 up")
	refused("a vxlan device", Config{Local: all}, unix.EADDRINUSE, "vxlan")
	n.ip("link del vx0")
	var u *Underlay
	n.do(func() {
		var err error
		u, err = Open(Config{Local: address(false, 1), Workers: 3})
		must(t, err)
	})
	refused("an underlay", Config{Local: all, Workers: 2}, unix.EADDRINUSE, "4789")
	refused("the same one", Config{Local: address(false, 1)}, unix.EADDRINUSE, "another swd")
	must(t, u.Close())
	must(t, u.Close())
	if _, err := u.Lost(0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("asked when closed: %v", err)
	}
	refused("nobody's address", Config{Local: address(false, 9)}, unix.EADDRNOTAVAIL, "192.0.2.9")
	for _, c := range []Config{
		{}, {Local: all, Workers: -1}, {Local: all, Workers: dataplane.MaxWorkers + 1},
		{Local: all, SourcePorts: 3}, {Local: all, SourcePorts: 128}, {Local: all, SourcePorts: -2},
		{Local: netip.MustParseAddrPort("224.0.0.1:4789")}, {Local: netip.MustParseAddrPort("[fe80::1%lo]:4789")},
	} {
		if u, err := n.tryOpen(c); err == nil {
			t.Errorf("opened %+v as %s", c, u.Local())
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// descriptors returns how many descriptors this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestSourcePortsTaken: ports that others have are left out.
func TestSourcePortsTaken(t *testing.T) {
	n := newNetNS(t)
	var fds []int
	defer func() {
		for _, fd := range fds {
			must(t, unix.Close(fd))
		}
	}()
	n.do(func() {
		for _, p := range []int{firstSourcePort, firstSourcePort + 1, firstSourcePort + 5} {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			fds = append(fds, fd)
			must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: p}))
		}
	})
	u := n.open(Config{Local: netip.MustParseAddrPort("0.0.0.0:0")})
	if u.Local().Port() == 0 {
		t.Error("the port that the kernel chose is not told")
	}
	last, err := boundTo(u.sources[MaxSourcePorts-1])
	if err != nil || last.Port() != firstSourcePort+MaxSourcePorts+2 {
		t.Errorf("the last source port is %s, %v", last, err)
	}
}

func TestDropFor(t *testing.T) {
	for errno, want := range map[syscall.Errno]dataplane.Drop{
		unix.EAGAIN: dataplane.TxQueueFull, unix.ENOBUFS: dataplane.TxQueueFull, unix.ENOMEM: dataplane.TxQueueFull,
		unix.ENETDOWN: dataplane.TxDown, unix.ENETUNREACH: dataplane.TxDown, unix.EHOSTUNREACH: dataplane.TxDown,
		unix.EADDRNOTAVAIL: dataplane.TxDown, unix.EAFNOSUPPORT: dataplane.TxDown,
		unix.ENODEV: dataplane.TxDown, unix.EBADF: dataplane.TxDown,
		unix.EMSGSIZE: dataplane.ExceedsMTU,
		unix.EPERM:    dataplane.TxRefused, unix.EINVAL: dataplane.TxRefused, unix.EIO: dataplane.TxRefused,
	} {
		if got := dropFor(errno); got != want {
			t.Errorf("%v: %s, want %s", errno, got, want)
		}
	}
}
