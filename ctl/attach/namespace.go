package attach

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// ID identifies a network namespace for as long as it lives: the device and
// inode of its file in nsfs (namespaces(7)). It can be used again after the
// namespace has died.
type ID struct{ Dev, Ino uint64 }

// String returns the inode as the kernel prints it.
func (id ID) String() string { return "net:[" + strconv.FormatUint(id.Ino, 10) + "]" }

// Namespace is an open network namespace. It keeps the namespace alive until
// Close.
type Namespace struct {
	file *os.File
	id   ID
	name string // What it was opened by, for errors.
	// path is what to open again to see whether it still leads here; empty
	// for Own.
	path string
	// process is a pidfd; nil unless the namespace was opened by a process.
	process *os.File
}

// Own opens the namespace of the calling thread: swd's own, or, inside
// Namespace.Do, that one.
func Own() (*Namespace, error) {
	ns, err := open("/proc/thread-self/ns/net", "own namespace")
	if err != nil {
		return nil, err
	}
	ns.path = ""
	return ns, nil
}

// ByPath opens the namespace that a path leads to, as /run/netns/NAME. It
// fails with ErrNoNamespace or ErrNotNamespace.
func ByPath(path string) (*Namespace, error) {
	return open(path, "namespace "+path)
}

// ByPID opens the namespace of a process, by the number that swd's own PID
// namespace knows it by. It fails with ErrNoNamespace if there is none or it
// has ended; the namespace is never that of a later process of the same
// number.
func ByPID(pid int) (*Namespace, error) {
	name := "process " + strconv.Itoa(pid)
	if pid <= 0 {
		return nil, fmt.Errorf("%s: a process id is 1 or more: %w", name, ErrNoNamespace)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("%s: there is none, or it has ended: %w", name, ErrNoNamespace)
	case err != nil:
		return nil, fmt.Errorf("%s: pidfd_open: %w", name, err)
	}
	process := os.NewFile(uintptr(fd), name)
	// The number means the process that the pidfd holds for as long as that
	// one lives, so the namespace is the right one if it lives afterwards.
	ns, err := open("/proc/"+strconv.Itoa(pid)+"/ns/net", name)
	if ended(process) {
		err = errors.Join(fmt.Errorf("%s: it has ended: %w", name, ErrNoNamespace), closeIf(ns))
	}
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	ns.process = process
	return ns, nil
}

func closeIf(ns *Namespace) error {
	if ns == nil {
		return nil
	}
	return ns.Close()
}

// ended tells whether the process of a pidfd has ended, reaped or not
// (pidfd_open(2): the descriptor is readable then).
func ended(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

// open opens nothing but files of nsfs, because to open another kind of file
// may block or have an effect.
func open(path, name string) (*Namespace, error) {
	probe, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s: %w", name, ErrNoNamespace)
	case err != nil:
		return nil, fmt.Errorf("%s: open: %w", name, err)
	}
	defer func() { _ = unix.Close(probe) }() // Of an O_PATH descriptor: nothing to lose.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(probe, &fs); err != nil {
		return nil, fmt.Errorf("%s: fstatfs: %w", name, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s: it is %s: %w", name, fileKind(probe), ErrNotNamespace)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(probe), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", name, err)
	}
	ns := &Namespace{file: os.NewFile(uintptr(fd), path), name: name, path: path}
	if err := ns.identify(fd); err != nil {
		return nil, errors.Join(err, ns.file.Close())
	}
	return ns, nil
}

// fileKind says what a descriptor that is no namespace's is of.
func fileKind(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return "a file of another kind"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "an ordinary file (a namespace that was unmounted leaves one)"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a file of another kind"
}

func (ns *Namespace) identify(fd int) error {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("%s: NS_GET_NSTYPE: %w", ns.name, err)
	}
	if kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s: it is another kind of namespace: %w", ns.name, ErrNotNamespace)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: fstat: %w", ns.name, err)
	}
	ns.id = ID{Dev: st.Dev, Ino: st.Ino}
	return nil
}

// ID tells the namespace from every other that lives. It works after Close.
func (ns *Namespace) ID() ID { return ns.id }

// Same tells whether both are the same namespace.
func (ns *Namespace) Same(other *Namespace) bool { return ns.id == other.id }

// String returns what the namespace was opened by, as `namespace /run/netns/a`.
func (ns *Namespace) String() string { return ns.name }

// Alive returns nil if what the namespace was opened by still leads to it,
// ErrNoNamespace if it leads nowhere (the process has ended, the path is gone)
// and ErrMoved if it leads elsewhere. It costs a few system calls and never
// asks a container engine.
func (ns *Namespace) Alive() error {
	if ns.process != nil && ended(ns.process) {
		return fmt.Errorf("%s: it has ended: %w", ns.name, ErrNoNamespace)
	}
	if ns.path == "" {
		return nil
	}
	// No other file has its number while ns is open.
	var st unix.Stat_t
	if unix.Stat(ns.path, &st) == nil && ns.id == (ID{Dev: st.Dev, Ino: st.Ino}) {
		return nil
	}
	now, err := open(ns.path, ns.name)
	if err != nil {
		return err
	}
	if !now.Same(ns) {
		err = fmt.Errorf("%s: %w", ns.name, ErrMoved)
	}
	return errors.Join(err, now.Close())
}

// Close lets go of the namespace. Calls that run meanwhile end as they would
// have; later ones fail with os.ErrClosed.
func (ns *Namespace) Close() error {
	err := ns.file.Close()
	if ns.process != nil {
		err = errors.Join(err, ns.process.Close())
	}
	return err
}

// errGoexit is what Do returns for a function that ended its goroutine, as
// t.Fatal does.
var errGoexit = errors.New("the function ended its goroutine")

// Do runs f on a thread inside the namespace and returns its error. f runs on
// a goroutine of its own, locked to its thread; goroutines that f starts are
// not inside. Sockets that f opens stay in the namespace. A thread that can't
// be brought back is not used for anything else. A panic of f goes on in the
// caller, who may have a recover above it.
func (ns *Namespace) Do(f func() error) error {
	var panicked any
	done := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			panicked = recover()
			done <- err
		}()
		runtime.LockOSThread()
		err = ns.inside(f)
	}()
	err := <-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// inside unlocks the thread only if it is back where it was: a goroutine that
// ends locked takes its thread with it.
func (ns *Namespace) inside(f func() error) error {
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("%s: open the thread's namespace: %w", ns.name, err)
	}
	defer func() { _ = unix.Close(before) }()
	if err := ns.enter(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("%s: enter: %w", ns.name, err)
	}
	defer func() {
		if unix.Setns(before, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

func (ns *Namespace) enter() error {
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return err
	}
	var setns error
	if err := raw.Control(func(fd uintptr) { setns = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return os.ErrClosed
	}
	return setns
}

// fd passes the namespace's descriptor to f, and keeps it open meanwhile.
func (ns *Namespace) fd(f func(fd int) error) error {
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return fmt.Errorf("%s: %w", ns.name, os.ErrClosed)
	}
	return inner
}

// in is Do for an f that returns a value.
func in[T any](ns *Namespace, f func() (T, error)) (v T, err error) {
	err = ns.Do(func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}
