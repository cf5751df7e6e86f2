package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"heddle/bench/lab"
)

// Result is everything about a run; as JSON it is what is kept.
type Result struct {
	Started  time.Time   `json:"started"`
	Finished time.Time   `json:"finished"`
	Machine  lab.Machine `json:"machine"`
	// Command is how the run was started; with Commit it can be repeated.
	Command    []string    `json:"command"`
	Options    options     `json:"options"`
	Swd        *Program    `json:"swd,omitempty"` // Nil if none was measured.
	Contenders []Contender `json:"contenders"`
	Skipped    []string    `json:"skipped,omitempty"` // Contenders that are not installed, and why.
	Figures    []*Measured `json:"figures"`
	Scale      []*Scaled   `json:"scale,omitempty"` // What was measured over sizes.
	Targets    []Verdict   `json:"targets"`
	Limits     []Verdict   `json:"limits"` // Without a Bound.
	// Errors are measurements that gave no figure, and why.
	Errors []string `json:"errors"`
}

// Contender is one path with the commands that build it.
type Contender struct {
	Name  string   `json:"name"`
	About string   `json:"about"`
	Setup []string `json:"setup"`
}

// Measured is one figure of all contenders.
type Measured struct {
	Row    string `json:"row"`
	Table  table  `json:"table"`
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Lower  bool   `json:"lower_is_better"`
	Digits int    `json:"-"`
	// By is what was measured, by contender.
	By map[string]*Samples `json:"by"`
}

// Samples is one figure of one contender.
type Samples struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Values are in the order of the rounds, whose numbers, from 0 on, are Rounds:
	// some may have given none.
	Values []float64 `json:"values"`
	Rounds []int     `json:"rounds"`
	// Commands are those of the first round.
	Commands []string `json:"commands,omitempty"`
}

// newSamples sums up values of which there is one for each round.
func newSamples(values []float64) *Samples {
	s := &Samples{}
	for round, v := range values {
		s.add(round, v)
	}
	return s
}

// add takes in the value of another round.
func (s *Samples) add(round int, value float64) {
	s.Values, s.Rounds = append(s.Values, value), append(s.Rounds, round)
	s.sum()
}

func (s *Samples) sum() {
	sorted := slices.Sorted(slices.Values(s.Values))
	n := len(sorted)
	if n == 0 {
		return
	}
	s.Min, s.Max = sorted[0], sorted[n-1]
	s.Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func newResult(ctx context.Context, opts options) *Result {
	command := slices.Clone(os.Args)
	if self, err := ownPath(); err == nil {
		command[0] = self
	}
	return &Result{
		Started: time.Now().UTC(),
		Machine: lab.ThisMachine(ctx),
		Command: command,
		Options: opts,
		Errors:  []string{},
	}
}

// add puts a measurement, or why there is none, to the result.
func (r *Result) add(round int, row Row, contender string, m measurement, err error, commands []string) {
	if err != nil {
		r.Errors = append(r.Errors, fmt.Sprintf("%s on %s, round %d: %v", row.Title, contender, round+1, err))
		return
	}
	for i, f := range row.Figures {
		s := r.figure(row.Name, row.Table, f).samples(contender)
		s.add(round, m.values[i])
		if s.Commands == nil {
			s.Commands = commands
		}
	}
}

// figure finds a figure or makes it.
func (r *Result) figure(row string, t table, f Figure) *Measured {
	for _, m := range r.Figures {
		if m.Name == f.Name {
			return m
		}
	}
	m := &Measured{Row: row, Table: t, Name: f.Name, Unit: f.Unit, Lower: f.Lower, Digits: f.Digits, By: map[string]*Samples{}}
	r.Figures = append(r.Figures, m)
	return m
}

func (m *Measured) samples(contender string) *Samples {
	if m.By[contender] == nil {
		m.By[contender] = &Samples{}
	}
	return m.By[contender]
}

// finish judges the targets, and reports what has fewer samples than were asked
// for.
func (r *Result) finish() {
	r.Finished = time.Now().UTC()
	known := rowNames()
	for _, m := range r.Figures {
		for _, name := range m.order() {
			if n := len(m.By[name].Values); n != r.Options.Runs && slices.Contains(known, m.Row) {
				r.Errors = append(r.Errors, fmt.Sprintf("%s of %s: %d of %d samples", m.Name, name, n, r.Options.Runs))
			}
		}
	}
	r.Targets = judge(r)
	r.Limits = limit(r)
}

// order returns the names of what was measured in the order of the table.
func (m *Measured) order() []string {
	names := []string{}
	for name := range m.By {
		names = append(names, name)
	}
	known := contenderNames()
	rank := func(name string) int {
		if i := slices.Index(known, name); i >= 0 {
			return i
		}
		return math.MaxInt
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return names
}
