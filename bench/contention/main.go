package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

func main() {
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func do() error {
	out := flag.String("out", "", "write table.md, result.json and plot.svg to this `directory`")
	seconds := flag.Float64("seconds", 0.2, "how long one measurement takes")
	count := flag.Bool("count", true, "count the shared cache lines too, which takes minutes")
	lines := flag.String("lines", "", "count the shared cache lines of a `path`, or of all, and nothing else")
	traced := flag.String("traced", "", "push batches of this `path` and tell where things are, for the trace")
	frames := flag.Int("frames", 64, "frames in a batch, with --traced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case *traced != "":
		return beTraced(*traced, *frames, os.Stdout)
	case *lines != "":
		r := &Result{Traced: map[string]*Traced{}}
		names := pathNames
		if *lines != "all" {
			names = []string{*lines}
		}
		err := r.count(ctx, names)
		var table bytes.Buffer
		r.writeLines(&table)
		_, errWrite := os.Stdout.Write(table.Bytes())
		return errors.Join(err, errWrite)
	}
	return run(ctx, *out, time.Duration(*seconds*float64(time.Second)), *count)
}

// Result is a whole run.
type Result struct {
	Started  time.Time          `json:"started"`
	CPUs     int                `json:"cpus"`
	Transfer float64            `json:"transfer_ns"` // As measured here.
	Assumed  float64            `json:"assumed_transfer_ns"`
	Costs    []Cost             `json:"costs"`
	Traced   map[string]*Traced `json:"traced,omitempty"`
	Untraced string             `json:"untraced,omitempty"` // Why there is no trace.
	Curves   []Curve            `json:"curves"`
}

const (
	// assumedTransfer is what a line takes between two cores of a machine with
	// many, in nanoseconds: one socket has 40 to 120, two have more.
	assumedTransfer = 100
	// spin and wake are sync.Mutex's on a worker's locked thread: it looks four
	// times, 30 PAUSEs each, then the thread sleeps by futex(2) and is woken.
	spin = 2_000
	wake = 6_000
	// linesFor is the cache lines that come with NAT's lock when another worker
	// had it and both have connections of their own, as trace counts them: the
	// lock's, and a record of the table's that borders on another's.
	linesFor = 2
	// seed is the simulation's.
	seed = 1
)

// run measures, simulates and reports.
func run(ctx context.Context, out string, d time.Duration, count bool) error {
	r := &Result{Started: time.Now(), CPUs: runtime.NumCPU(), Assumed: assumedTransfer, Traced: map[string]*Traced{}}
	r.Transfer = transfer(d)
	for _, name := range pathNames {
		for _, frames := range []int{1, 8, 64} {
			c, err := measure(name, frames, d)
			if err != nil {
				return err
			}
			r.Costs = append(r.Costs, c)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	if !count {
		r.Untraced = "not asked for"
	} else if err := r.count(ctx, pathNames); err != nil {
		return err
	}
	r.Curves = curves(r.Costs)
	var table bytes.Buffer
	r.write(&table)
	if _, err := os.Stdout.Write(table.Bytes()); err != nil || out == "" {
		return err
	}
	return r.save(out, table.Bytes())
}

// count traces paths, where valgrind is installed.
func (r *Result) count(ctx context.Context, names []string) error {
	for _, name := range names {
		t, err := trace(ctx, name, 64)
		if errors.Is(err, exec.ErrNotFound) {
			r.Untraced = "valgrind is not installed"
			return nil
		}
		if err != nil {
			return err
		}
		r.Traced[name] = t
	}
	return nil
}

// curves simulates what was measured, with system calls around it and without.
func curves(costs []Cost) []Curve {
	var all []Curve
	for _, c := range costs {
		for _, io := range []bool{true, false} {
			if !io && c.Frames != 64 {
				continue
			}
			m := Model{
				Private: c.Batch - c.Locked, Stages: 8, Hold: c.Locked,
				Lines: linesFor, Transfer: assumedTransfer, Spin: spin, Wake: wake,
			}
			name := fmt.Sprintf("%s, batches of %d", c.Path, c.Frames)
			if io {
				m.Private += around(c.Frames)
			} else {
				name += ", no system calls"
			}
			if c.Locked == 0 {
				m.Lines = 0
			}
			curve := Curve{Name: name, Model: m, Frames: c.Frames}
			for _, n := range workerCounts {
				o := m.Simulate(n, 20_000, seed)
				curve.Rate = append(curve.Rate, o.PerSecond*float64(c.Frames)/1e6)
				curve.Busy = append(curve.Busy, o.Busy)
			}
			all = append(all, curve)
		}
	}
	return all
}

// write prints the tables in Markdown.
func (r *Result) write(w *bytes.Buffer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("%d CPUs; a cache line from one to the other takes %.0f ns here, %.0f in the simulation.\n\n", r.CPUs, r.Transfer, r.Assumed)
	p("| path, 64 B over ports in memory | frames a batch | ns a frame | of these under the lock | 1 worker, Mpps | 2 workers | ratio |\n|---|---|---|---|---|---|---|\n")
	for _, c := range r.Costs {
		n := float64(c.Frames)
		p("| %s | %d | %.1f | %.1f | %.2f | %.2f | %.2f |\n", c.Path, c.Frames, c.Batch/n, c.Locked/n, c.One/1e6, c.Two/1e6, c.Two/c.One)
	}
	r.writeLines(w)
	p("\nSimulated, million frames a second (and how busy NAT's lock is):\n\n| workers |")
	for _, n := range workerCounts {
		p(" %d |", n)
	}
	p("\n|---|")
	for range workerCounts {
		p("---|")
	}
	p("\n")
	for _, c := range r.Curves {
		p("| %s |", c.Name)
		for i, v := range c.Rate {
			p(" %.2f", v)
			if c.Model.Hold > 0 {
				p(" (%.0f%%)", 100*c.Busy[i])
			}
			p(" |")
		}
		p("\n")
	}
}

// writeLines prints what was counted.
func (r *Result) writeLines(w *bytes.Buffer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("\nCache lines that two workers touch and one writes, accesses of each by batch of 64 (valgrind lackey):\n\n")
	if r.Untraced != "" {
		p("Not counted: %s.\n", r.Untraced)
	} else {
		p("| path | where | reads | writes |\n|---|---|---|---|\n")
		for _, name := range pathNames {
			t := r.Traced[name]
			if t == nil {
				continue
			}
			p("| %s | all lines that a worker touches: %d, writes: %d | | |\n", name, t.Touched, t.Written)
			for _, s := range t.Shared {
				p("| %s | %s | %.2f | %.2f |\n", name, s.What, s.Reads, s.Writes)
			}
		}
	}
}

// save writes what was found to a directory.
func (r *Result) save(dir string, table []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	document, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	title := fmt.Sprintf("simulated speed-up against workers, costs of %s", r.Started.Format("2006-01-02"))
	for name, content := range map[string][]byte{
		"table.md": table, "result.json": append(document, '\n'), "plot.svg": []byte(plot(r.Curves, title)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
