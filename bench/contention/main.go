package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"heddle/bench/lab"
	"heddle/dataplane"
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
	rounds := flag.Int("rounds", 15, "how often each is repeated, at least 1")
	count := flag.Bool("count", true, "count the shared cache lines too, which takes minutes")
	lines := flag.String("lines", "", "count the shared cache lines of a `path`, and nothing else: all, "+strings.Join(pathNames, ", "))
	traced := flag.String("traced", "", "push batches of this `path` and tell where things are, for the trace")
	frames := flag.Int("frames", dataplane.BatchSize, "frames in a batch, with --traced")
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
	if *rounds < 1 || runtime.NumCPU() < 2 {
		return errors.New("what two workers cost each other can't be measured: want two CPUs and a round")
	}
	return run(ctx, *out, *rounds, time.Duration(*seconds*float64(time.Second)), *count)
}

// Result is a whole run.
type Result struct {
	Started  time.Time          `json:"started"`
	Machine  lab.Machine        `json:"machine"`
	Command  []string           `json:"command"`
	Seconds  float64            `json:"seconds"`  // Of one measurement.
	Handover Handover           `json:"handover"` // The median of Rounds.
	Rounds   []Handover         `json:"handovers"`
	Costs    []*Cost            `json:"costs"`
	Traced   map[string]*Traced `json:"traced,omitempty"`
	Untraced string             `json:"untraced,omitempty"` // Why there is no trace.
	Curves   []Curve            `json:"curves"`
}

const (
	// linesElsewhere is the cache lines that come with NAT's lock, where they aren't
	// counted: as many as the committed table has.
	linesElsewhere = 2
	// simulated is how many batches a simulation lasts, seed its seed.
	simulated = 50_000
	seed      = 1
	// stages has a batch's own time vary by a third of itself, so that workers
	// don't march in step.
	stages = 8
)

// run measures, simulates and reports.
func run(ctx context.Context, out string, rounds int, d time.Duration, count bool) error {
	r := &Result{Started: time.Now(), Machine: lab.ThisMachine(ctx), Command: os.Args[1:], Seconds: d.Seconds(), Traced: map[string]*Traced{}}
	for _, name := range pathNames {
		for _, frames := range []int{1, 8, dataplane.BatchSize} {
			r.Costs = append(r.Costs, &Cost{Path: name, Frames: frames})
		}
	}
	for i := range rounds {
		r.Rounds = append(r.Rounds, handover(d/4))
		alone := map[int]*Cost{} // The switch's, by frames.
		for _, c := range r.Costs {
			if err := c.round(i, d); err != nil {
				return err
			}
			switch c.Path {
			case pathSwitch:
				alone[c.Frames] = c
			case pathNAT:
				c.against(alone[c.Frames])
			}
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
	r.Handover = medianOf(r.Rounds)
	r.Handover.Lines = linesElsewhere
	if t := r.Traced[pathNAT]; t != nil {
		r.Handover.Lines = float64(t.Lines)
	}
	r.simulate()
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
		t, err := trace(ctx, name, dataplane.BatchSize)
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

// simulate draws the curves of what was measured: of NAT in all batches, of what
// shares nothing in one, without system calls and, where their cost is known,
// with those of TAP to TAP; then also with cache lines as slow as in the slowest round.
func (r *Result) simulate() {
	for _, c := range r.Costs {
		m := Model{Private: c.batch() - c.hold(), Stages: stages, Hold: c.hold(), Handover: r.Handover}
		c.Simulated = m.Simulate(2, simulated, seed).PerSecond * float64(c.Frames)
		if m.Hold == 0 && c.Frames != dataplane.BatchSize {
			continue
		}
		name := fmt.Sprintf("%s, batches of %d", c.Path, c.Frames)
		r.Curves = append(r.Curves, curve(name, m, c.Frames))
		if io := around(c.Frames); io > 0 && c.Path != pathVXLAN {
			m.Private += io
			name += ", system calls"
			r.Curves = append(r.Curves, curve(name, m, c.Frames))
			if m.Hold > 0 {
				m.Handover.Transfer = slices.Max(r.transfers())
				r.Curves = append(r.Curves, curve(name+", slow lines", m, c.Frames))
			}
		}
	}
}

// transfers are what a cache line took in each round.
func (r *Result) transfers() (all []float64) {
	for _, h := range r.Rounds {
		all = append(all, h.Transfer)
	}
	return all
}

// curve simulates each number of workers.
func curve(name string, m Model, frames int) Curve {
	c := Curve{Name: name, Model: m, Frames: frames}
	for _, n := range workerCounts {
		o := m.Simulate(n, simulated, seed)
		c.Rate = append(c.Rate, o.PerSecond*float64(frames)/1e6)
		c.Busy = append(c.Busy, o.Busy)
	}
	return c
}
