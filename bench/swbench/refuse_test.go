package main

import (
	"context"
	"math"
	"os/exec"
	"strings"
	"testing"

	"heddle/bench/baseline"
	"heddle/bench/load"
)

// fakeRow is a row whose measurement is a function and whose one figure is a rate.
func fakeRow(measure func() measurement) Row {
	return Row{Figures: []Figure{{Name: "made up", Unit: "Gb/s"}}, Measure: func(context.Context, *bench, *baseline.Path) (measurement, error) {
		return measure(), nil
	}}
}

// A figure that the path's counters don't account for is refused, as is one that
// accounts for nothing or can't be.
func TestRefused(t *testing.T) {
	thousand := baseline.Count{Frames: 10, Bytes: 1000}
	claim := baseline.Least{AToB: thousand}
	carried := baseline.Counts{FromA: thousand, ToB: thousand}
	for _, c := range []struct {
		name, says string
		m          measurement
		counted    baseline.Counts // By how much the counters grow.
	}{
		{"as it should be", "", measurement{values: []float64{1}, least: claim}, carried},
		{"counters that stand still", "went another way", measurement{values: []float64{1}, least: claim}, baseline.Counts{}},
		{"less out than delivered", "out to B", measurement{values: []float64{1}, least: claim},
			baseline.Counts{FromA: thousand, ToB: baseline.Count{Frames: 10, Bytes: 900}}},
		{"more than was sent", "other traffic", measurement{values: []float64{1}, least: claim, most: (*baseline.Most)(&claim)},
			baseline.Counts{FromA: baseline.Count{Frames: 1000, Bytes: 100_000}, ToB: thousand}},
		{"each frame twice", "came twice", measurement{values: []float64{1}, least: claim},
			baseline.Counts{FromA: baseline.Count{Frames: 100, Bytes: 1e6}, ToB: baseline.Count{Frames: 200, Bytes: 2e6}}},
		{"an idle row with traffic", "other traffic", measurement{values: []float64{1}, most: &baseline.Most{}},
			baseline.Counts{FromA: baseline.Count{Frames: 1000, Bytes: 60_000}, ToB: baseline.Count{Frames: 1000, Bytes: 60_000}}},
		{"an idle row", "", measurement{values: []float64{1}, most: &baseline.Most{}}, carried},
		{"no frames", "no traffic", measurement{values: []float64{1}}, carried},
		{"nothing delivered", "can't be", measurement{values: []float64{0}, least: claim}, carried},
		{"no number", "can't be", measurement{values: []float64{math.NaN()}, least: claim}, carried},
		{"no end", "can't be", measurement{values: []float64{math.Inf(1)}, least: claim}, carried},
		{"less than nothing", "can't be", measurement{values: []float64{-1}, least: claim}, carried},
		{"a value too many", "2 values for 1", measurement{values: []float64{1, 2}, least: claim}, carried},
		{"no value", "0 values for 1", measurement{least: claim}, carried},
		{"untranslated", "untranslated", measurement{values: []float64{1}, least: baseline.Least{AToB: thousand, Conns: 1}}, carried},
	} {
		var now baseline.Counts
		p := &baseline.Path{NAT: &baseline.NAT{}, Count: func(context.Context) (baseline.Counts, error) { return now, nil }}
		_, err := (&bench{}).verified(t.Context(), fakeRow(func() measurement { now = c.counted; return c.m }), p)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// Traffic of which the tunnel counts nothing is refused, as when it finds
// another way between the hosts.
func TestTrafficBesideTunnelIsRefused(t *testing.T) {
	var end baseline.TunnelEnd
	p := &baseline.Path{Hosts: true, Count: func(context.Context) (baseline.Counts, error) {
		return baseline.TunnelCounts(end, end), nil
	}}
	beside := true
	row := fakeRow(func() measurement {
		for _, c := range []*baseline.Count{&end.From, &end.To} {
			c.Bytes += 1000
		}
		if !beside {
			end.Encap.Bytes += 1000
			end.Decap.Bytes += 1000
		}
		return measurement{values: []float64{1}, least: baseline.Least{AToB: baseline.Count{Bytes: 1000}}}
	})
	b := &bench{}
	if _, err := b.verified(t.Context(), row, p); err == nil || !strings.Contains(err.Error(), "tunnel") {
		t.Errorf("got %v", err)
	}
	beside = false
	if _, err := b.verified(t.Context(), row, p); err != nil {
		t.Errorf("what was counted is refused: %v", err)
	}
}

// Of frames, only loss is no fault, and what was lost is in no figure.
func TestFrameFigure(t *testing.T) {
	sent := load.Sent{Frames: 1_000_000, Seconds: 1}
	for _, c := range []struct {
		name, says string
		received   load.Received
		mpps       float64
	}{
		{"all", "", load.Received{Delivered: 1_000_000, Seconds: 1}, 0.999999},
		{"half of them lost", "", load.Received{Delivered: 500_000, Seconds: 1}, 0.499999},
		{"foreign ones beside", "", load.Received{Delivered: 500_000, Foreign: 1000, Seconds: 1}, 0.499999},
		{"a damaged one", "1 frames damaged", load.Received{Delivered: 999_999, Corrupt: 1, Seconds: 1}, 0},
		{"one twice", "1 frames duplicated", load.Received{Delivered: 1_000_000, Duplicates: 1, Seconds: 1}, 0},
		{"one overtaken", "1 frames reordered", load.Received{Delivered: 1_000_000, Reordered: 1, Seconds: 1}, 0},
		{"one very late", "very late", load.Received{Delivered: 999_999, Late: 1, Seconds: 1}, 0},
		{"one lost by the receiver", "receiver itself", load.Received{Delivered: 999_999, RingDropped: 1, Seconds: 1}, 0},
		{"more than sent", "only 1000000 sent", load.Received{Delivered: 1_000_001, Seconds: 1}, 0},
		{"none", "no frames delivered", load.Received{}, 0},
	} {
		m, err := frameFigure(sent, c.received, load.MinSize)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
			continue
		}
		if err != nil {
			continue
		}
		least := baseline.Count{Frames: c.received.Delivered, Bytes: 60 * c.received.Delivered}
		most := baseline.Count{Frames: 1_000_000, Bytes: 60_000_000}
		if math.Abs(m.values[0]-c.mpps) > 1e-9 || m.least.AToB != least || m.most.AToB != most {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

// What rows ask of a path's counters is as sharp as their tools allow.
func TestBounds(t *testing.T) {
	least, most := streamBounds(bulk{bytes: 1e9, sent: 1.001e9, retransmits: 100}, 32<<20, 1)
	// Super-frames of 64 KB with 54 bytes of headers at best.
	if payload := uint64(1e9 + 32<<20); least.AToB.Bytes < payload+payload>>16*54 || least.AToB.Bytes > payload+payload/1000 || least.BToA.Frames < 2 {
		t.Errorf("a stream: at least %+v", least)
	}
	if most.AToB.Bytes > 1.2e9 || most.BToA.Bytes > 0.12e9 || most.AToB.Bytes < 1.08e9 {
		t.Errorf("a stream: at most %+v", most)
	}
	least, most = loadBounds(latencies{sent: 20_000, total: 2000, dropped: 10}, 9_000, 10_000)
	if least.AToB.Frames != 20_000-200-200+9_000 || least.AToB.Bytes != least.AToB.Frames*106 || least.BToA.Frames != 2000 {
		t.Errorf("messages: at least %+v", least)
	}
	if most.AToB.Frames != 30_000 || most.BToA.Frames != 2000 {
		t.Errorf("messages: at most %+v", most)
	}
	least, most = eachConnection(1000)
	if least.AToB.Frames != 4000 || least.BToA.Frames != 2000 || least.AToB.Bytes != 216_000 || least.Conns != 1000 || most.Conns != 1000 {
		t.Errorf("connections: at least %+v, at most %+v", least, most)
	}
}

// A contender's process that ends, or is another, ends its figure too.
func TestLives(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pids := []int{c.Process.Pid}
	first, err := lives(pids)
	if err != nil || len(first) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // Killed.
	if again, err := lives(pids); err == nil && again[0] == first[0] {
		t.Errorf("a process that was killed lives on: %v", again)
	}
	p := &baseline.Path{Name: "swd-tap", PIDs: pids, Count: func(context.Context) (baseline.Counts, error) { return baseline.Counts{}, nil }}
	if _, err := (&bench{}).verified(t.Context(), fakeRow(func() measurement { return measurement{} }), p); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("measured without its process: %v", err)
	}
}
