package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a swd that is to be killed: it does the job
// `silence NSPATH IFNAME` or `share NSPATH IFNAME`, says so, and waits.
const childEnv = "HEDDLE_ATTACH_TEST_JOB"

// The process's first thread is the main goroutine's. It can't end: a goroutine
// that is to take its thread along (bindNew's, and Do's that can't go back)
// would leave that one in the namespace, which lives as long as it
// (runtime/proc.go, mexit).
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		child(job)
		return
	}
	goleak.VerifyTestMain(m)
}

func child(job string) {
	words := strings.Fields(job)
	ns, err := ByPath(words[1])
	var held io.Closer
	switch {
	case err != nil:
	case words[0] == "share":
		held, err = ns.Share(words[2], testClaim)
	default:
		held, err = ns.Silence(words[2])
	}
	fmt.Println(err)
	_, _ = os.Stdin.Read(make([]byte, 1)) // Ends with the parent at the latest.
	runtime.KeepAlive(held)
}

// startChild starts one and waits until it has done its job.
func startChild(t *testing.T, job string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+job)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopProcess(cmd) })
	said := make([]byte, len("<nil>\n"))
	if _, err := io.ReadFull(stdout, said); err != nil || string(said) != "<nil>\n" {
		t.Fatalf("child: %q, %v", said, err)
	}
	return cmd
}

// netns is a namespace of a test. It is bound to a path, and dies with the
// test unless the code under test leaks it.
type netns struct {
	*Namespace
	path string
}

// newNetNS makes an empty namespace.
func newNetNS(t *testing.T) *netns {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hdatt")
	bindNew(t, path, unix.CLONE_NEWNET, "net")
	ns, err := ByPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		unbind(path)
	})
	return &netns{ns, path}
}

// bindNew makes a namespace on a thread of its own and binds it to a path.
func bindNew(t *testing.T, path string, flag int, kind string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends here.
		err := unix.Unshare(flag)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/"+kind, path, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unbind(path) })
}

func unbind(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH) // Some tests have done it.
}

// do runs f inside and fails the test with its error.
func (n *netns) do(t *testing.T, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// link returns facts that must be there.
func (n *netns) link(t *testing.T, name string) Link {
	t.Helper()
	l, err := n.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// addresses lists those of an interface.
func (n *netns) addresses(t *testing.T, name string) (all []address) {
	t.Helper()
	index := n.link(t, name).Index
	n.do(t, func() (err error) {
		all, err = addresses(index)
		return err
	})
	return all
}

// addVeth makes a pair of somebody else's, both ends in the namespace.
func (n *netns) addVeth(t *testing.T, a, b string) {
	t.Helper()
	n.do(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a
		pair := netlink.NewVeth(attrs)
		pair.PeerName = b
		return netlink.LinkAdd(pair)
	})
}

func (n *netns) setUp(t *testing.T, names ...string) {
	t.Helper()
	n.do(t, func() error {
		for _, name := range names {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// ip runs iproute2 inside: what it prints is the kernel's state told by
// somebody else than the code under test.
func (n *netns) ip(t *testing.T, args string) string {
	t.Helper()
	var out []byte
	n.do(t, func() (err error) {
		out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		return err
	})
	return strings.TrimSpace(string(out))
}

// state is what an atomic change may not leave changed: everything but what
// the kernel does by itself when a link comes up (carrier, of which routes tell
// too, link-local addresses and their routes).
func (n *netns) state(t *testing.T) string {
	t.Helper()
	var s strings.Builder
	n.do(t, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			l := newLink(l)
			l.Running = false
			fmt.Fprintf(&s, "%+v\n", l)
		}
		return err
	})
	for _, show := range []string{"-o addr show", "-4 route show", "-6 route show"} {
		for line := range strings.Lines(n.ip(t, show)) {
			if !strings.Contains(line, "fe80::") {
				s.WriteString(strings.Replace(line, " linkdown", "", 1))
			}
		}
	}
	return s.String()
}

// checkLeaks fails the test if there are more or fewer descriptors at its end
// than there were; a tcx program lives by one (anon_inode:bpf_link). Call it
// first: its cleanup runs last.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := opened(t)
	t.Cleanup(func() {
		runtime.GC() // Not what closes: a leak would only be seen less.
		after := opened(t)
		for deadline := time.Now().Add(patience); after != before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // A goroutine of a library's may be about to close one.
			after = opened(t)
		}
		if after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func opened(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// startProcess starts one in a namespace of its own.
func startProcess(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// The parent that Pdeathsig means is the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopProcess(cmd) })
	return cmd
}

func stopProcess(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// closing closes what a test opened.
func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// patience is how long a test waits for what takes moments, on a machine that is
// busy with something else for seconds.
const patience = 30 * time.Second

// await waits until a condition holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// running waits until an interface is or isn't in use: the kernel follows the
// carrier up to a second later (linkwatch in net/core/link_watch.c).
func (n *netns) running(t *testing.T, name string, want bool) {
	t.Helper()
	await(t, fmt.Sprintf("%s running: %v", name, want), func() bool { return n.link(t, name).Running == want })
}

// within returns what comes first from a channel.
func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came within %v", patience)
	}
	return v
}

func writeFile(path, s string) error { return os.WriteFile(path, []byte(s), 0) }

func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
