package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"heddle/ctl/api"
)

// readyBound is how long swd may take to say that it serves.
const readyBound = 60 * time.Second

// Binaries are the programs under test.
type Binaries struct {
	Swd, Swctl string // Paths.
	// Under is the words that swd is started by, as taskset -c 0; nil is none.
	Under []string
}

var build struct {
	once     sync.Once
	dir      string
	binaries Binaries
	err      error
}

// Build compiles swd and swctl once in the life of the process and returns
// where they are. The working directory must be inside the module. RemoveBuild
// removes them.
func Build() (Binaries, error) {
	build.once.Do(func() {
		dir, err := newDir("bin")
		if err != nil {
			build.err = fmt.Errorf("building swd and swctl: %w", err)
			return
		}
		build.dir = dir
		cmd := exec.Command("go", "build", "-o", dir+"/", "heddle/ctl/swd", "heddle/ctl/swctl")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("building swd and swctl: %w\n%s", err, out)
			return
		}
		build.binaries = Binaries{Swd: filepath.Join(dir, "swd"), Swctl: filepath.Join(dir, "swctl")}
	})
	return build.binaries, build.err
}

// RemoveBuild removes what Build made. Nobody may call Build afterwards.
func RemoveBuild() error {
	if build.dir == "" {
		return nil
	}
	return os.RemoveAll(build.dir)
}

// Swd is a running daemon with a socket and a state directory of its own.
type Swd struct {
	// NetNS is the namespace that swd runs in, its host.
	NetNS    *NetNS
	Socket   string
	StateDir string

	lab      *Lab
	binaries Binaries
	args     []string

	mu      sync.Mutex
	process *Process
	past    []*Process
}

// StartSwd starts the swd of bin in a namespace and waits until it is ready.
// The arguments come after --socket and --state-dir.
func (l *Lab) StartSwd(ctx context.Context, n *NetNS, bin Binaries, args ...string) (*Swd, error) {
	dir, err := os.MkdirTemp(l.dir, "swd-")
	if err != nil {
		return nil, fmt.Errorf("starting swd: %w", err)
	}
	s := &Swd{
		NetNS:    n,
		Socket:   filepath.Join(dir, "swd.sock"),
		StateDir: filepath.Join(dir, "state"),
		lab:      l,
		binaries: bin,
		args:     args,
	}
	return s, s.Start(ctx)
}

// Start starts the daemon anew after Stop or Kill, with the same socket, state
// and arguments, and waits until it is ready.
func (s *Swd) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyBound,
		fmt.Errorf("not ready after %v", readyBound))
	defer cancel()
	words := slices.Concat(s.binaries.Under, []string{s.binaries.Swd, "--socket", s.Socket, "--state-dir", s.StateDir}, s.args)
	p, err := s.NetNS.Start(words...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.process != nil {
		s.past = append(s.past, s.process)
	}
	s.process = p
	s.mu.Unlock()
	return p.WaitStdout(ctx, "ready\n")
}

// Process returns the daemon's process that was started last.
func (s *Swd) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Log returns what the daemon, and its predecessors before a restart, have
// logged.
func (s *Swd) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var log string
	for _, p := range append(slices.Clone(s.past), s.process) {
		if p != nil {
			log += fmt.Sprintf("--- swd, pid %d\n%s%s", p.PID(), p.Stdout(), p.Stderr())
		}
	}
	return log
}

// Stop ends the daemon by SIGTERM; one that needs SIGKILL after 10 s or exits
// with other than 0 is an error.
func (s *Swd) Stop() error {
	p := s.Process()
	if err := p.Stop(); err != nil {
		return err
	}
	_, err := p.Wait(context.Background())
	return err
}

// Kill ends the daemon by SIGKILL, as a crash would.
func (s *Swd) Kill() { s.Process().Kill() }

// Swctl runs swctl against the daemon. A bad exit code is no error here but in
// Output.Code; the error is for a swctl that could not be run or was ended.
func (s *Swd) Swctl(ctx context.Context, args ...string) (Output, error) {
	words := slices.Concat([]string{s.binaries.Swctl, "--socket", s.Socket}, args)
	out, err := s.lab.Run(ctx, words...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && out.Code >= 0 {
		return out, nil
	}
	return out, err
}

// Control runs swctl against the daemon; a bad exit code is an error.
func (s *Swd) Control(ctx context.Context, args ...string) (Output, error) {
	return s.lab.Run(ctx, slices.Concat([]string{s.binaries.Swctl, "--socket", s.Socket}, args)...)
}

// Port asks swd for a port by `swctl port show -o json`.
func (s *Swd) Port(ctx context.Context, name string) (api.Port, error) {
	var p api.Port
	return p, s.query(ctx, &p, "port", "show", name)
}

// FDB asks swd for a network's entries by `swctl fdb ls -o json`.
func (s *Swd) FDB(ctx context.Context, network string) ([]api.Entry, error) {
	var entries []api.Entry
	return entries, s.query(ctx, &entries, "fdb", "ls", "--network", network)
}

func (s *Swd) query(ctx context.Context, into any, args ...string) error {
	out, err := s.Control(ctx, append([]string{"-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out.Stdout), into); err != nil {
		return fmt.Errorf("swctl %v: its JSON: %w", args, err)
	}
	return nil
}
