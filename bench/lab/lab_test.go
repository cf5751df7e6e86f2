package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestMain(m *testing.M) { Main(m) }

// a ─ veth ─ b: what the lab builds carries traffic and is counted.
func TestVethCarriesPing(t *testing.T) {
	l := New(t)
	a, b := l.NewNetNS("a"), l.NewNetNS("b")
	l.Veth(a, "eth0", b, "eth0")
	l.NoError(a.AddAddress("eth0", "198.18.0.1/24", "2001:db8::1/64"))
	l.NoError(b.AddAddress("eth0", "198.18.0.2/24", "2001:db8::2/64"))
	l.Run(a, "ping", "-c1", "-W10", "198.18.0.2")
	l.Run(a, "ping", "-6", "-c1", "-W10", "2001:db8::2")
	s, err := b.Stats("eth0")
	l.NoError(err)
	if s.RxFrames < 2 || s.TxFrames < 2 {
		t.Errorf("after two pings the counters are %+v", s)
	}
}

// a ─ veth ─ bridge ─ veth ─ b, offloads off at a.
func TestBridgeCarriesPing(t *testing.T) {
	l := New(t)
	a, b, host := l.NewNetNS("a"), l.NewNetNS("b"), l.NewNetNS("host")
	l.Veth(host, "p0", a, "eth0")
	l.Veth(host, "p1", b, "eth0")
	l.NoError(host.AddBridge("br0", "p0", "p1"))
	for i, n := range []*NetNS{a, b} {
		l.NoError(n.AddAddress("eth0", fmt.Sprintf("198.18.7.%d/24", i+1)))
	}
	l.NoError(a.SetOffloads(t.Context(), "eth0", false))
	l.Run(a, "ping", "-c1", "-W10", "198.18.7.2")
}

func TestDoRunsInside(t *testing.T) {
	l := New(t)
	n := l.NewNetNS("a")
	outside := ownLinkCount(t)
	err := n.Do(func() error {
		ifs, err := net.Interfaces()
		if err == nil && (len(ifs) == outside || ifs[0].Name != "lo") {
			err = fmt.Errorf("sees %v", ifs)
		}
		return err
	})
	l.NoError(err)
	want := errors.New("mine")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic in Do was swallowed")
			}
		}()
		_ = n.Do(func() error { panic("inside") })
	}()
	if got := ownLinkCount(t); got != outside {
		t.Errorf("the caller sees %d links, before Do %d", got, outside)
	}
}

func ownLinkCount(t *testing.T) int {
	t.Helper()
	links, err := ownLinks()
	if err != nil {
		t.Fatal(err)
	}
	return len(links)
}

func TestRunReportsHowItEnded(t *testing.T) {
	l := New(t)
	n := l.NewNetNS("a")
	out, err := n.Run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	if err == nil || out.Code != 3 || out.Stdout != "out\n" || out.Stderr != "err\n" {
		t.Errorf("got %+v, %v", out, err)
	}
	if !strings.Contains(err.Error(), "err") {
		t.Errorf("the error doesn't show stderr: %v", err)
	}
	if _, err := n.Run(t.Context(), "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a missing program gave %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := n.Run(ctx, "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program past its time gave %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("ending it took %v", took)
	}
}

func TestWaitStdout(t *testing.T) {
	l := New(t)
	n := l.NewNetNS("a")
	p, err := n.Start("sh", "-c", "echo ready; exec sleep 60")
	l.NoError(err)
	l.NoError(p.WaitStdout(t.Context(), "ready\n"))
	l.NoError(p.Stop())
	p, err = n.Start("sh", "-c", "echo no, I fail >&2; exit 1")
	l.NoError(err)
	err = p.WaitStdout(t.Context(), "ready\n")
	if !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "no, I fail") {
		t.Errorf("waiting for a program that failed gave %v", err)
	}
}

// Close takes away processes that ignore SIGTERM, and says so.
func TestCloseEndsEverything(t *testing.T) {
	l, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.NewNetNS("a")
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Start("sh", "-c", "trap '' TERM; echo set; while :; do sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitStdout(t.Context(), "set\n"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil {
		t.Error("a process that had to be killed was not reported")
	}
	select {
	case <-p.Exited():
	default:
		t.Error("the process runs on")
	}
	if _, err := os.Stat(n.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace's name is left: %v", err)
	}
	if _, err := n.Start("true"); err == nil {
		t.Error("a closed lab started a process")
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// A namespace of a process that is gone is removed by the next Open, also one
// whose name is no mount any more; one of a living process is not.
func TestOpenRemovesStale(t *testing.T) {
	// It lives until all is there: any other test's Open removes what is stale.
	gone := exec.CommandContext(t.Context(), "cat")
	stdin, err := gone.StdinPipe()
	if err == nil {
		err = gone.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%s-%d-1-stale", Prefix, gone.Process.Pid)
	owner := &NetNS{Name: stale, launch: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	made := make(chan error)
	go owner.own(made)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	close(owner.quit)
	<-owner.ended
	owner.link.Close()
	_ = owner.handle.Close()

	dir := filepath.Join(os.TempDir(), stale)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}

	bare := filepath.Join(netnsDir, fmt.Sprintf("%s-%d-2-bare", Prefix, gone.Process.Pid))
	if err := os.WriteFile(bare, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stdin.Close(), gone.Wait()); err != nil {
		t.Fatal(err)
	}

	l := New(t)
	for _, path := range []string{dir, bare} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the stale %s is there: %v", path, err)
		}
	}
	living := l.NewNetNS("living")
	if _, err := netns.GetFromName(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale namespace is there: %v", err)
	}
	New(t)
	h, err := netns.GetFromName(living.Name)
	if err != nil {
		t.Fatalf("the living namespace is gone: %v", err)
	}
	_ = h.Close()
}

func TestTranscriptIsBounded(t *testing.T) {
	tr := newTranscript()
	line := strings.Repeat("x", 1<<20-1) + "\n"
	for range 12 {
		_, _ = tr.Write([]byte(line))
	}
	_, _ = tr.Write([]byte("the end"))
	s := tr.String()
	if len(s) > maxTranscript+100 || !strings.HasSuffix(s, "the end") || !strings.Contains(s, "[… cut …]") {
		t.Errorf("kept %d bytes ending in %q", len(s), s[len(s)-10:])
	}
}

// A veth is in use when it is made: the first frame isn't lost.
func TestVethRunsAtOnce(t *testing.T) {
	l := New(t)
	a, b := l.NewNetNS("a"), l.NewNetNS("b")
	for i := range 20 {
		name := fmt.Sprintf("p%d", i)
		l.Veth(a, name, b, name)
		for _, n := range []*NetNS{a, b} {
			link, err := n.Link(name)
			l.NoError(err)
			if state := link.Attrs().OperState; state != netlink.OperUp {
				t.Errorf("%s in %s is %v", name, n.Name, state)
			}
		}
	}
}
