package attach

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestByPathErrors(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	fifo := filepath.Join(dir, "fifo") // To open it for reading would block.
	uts := filepath.Join(dir, "uts")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	bindNew(t, uts, unix.CLONE_NEWUTS, "uts")
	for _, tt := range []struct {
		path string
		want error
		says string
	}{
		{filepath.Join(dir, "none"), ErrNoNamespace, "namespace " + dir + "/none: no such namespace"},
		{filepath.Join(file, "below"), ErrNoNamespace, ""},
		{"", ErrNoNamespace, ""},
		{"/proc/999999999/ns/net", ErrNoNamespace, ""},
		{file, ErrNotNamespace, "ordinary file"},
		{fifo, ErrNotNamespace, "it is a FIFO:"},
		{"/dev/zero", ErrNotNamespace, "it is a device:"},
		{dir, ErrNotNamespace, "it is a directory:"},
		{uts, ErrNotNamespace, "another kind of namespace"},
		{"/proc/self/ns/mnt", ErrNotNamespace, "another kind of namespace"},
	} {
		_, err := ByPath(tt.path)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("ByPath(%q): %v, want %v saying %q", tt.path, err, tt.want, tt.says)
		}
	}
}

func TestByPID(t *testing.T) {
	checkLeaks(t)
	cmd := startProcess(t)
	ns, err := ByPID(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, ns)
	byPath, err := ByPath("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, byPath)
	if !ns.Same(byPath) || ns.ID() != byPath.ID() {
		t.Errorf("by pid %v, by path %v", ns.ID(), byPath.ID())
	}
	if err := ns.Alive(); err != nil {
		t.Errorf("of a running process: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet, a zombie has a number and no namespace any more.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ns.Alive(); !errors.Is(err, ErrNoNamespace) {
			t.Errorf("of an ended process: %v", err)
		}
		if _, err := ByPID(cmd.Process.Pid); !errors.Is(err, ErrNoNamespace) {
			t.Errorf("ByPID of an ended process: %v", err)
		}
		stopProcess(cmd) // The second time, it is reaped.
	}
}

func TestByPIDErrors(t *testing.T) {
	checkLeaks(t)
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := ByPID(pid); !errors.Is(err, ErrNoNamespace) {
			t.Errorf("ByPID(%d): %v", pid, err)
		}
	}
}

func TestAliveByPath(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	if err := ns.Alive(); err != nil {
		t.Error(err)
	}
	unbind(ns.path)
	if err := ns.Alive(); !errors.Is(err, ErrNotNamespace) {
		t.Errorf("unmounted: %v", err)
	}
	bindNew(t, ns.path, unix.CLONE_NEWNET, "net")
	if err := ns.Alive(); !errors.Is(err, ErrMoved) {
		t.Errorf("another at the same path: %v", err)
	}
	unbind(ns.path)
	if err := os.Remove(ns.path); err != nil {
		t.Fatal(err)
	}
	if err := ns.Alive(); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("path gone: %v", err)
	}
}

func TestDo(t *testing.T) {
	checkLeaks(t)
	a, b := newNetNS(t), newNetNS(t)
	own, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, own)
	here := func() ID {
		ns, err := Own()
		if err != nil {
			t.Error(err)
			return ID{}
		}
		defer closing(t, ns)
		return ns.ID()
	}
	if a.Same(b.Namespace) || a.Same(own) {
		t.Fatal("the namespaces are the same")
	}
	var inA, inB, back ID
	boom := errors.New("boom")
	err = a.Do(func() error {
		inA = here()
		err := b.Do(func() error { inB = here(); return boom })
		back = here()
		return err
	})
	if !errors.Is(err, boom) || inA != a.ID() || inB != b.ID() || back != a.ID() || here() != own.ID() {
		t.Errorf("Do: %v; in a %v, in b %v, back %v, now %v", err, inA, inB, back, here())
	}
	if err := a.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errGoexit) {
		t.Errorf("Goexit: %v", err)
	}
	func() {
		defer func() {
			err, _ := recover().(error)
			if !errors.Is(err, boom) || here() != own.ID() {
				t.Errorf("recovered %v in %v", err, here())
			}
		}()
		err := a.Do(func() error { panic(boom) })
		t.Errorf("after a panic: %v", err)
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() error { t.Error("inside a closed namespace"); return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A thread that can't go back must not serve other goroutines: it ends.
func TestDoGivesUpAThreadThatCannotGoBack(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	var tid int
	ns.do(t, func() error {
		tid = unix.Gettid()
		return closeWayBack(ns.ID())
	})
	task := "/proc/self/task/" + strconv.Itoa(tid)
	await(t, "the thread has ended", func() bool {
		_, err := os.Readlink(task + "/ns/net")
		return err != nil
	})
}

// closeWayBack closes every descriptor of a network namespace but one's.
func closeWayBack(but ID) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range fds {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(to, "net:[") || to == but.String() {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}
