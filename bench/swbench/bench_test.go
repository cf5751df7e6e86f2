package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/lab"
)

// TestMain also plays the ends of rows for which swbench starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"send", "receive", "serve", "connect", "fill"}, os.Args[1]) {
		main()
		return
	}
	lab.Main(m)
}

func TestSamples(t *testing.T) {
	for _, c := range []struct {
		values           []float64
		median, min, max float64
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{9, 1, 5}, 5, 1, 9},
		{[]float64{4, 1, 2, 3}, 2.5, 1, 4},
	} {
		s := newSamples(c.values)
		if s.Median != c.median || s.Min != c.min || s.Max != c.max {
			t.Errorf("%v: %+v", c.values, s)
		}
	}
}

// made returns a result of two rounds: bridge 10 and 20, swd-tap 15 and 18.
func made(t *testing.T) *Result {
	t.Helper()
	r := &Result{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Machine: Machine{CPU: "a <CPU>", Commit: "abc"},
		Options: options{Runs: 2, Seconds: 1},
		Errors:  []string{},
	}
	row := allRows()[0]
	for round, values := range []map[string]float64{{"bridge": 10, "swd-tap": 15}, {"bridge": 20, "swd-tap": 18}} {
		for name, v := range values {
			r.add(round, row, name, measurement{values: []float64{v}}, nil, []string{"iperf3 …"})
		}
	}
	r.add(0, rowNamed(t, "idle"), "swd-tap", measurement{values: []float64{0, 70}}, nil, nil)
	r.finish()
	return r
}

func rowNamed(t *testing.T, name string) Row {
	t.Helper()
	rows := chosen([]string{name})
	if len(rows) != 1 {
		t.Fatalf("there are %d rows %s", len(rows), name)
	}
	return rows[0]
}

