package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Output is what a program that ended has left.
type Output struct {
	Stdout, Stderr string
	// Code is the exit code, -1 if a signal ended the program.
	Code int
}

// Process is a program that a lab started. It is ended with the lab, and one in
// a namespace also by the kernel if this process dies.
type Process struct {
	cmd    *exec.Cmd
	words  string
	stdout *transcript
	stderr *transcript
	exited chan struct{}
	err    error // Valid after exited is closed.
}

// Run runs a program in the namespace to its end. An exit code other than 0
// is an error that carries the end of what the program printed. When the
// context ends, the program is killed.
func (n *NetNS) Run(ctx context.Context, args ...string) (Output, error) {
	p, err := n.Start(args...)
	if err != nil {
		return Output{}, err
	}
	return p.finish(ctx)
}

// Start starts a program in the namespace, which runs until it ends, Stop or
// Kill, or the lab's Close.
func (n *NetNS) Start(args ...string) (*Process, error) {
	n.lab.record(append([]string{"nsenter", "--net=" + n.Path(), "--"}, quote(args)...)...)
	return n.lab.start(args, syscall.SIGKILL, func(start func() error) error {
		started := make(chan error, 1)
		select {
		case n.launch <- func() { started <- start() }:
			return <-started
		case <-n.ended:
			return fmt.Errorf("namespace %s is gone", n.Name)
		}
	})
}

// Run runs a program in the caller's own namespace to its end, as NetNS.Run.
func (l *Lab) Run(ctx context.Context, args ...string) (Output, error) {
	l.record(quote(args)...)
	p, err := l.start(args, 0, func(start func() error) error { return start() })
	if err != nil {
		return Output{}, err
	}
	return p.finish(ctx)
}

// start starts a program by launch, which calls its argument on a thread of
// the right namespace. The program gets the signal orphaned, if not 0, when
// that thread ends.
func (l *Lab) start(args []string, orphaned syscall.Signal, launch func(start func() error) error) (*Process, error) {
	p := &Process{
		cmd:    exec.Command(args[0], args[1:]...),
		words:  strings.Join(args, " "),
		stdout: newTranscript(),
		stderr: newTranscript(),
		exited: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.WaitDelay = stopGrace
	p.cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A group of its own keeps a terminal's ^C away: the lab ends its
	// processes in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned}
	err := launch(func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			return errClosed
		}
		if err := p.cmd.Start(); err != nil {
			return err
		}
		l.processes = append(l.processes, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.words, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.stdout.end()
		p.stderr.end()
		l.forget(p)
		close(p.exited)
	}()
	return p, nil
}

// forget drops a process that has ended from what Close stops.
func (l *Lab) forget(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for i, q := range l.processes {
		if p == q {
			l.processes = append(l.processes[:i:i], l.processes[i+1:]...)
			return
		}
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended and its output is complete.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Stdout returns what the process has printed so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr returns what the process has printed to stderr so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// WaitStdout waits until the process has printed text to stdout. It fails
// when the process ends or the context does.
func (p *Process) WaitStdout(ctx context.Context, text string) error {
	if err := p.stdout.wait(ctx, text); err != nil {
		return fmt.Errorf("%s: waiting for %q: %w%s", p.words, text, err, p.tail())
	}
	return nil
}

// Wait waits for the end of the process and returns its output. An exit code
// other than 0 is an error. When the context ends first, it kills the process.
func (p *Process) Wait(ctx context.Context) (Output, error) { return p.finish(ctx) }

func (p *Process) finish(ctx context.Context) (Output, error) {
	var cause error
	select {
	case <-p.exited:
	case <-ctx.Done():
		cause = context.Cause(ctx)
		p.Kill()
	}
	out := Output{Stdout: p.Stdout(), Stderr: p.Stderr(), Code: p.cmd.ProcessState.ExitCode()}
	if cause == nil {
		cause = p.err
	}
	if cause != nil {
		return out, fmt.Errorf("%s: %w%s", p.words, cause, p.tail())
	}
	return out, nil
}

// Stop ends the process by SIGTERM, after 10 s by SIGKILL, and waits for its
// end. It fails if SIGKILL was needed.
func (p *Process) Stop() error {
	p.signalStop()
	return p.waitOrKill(stopGrace)
}

// Signal sends the process a signal; one that has ended gets none.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.words, err)
	}
	return nil
}

func (p *Process) signalStop() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// Kill ends the process by SIGKILL and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *Process) waitOrKill(grace time.Duration) error {
	timer := time.NewTimer(max(grace, 0))
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s: did not end within %v of SIGTERM%s", p.words, grace, p.tail())
	}
}

// tail returns the end of the process's output, indented, for an error.
func (p *Process) tail() string {
	const lines = 15
	var b strings.Builder
	for _, out := range []struct{ name, text string }{{"stdout", p.Stdout()}, {"stderr", p.Stderr()}} {
		text := strings.TrimSpace(out.text)
		if text == "" {
			continue
		}
		all := strings.Split(text, "\n")
		b.WriteString("\n  " + out.name + ":")
		for _, line := range all[max(0, len(all)-lines):] {
			b.WriteString("\n    " + line)
		}
	}
	return b.String()
}

// quote quotes words that a shell would take apart.
func quote(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$&|;<>()*?[]{}#~`") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted[i] = w
	}
	return quoted
}
