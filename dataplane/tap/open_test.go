package tap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// ringed is what a name ends in for startHolder that is to be held with rings.
const ringed = "+rings"

// hold is the process that this test binary is with HDTAP_HOLD set: it opens a
// TAP with two queues, says so, and keeps it until it is killed.
func hold(name string) int {
	c := Config{Name: strings.TrimSuffix(name, ringed), Queues: 2}
	var err error
	if c.Name != name {
		c.Rings, err = NewRings(c.Queues)
	}
	var p *Port
	if err == nil {
		p, err = Open(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for p.Fault() == nil || errors.Is(p.Fault(), ErrDown) {
		_, _ = unix.Poll(nil, 1000)
	}
	return 0
}

// startHolder starts it in a namespace.
func startHolder(t *lab.T, n *lab.NetNS, name string) *lab.Process {
	t.Helper()
	exe, err := os.Executable()
	t.NoError(err)
	proc, err := n.Start("env", "HDTAP_HOLD="+name, exe)
	t.NoError(err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := proc.WaitStdout(ctx, "open"); err != nil {
		t.Fatalf("the other process: %v: %s", err, proc.Stderr())
	}
	return proc
}

func TestTakeOverFromAKilledProcess(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	proc := startHolder(l, ns, "t0")
	l.NoError(ns.AddAddress("t0", "198.18.0.1/24"))
	l.NoError(ns.SetUp("t0", true))
	mac, err := ns.MAC("t0")
	l.NoError(err)

	if err := openErr(l, ns, Config{Name: "t0"}); !errors.Is(err, ErrHeld) {
		t.Fatalf("Open of a TAP that another process holds: %v, want ErrHeld", err)
	}
	proc.Kill()
	<-proc.Exited()

	for _, queues := range []int{3, 1, 2} {
		p := openIn(l, ns, Config{Name: "t0", Queues: queues})
		if p.Created() {
			t.Error("the TAP was made anew, not taken over")
		}
		now, err := ns.MAC("t0")
		l.NoError(err)
		link, err := ns.Link("t0")
		l.NoError(err)
		addrs, err := ns.Netlink().AddrList(link, unix.AF_INET)
		l.NoError(err)
		if now.String() != mac.String() || len(addrs) != 1 {
			t.Errorf("after the take-over the MAC is %v, was %v; addresses %v", now, mac, addrs)
		}
		exchange(l, ns, p, "t0")
		l.NoError(p.Close())
		l.NoError(p.Close())
		if !ns.HasLink("t0") {
			t.Fatal("Close removed the device")
		}
	}
}

// A device has 256 queues, each of which would have a discipline of its own.
func TestANewDeviceHasNoQueueingDiscipline(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	discipline := func(p *Port) string {
		attrs, err := p.rtnl.link("t0")
		l.NoError(err)
		return text(attrs[unix.IFLA_QDISC])
	}
	p := openIn(l, ns, Config{Name: "t0", Queues: 2})
	for range 2 {
		if got := discipline(p); got != "noqueue" {
			t.Errorf("up, its queueing discipline is %q, want noqueue", got)
		}
		exchange(l, ns, p, "t0")
		l.NoError(ns.SetUp("t0", false))
		l.NoError(ns.SetUp("t0", true))
	}
	// What somebody sets stays.
	_, err := ns.Run(t.Context(), "tc", "qdisc", "replace", "dev", "t0", "root", "pfifo")
	l.NoError(err)
	l.NoError(p.Close())
	p = openIn(l, ns, Config{Name: "t0", Queues: 2})
	if got := discipline(p); got != "pfifo" || p.Created() {
		t.Errorf("taken over, its queueing discipline is %q, want pfifo", got)
	}
	exchange(l, ns, p, "t0")
}

// exchange sends a frame each way.
func exchange(t *lab.T, n *lab.NetNS, p *Port, ifName string) {
	t.Helper()
	s := openSocket(t, n, ifName)
	got := -1
	// A device that is taken over has its carrier back, but swallows frames until
	// the kernel has taken note of that.
	for start := time.Now(); got < 0 && time.Since(start) < patience; {
		t.NoError(s.send(plain(60, 7), wire.VNetHdr{}))
		for w := range p.queues {
			b := dataplane.NewBatch(w)
			if p.Pull(b); b.N > 0 {
				got = int(b.Frames[0].Bytes()[20])
			}
		}
	}
	p.Push(batchOf(len(p.queues)-1, frame{data: plain(60, 8)}))
	back, _, err := s.receive()
	t.NoError(err)
	if got != 7 || back[20] != 8 {
		t.Errorf("%s carried frame %d in and %d out, want 7 and 8", ifName, got, back[20])
	}
}

func TestTransientVanishesWithItsQueues(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Queues: 2, Transient: true})
	l.NoError(ns.SetUp("t0", true))
	exchange(l, ns, p, "t0")
	l.NoError(p.Close())
	if ns.HasLink("t0") {
		t.Error("the device is there after its last queue was closed")
	}
}

func TestDeleteRemovesTheDevice(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	for range 2 {
		p := openIn(l, ns, Config{Name: "t0", Queues: 2})
		if !p.Created() {
			t.Error("the device wasn't made anew")
		}
		l.NoError(p.Delete())
		if ns.HasLink("t0") {
			t.Fatal("the device is there after Delete")
		}
		if err := p.Delete(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Delete: %v, want net.ErrClosed", err)
		}
		if err := p.Fault(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Fault after Delete: %v, want net.ErrClosed", err)
		}
	}
	p := openIn(l, ns, Config{Name: "t0"})
	l.NoError(ns.DeleteLink("t0"))
	l.NoError(p.Delete()) // That it is gone is what was wanted.
}

func TestOpenRefuses(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	l.NoError(ns.AddBridge("br0"))
	l.Run(ns, "ip", "tuntap", "add", "tun0", "mode", "tun")
	l.Run(ns, "ip", "tuntap", "add", "single", "mode", "tap")
	l.Run(ns, "ip", "tuntap", "add", "foreign", "mode", "tap", "multi_queue", "user", "12345")
	l.Run(ns, "ip", "tuntap", "add", "nobodys", "mode", "tap", "multi_queue")
	tests := []struct {
		name   string
		cfg    Config
		want   error
		saying string
	}{
		{"loopback", Config{Name: "lo"}, ErrTaken, "no TAP"},
		{"another kind", Config{Name: "br0"}, ErrTaken, "no TAP (bridge)"},
		{"a TUN", Config{Name: "tun0"}, ErrTaken, "TUN device"},
		{"one queue", Config{Name: "single"}, ErrTaken, "multi_queue"},
		{"another user's", Config{Name: "foreign"}, ErrTaken, "user 12345"},
		{"no name", Config{}, nil, "interface name"},
		{"too long", Config{Name: "a123456789012345"}, nil, "interface name"},
		{"a template", Config{Name: "t%d"}, nil, "interface name"},
		{"a path", Config{Name: "a/b"}, nil, "interface name"},
		{"too many queues", Config{Name: "t0", Queues: dataplane.MaxWorkers + 1}, nil, "queues"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := openErr(l, ns, tt.cfg)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.saying) {
				t.Errorf("error %q, want %v saying %q", err, tt.want, tt.saying)
			}
		})
	}
	for _, name := range []string{"br0", "tun0", "single", "foreign"} {
		if !ns.HasLink(name) {
			t.Errorf("%s is gone after the refusal", name)
		}
	}
	p := openIn(l, ns, Config{Name: "nobodys"})
	exchange(l, ns, p, "nobodys")
}