func TestJudge(t *testing.T) {
	want := []Verdict{
		{Figure: "TCP, 1 stream", Contender: "swd-tap", Against: "bridge", Value: 1.1, Min: 0.9, Max: 1.5, Bound: 1, Met: true},
		{Figure: "idle CPU", Contender: "swd-tap", Bound: 0.5, Lower: true, Met: true},
		{Figure: "idle RSS", Contender: "swd-tap", Value: 70, Min: 70, Max: 70, Bound: 60, Lower: true, Met: false},
	}
	got := made(t).Targets
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// A round that failed for one contender leaves no pairs: the spread is the
// widest there can be.
func TestJudgeWithoutPairs(t *testing.T) {
	m := &Measured{By: map[string]*Samples{"x": newSamples([]float64{2, 4}), "y": newSamples([]float64{1, 2, 3})}}
	v, ok := target{contender: "x", against: "y", bound: 2}.judge([]*Measured{m})
	if !ok || v.Value != 1.5 || v.Min != 2.0/3 || v.Max != 4 || v.Met {
		t.Errorf("%+v, %v", v, ok)
	}
	if _, ok := (target{contender: "x", against: "z"}).judge([]*Measured{m}); ok {
		t.Error("judged against what was not measured")
	}
}

// Each contender is judged in the placement that suits it best.
func TestJudgeBestPlacement(t *testing.T) {
	r := &Result{Figures: []*Measured{
		{Name: tcp1, By: map[string]*Samples{"swd-tap": newSamples([]float64{9, 9}), "bridge": newSamples([]float64{20, 16})}},
		{Name: tcp1 + pinned, By: map[string]*Samples{"swd-tap": newSamples([]float64{15, 12}), "bridge": newSamples([]float64{8, 8})}},
	}}
	v := judge(r)
	if len(v) != 1 || v[0].Value != 0.75 || v[0].Min != 0.75 || v[0].Max != 0.75 {
		t.Errorf("%+v", v)
	}
	lower := []*Measured{{Lower: true, By: map[string]*Samples{"x": newSamples([]float64{3})}}, {Lower: true, By: map[string]*Samples{"x": newSamples([]float64{2})}}}
	if s := best(lower, "x"); s.Median != 2 {
		t.Errorf("of two where less is better: %+v", s)
	}
}

// Every target names a figure that is measured.
func TestTargetsExist(t *testing.T) {
	known := map[string]bool{}
	for _, row := range allRows() {
		for _, f := range row.Figures {
			known[f.Name] = true
		}
	}
	for _, s := range suites {
		for _, f := range s.figures {
			known[f.figure.Name] = true
		}
	}
	for _, target := range targets {
		if !known[target.figure] {
			t.Errorf("nothing measures %q", target.figure)
		}
	}
}

func TestDeliver(t *testing.T) {
	r := made(t)
	var out bytes.Buffer
	dir := t.TempDir()
	if err := deliver(&out, r, dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"bridge", "15.0 (10.0–20.0)", "16.5 (15.0–18.0)", "1.10 (0.90–1.50)", "≥ 1", "met", "NOT MET", "≤ 60",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
	dir = filepath.Join(dir, "2026-01-02-030405-abc")
	var back Result
	doc, err := os.ReadFile(filepath.Join(dir, "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	if s := back.Figures[0].By["swd-tap"]; len(s.Values) != 2 || s.Median != 16.5 || len(s.Commands) != 1 {
		t.Errorf("JSON: %+v", s)
	}
	plot, err := os.Open(filepath.Join(dir, "plot.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plot.Close() }()
	for d := xml.NewDecoder(plot); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
	r.Errors = []string{"TCP on bridge, round 1: lost\nits way"}
	out.Reset()
	if err := deliver(&out, r, ""); !errors.Is(err, errUnfinished) || !strings.Contains(out.String(), "its way") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A figure whose traffic the path didn't count is an error.
func TestUnaccountedIsRefused(t *testing.T) {
	counted := baseline.Counts{}
	p := &baseline.Path{Count: func(context.Context) (baseline.Counts, error) { return counted, nil }}
	row := Row{Measure: func(context.Context, *bench, *baseline.Path) (measurement, error) {
		counted.FromA.Bytes += 1000
		counted.ToB.Bytes += 900 // Less came out than was delivered.
		return measurement{values: []float64{1}, least: baseline.Least{AToB: baseline.Count{Bytes: 1000}}}, nil
	}}
	b := &bench{}
	if _, err := b.verified(t.Context(), row, p); err == nil {
		t.Error("accepted")
	}
	row.Measure = func(context.Context, *bench, *baseline.Path) (measurement, error) {
		counted.FromA.Bytes += 1000
		counted.ToB.Bytes += 1000
		return measurement{values: []float64{1}, least: baseline.Least{AToB: baseline.Count{Bytes: 1000}}}, nil
	}
	if _, err := b.verified(t.Context(), row, p); err != nil {
		t.Errorf("what was counted is refused: %v", err)
	}
}

// What is recorded must work in another clone.
func TestOwnPathIsRelative(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, want string }{
		{filepath.Dir(self), "./" + filepath.Base(self)},
		{filepath.Dir(filepath.Dir(self)), filepath.Join(filepath.Base(filepath.Dir(self)), filepath.Base(self))},
		{t.TempDir(), self},
	} {
		t.Chdir(c.dir)
		if got, err := ownPath(); err != nil || got != c.want {
			t.Errorf("in %s: %q, %v, want %q", c.dir, got, err, c.want)
		}
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--rows", "tcp-99"}, {"--contenders", "switch"}, {"--runs", "0"}, {"--seconds", "0"},
		{"--swd", "/bin/true"}, {"--no-such-flag"}, {"stray"},
	} {
		c := command()
		c.SetArgs(args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

// One round over the kernel's bridge, of every row that a bridge has but the
// long ones: the tools, their parsers and the counters go together.
func TestRoundOverBridge(t *testing.T) {
	r, err := run(t.Context(), options{
		Rows: []string{"tcp-1", "rr-cross", "frames-60"}, Contenders: []string{"bridge"}, Runs: 1, Seconds: 1,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Errors {
		// The receiver may be starved by other tests on the same machine.
		if !strings.Contains(e, "lost by the receiver itself") {
			t.Error(e)
		}
	}
	if len(r.Figures) < 2 || len(r.Contenders) != 1 || len(r.Contenders[0].Setup) < 10 {
		t.Errorf("%+v", r)
	}
}

// An interrupted run ends with the lab taken down.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(700*time.Millisecond, cancel)
	began := time.Now()
	_, err := run(ctx, options{Rows: []string{"tcp-1"}, Contenders: []string{"bridge"}, Runs: 1, Seconds: 60}, io.Discard)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("ending took %v", took)
	}
	left, err := filepath.Glob(fmt.Sprintf("/run/netns/%s-%d-*", lab.Prefix, os.Getpid()))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
