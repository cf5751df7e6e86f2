package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"heddle/bench/lab"
)

// scaleBench is a bench for the dimensions alone.
func scaleBench(t *testing.T) *bench {
	t.Helper()
	opts := options{Runs: 1, Seconds: 1, quick: true}
	cores, err := usableCores()
	if err != nil {
		t.Fatal(err)
	}
	return &bench{opts: opts, cores: cores, progress: newProgress(io.Discard), result: newResult(t.Context(), opts), programs: t.TempDir()}
}

// Each Go benchmark gives each of its curves a value at its smallest size. The
// benchmarks themselves fail unless all frames went through.
func TestScaleInProcess(t *testing.T) {
	for _, d := range dimensions() {
		if d.pkg == "" {
			continue
		}
		b := scaleBench(t)
		d.sizes = d.sizes[:1]
		if err := b.dimension(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if len(b.result.Errors) > 0 {
			t.Fatalf("%s: %v", d.row, b.result.Errors)
		}
		for _, c := range b.result.Scale[0].Curves {
			// Memory of a few is within what the process gives back meanwhile.
			if s := c.BySize[d.sizes[0]]; s == nil || s.Median <= 0 && c.Panel == costPanel {
				t.Errorf("%s: %s is %+v", d.row, c.Name, s)
			}
		}
	}
}

// A running swd carries the frames of one flow between silent ports, and those of
// all others in turn; without them the figures would be errors.
func TestScaleOfPorts(t *testing.T) {
	for _, row := range []string{"scale-taps", "scale-veths"} {
		t.Run(row, func(t *testing.T) { testScaleOfPorts(t, row) })
	}
}

func testScaleOfPorts(t *testing.T, row string) {
	b := scaleBench(t)
	b.lab = lab.New(t).Lab
	d := dimensions()[slices.Index(scaleNames(), row)]
	d.sizes = []int{2, 12}
	d.quickly = 12
	if err := b.dimension(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if len(b.result.Errors) > 0 {
		t.Fatal(b.result.Errors)
	}
	curves := b.result.Scale[0].Curves
	for i, c := range curves[:4] {
		if s := c.BySize[12]; s == nil || s.Median <= 0 {
			t.Errorf("%s is %+v", c.Name, s)
		}
		if (c.BySize[2] == nil) != (i == 1) {
			t.Errorf("%s of 2 ports is %+v", c.Name, c.BySize[2])
		}
	}
}

// What can't be measured at a size is an error of the run, and the rest is kept.
func TestScaleErrors(t *testing.T) {
	b := scaleBench(t)
	d := &dimension{row: "r", axis: "things", sizes: []int{1, 2, 3}, quickly: 2, curves: []curve{{name: "c", unit: "ns"}}}
	d.measure = func(_ context.Context, _ *bench, _ *dimension, size int) ([]float64, string, error) {
		if size == 1 {
			return nil, "", errors.New("no")
		}
		return []float64{7}, "cmd", nil
	}
	if err := b.dimension(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	c := b.result.Scale[0].Curves[0]
	if len(b.result.Errors) != 1 || c.BySize[1] != nil || c.BySize[2] == nil || c.BySize[3] != nil || c.BySize[2].Median != 7 {
		t.Errorf("errors %v, curve %+v", b.result.Errors, c)
	}
}

// scaled is a result with figures over sizes.
func scaled() *Result {
	r := &Result{Machine: lab.Machine{CPU: "a <CPU>", Commit: "abc"}, Options: options{Runs: 5}}
	cost := &Curve{Name: "one <flow>", Unit: "ns", Digits: 1, Panel: costPanel, BySize: map[int]*Samples{}}
	memory := &Curve{Name: "whole process", Unit: "MB", Digits: 0, Panel: memoryPanel, BySize: map[int]*Samples{}}
	for _, v := range []float64{10, 30, 20} {
		cost.add(1000, v, "x")
		cost.add(10_000_000, 2*v, "x")
		cost.add(2_000, absent, "x")
		memory.add(1000, v, "x")
		memory.add(10_000_000, 100*v, "x")
	}
	r.Scale = []*Scaled{{Row: "r", Title: "frames", Axis: "things", Sizes: []int{1000, 2000, 10_000_000}, Curves: []*Curve{cost, memory}, Notes: []string{"note"}}}
	return r
}

func TestScaleIsKept(t *testing.T) {
	dir := t.TempDir()
	if err := keepScale(scaled(), dir); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join(dir, "scale.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| things | 1 K | 2 K | 10 M | last : first |",
		"| one <flow>, ns | 20.0 (10.0–30.0) | – | 40.0 (20.0–60.0) | 2.00 |",
		"| whole process, MB | 20 (10–30) | – | 2000 (1000–3000) | 100.00 |",
		"- note",
	} {
		if !strings.Contains(string(table), want) {
			t.Errorf("%q is not in\n%s", want, table)
		}
	}
	plot, err := os.ReadFile(filepath.Join(dir, "scale.svg"))
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := xml.Unmarshal(plot, &doc); err != nil {
		t.Errorf("the plot: %v", err)
	}
	if n := strings.Count(string(plot), "<polyline"); n != 2 {
		t.Errorf("%d curves are drawn, want 2", n)
	}
}

func TestScaleAxis(t *testing.T) {
	for _, c := range []struct {
		least, most float64
		log         bool
	}{{10, 30, false}, {10, 3000, true}, {0, 0, false}} {
		s := newScale(c.least, c.most)
		if s.log != c.log || len(s.ticks()) < 3 || len(s.ticks()) > 10 || s.at(s.most) != graphTop-14 {
			t.Errorf("%v to %v: %+v, ticks %v", c.least, c.most, s, s.ticks())
		}
	}
}
