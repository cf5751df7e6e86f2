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
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
)

// TestMain also plays the commands for which swbench starts itself, swbench
// itself for those who ask for its exit code, an iperf3 that lies, and a netperf
// that says what it is to say.
func TestMain(m *testing.M) {
	command := len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-")
	switch {
	case filepath.Base(os.Args[0]) == "iperf3":
		lie()
	case filepath.Base(os.Args[0]) == "netperf":
		fmt.Print(netperfSays)
	case filepath.Base(os.Args[0]) == "netserver":
		os.Args = []string{os.Args[0], "serve", os.Args[len(os.Args)-1]}
		main()
	case command, os.Getenv(asItself) != "":
		main()
	default:
		lab.Main(m)
	}
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
		Machine: lab.Machine{CPU: "a <CPU>", Commit: "abc"},
		Options: options{Runs: 2, Seconds: 1, Rows: []string{"tcp-1", "idle"}, Contenders: []string{"bridge", "swd-tap"}},
		Errors:  []string{},
	}
	row := allRows()[0]
	for round, values := range []map[string]float64{{"bridge": 10, "swd-tap": 15}, {"bridge": 20, "swd-tap": 18}} {
		for name, v := range values {
			r.add(round, row, name, measurement{values: []float64{v}}, nil, []string{"iperf3 …"})
		}
	}
	for round := range 2 {
		r.add(round, rowNamed(t, "idle"), "swd-tap", measurement{values: []float64{0, 70}}, nil, nil)
	}
	r.finish()
	return r
}

func rowNamed(t testing.TB, name string) Row {
	t.Helper()
	rows := chosen([]string{name})
	if len(rows) != 1 {
		t.Fatalf("there are %d rows %s", len(rows), name)
	}
	return rows[0]
}

func TestDeliver(t *testing.T) {
	r := made(t)
	var out bytes.Buffer
	dir := t.TempDir()
	if err := deliver(&out, r, dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"bridge", "15.0 (10.0–20.0)", "16.5 (15.0–18.0)", "1.20 (0.90–1.50)", "≥ 1", "met", "NOT MET", "≤ 60",
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

// An interrupted run ends with the lab taken down.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(700*time.Millisecond, cancel)
	began := time.Now()
	_, err := run(ctx, options{Rows: []string{"tcp-1"}, Contenders: []string{"bridge"}, Runs: 1, Seconds: 60}, io.Discard)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("ending took %v", took)
	}
	left, err := filepath.Glob(fmt.Sprintf("/run/netns/%s-%d-*", lab.Prefix, os.Getpid()))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