// TestFailedOpenLeavesNothing has Open run out of descriptors at each of its
// steps.
func TestFailedOpenLeavesNothing(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	var limit unix.Rlimit
	l.NoError(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	next := fillDescriptors(l)
	failed := 0
	for spare := 0; ; spare++ {
		var p *Port
		var openErr error
		l.NoError(ns.Do(func() error {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + spare), Max: limit.Max}); err != nil {
				return err
			}
			p, openErr = Open(Config{Name: "t0", Queues: 3})
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		}))
		if openErr == nil {
			l.NoError(p.Delete())
			break
		}
		failed++
		if ns.HasLink("t0") {
			t.Errorf("with %d spare descriptors Open failed (%v) and left the device", spare, openErr)
		}
		if spare > 20 {
			t.Fatalf("Open still fails: %v", openErr)
		}
	}
	if failed < 4 {
		t.Errorf("Open failed %d times, want at every step", failed)
	}
}

// fillDescriptors takes every free descriptor number below the highest in use
// until the test ends, and returns the first that is free then.
func fillDescriptors(t *lab.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	t.NoError(err)
	highest := 0
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		t.NoError(err)
		highest = max(highest, fd)
	}
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		t.NoError(err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		if fd >= highest {
			return fd + 1
		}
	}
}

func TestAttributesOfUntrustedBytes(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {3, 0, 1, 0}, {9, 0, 1, 0, 5}, {4, 0, 1, 0, 5, 0}, {5, 0, 1, 0, 5}} {
		for typ, value := range attributes(b) {
			if typ != 1 || len(value) > 1 {
				t.Errorf("attributes(%v) found %d: %v", b, typ, value)
			}
		}
	}
}
