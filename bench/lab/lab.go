package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix starts the name of every namespace that a lab makes; the rest is the
// pid of the process, a number for the lab and the name asked for.
const Prefix = "hdb"

const (
	netnsDir   = "/run/netns"     // Where ip-netns(8) keeps the names.
	stopGrace  = 10 * time.Second // From SIGTERM to SIGKILL.
	closeBound = 30 * time.Second // For all of Close.
)

var labSeq atomic.Int64

// Lab owns namespaces, processes and a directory.
type Lab struct {
	id  string
	dir string

	mu        sync.Mutex
	closed    bool
	spaces    []*NetNS
	processes []*Process
	commands  []string
}

// ErrNotRoot says that labs need root.
var ErrNotRoot = errors.New("network namespaces need root: run it with sudo")

var errClosed = errors.New("the lab is closed")

// Open makes an empty lab, and removes namespaces and directories that labs of
// processes that are gone have left behind.
func Open() (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if err := removeStale(); err != nil {
		return nil, err
	}
	dir, err := newDir("lab")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return &Lab{id: fmt.Sprintf("%s-%d-%d", Prefix, os.Getpid(), labSeq.Add(1)), dir: dir}, nil
}

// Dir returns the lab's own directory, which Close removes.
func (l *Lab) Dir() string { return l.dir }

// Commands returns what has been done so far as commands of iproute2, ethtool
// and the programs started, in order.
func (l *Lab) Commands() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commands)
}

// record writes a step down as a command.
func (l *Lab) record(words ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, strings.Join(words, " "))
}

// Close stops the lab's processes, newest first, removes its namespaces with
// all that is in them and its directory. It takes 30 s at most; what it could
// not end by then is in the error. Calling it again does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	spaces, processes := l.spaces, l.processes
	l.mu.Unlock()

	var errs []error
	for _, p := range slices.Backward(processes) {
		p.signalStop()
	}
	deadline := time.Now().Add(closeBound)
	for _, p := range slices.Backward(processes) {
		grace := min(stopGrace, time.Until(deadline))
		if err := p.waitOrKill(grace); err != nil {
			errs = append(errs, err)
		}
	}
	for _, n := range slices.Backward(spaces) {
		if err := n.remove(); err != nil {
			errs = append(errs, err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		errs = append(errs, fmt.Errorf("lab: %w", err))
	}
	return errors.Join(errs...)
}

// newDir makes a directory that removeStale knows by its name.
func newDir(name string) (string, error) {
	return os.MkdirTemp("", fmt.Sprintf("%s-%d-%s-", Prefix, os.Getpid(), name))
}

// removeStale removes the namespaces and directories of processes that are
// gone.
func removeStale() error {
	for _, name := range labSpaces() {
		if !stale(name) {
			continue
		}
		if err := removeName(name); err != nil {
			return fmt.Errorf("lab: removing %s, left behind by a killed run: %w", name, err)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), Prefix+"-*"))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, dir := range dirs {
		if !stale(filepath.Base(dir)) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("lab: removing %s, left behind by a killed run: %w", dir, err)
		}
	}
	return nil
}

// removeName removes a namespace's name, which another process may be removing
// at the same time, or have made no mount of before it was killed: what isn't
// mounted can't be unmounted (EINVAL, umount(2)), and is removed all the same.
func removeName(name string) error {
	path := filepath.Join(netnsDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stale tells from the pid in a lab's name whether its process is gone.
func stale(name string) bool {
	parts := strings.SplitN(name, "-", 3)
	if len(parts) < 3 {
		return false
	}
	pid, err := strconv.Atoi(parts[1])
	if err != nil {
		return false
	}
	_, err = os.Stat(fmt.Sprintf("/proc/%d", pid))
	return errors.Is(err, os.ErrNotExist)
}

// labSpaces lists the named namespaces that any lab has made.
func labSpaces() []string {
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		return nil // The directory is made with the first namespace.
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix+"-") {
			names = append(names, e.Name())
		}
	}
	return names
}
