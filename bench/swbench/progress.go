package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows where a run is: one line that changes on a terminal, a line a
// step elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	began    time.Time
	total    int
	steps    int
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

// expect says how many steps there will be.
func (p *progress) expect(total int) { p.began, p.total, p.steps = time.Now(), total, 0 }

// step shows the next step, and how long the rest will take if it goes on like
// that.
func (p *progress) step(what string) {
	p.steps++
	line := fmt.Sprintf("[%d/%d] %s", p.steps, p.total, what)
	if done := p.steps - 1; done > 0 {
		each := time.Since(p.began) / time.Duration(done)
		line += fmt.Sprintf("  (%v left)", (each * time.Duration(p.total-done)).Round(time.Second))
	}
	p.show(line)
}

func (p *progress) show(line string) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.w, line)
}

// done takes the line away.
func (p *progress) done() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
