package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"heddle/bench/baseline"
)

// One round of the rows of paths that tunnel, over the kernel and over both
// kinds of ports of swd: tools, parsers and the counters of both hosts go
// together.
func TestRoundOverVXLAN(t *testing.T) {
	opts := options{
		Rows: []string{"vxlan-tcp-1", "vxlan-rr-cross", "vxlan-frames-60"}, Runs: 1, Seconds: 1,
		Contenders: []string{"vxlan", "swd-*"},
	}
	r, err := run(t.Context(), opts, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Errors {
		// The receiver may be starved by other tests on the same machine.
		if !strings.Contains(e, "lost by the receiver itself") {
			t.Error(e)
		}
	}
	var names []string
	for _, c := range r.Contenders {
		names = append(names, c.Name)
	}
	if want := []string{"vxlan", swdVXLANTAP, swdVXLANVeth}; !slices.Equal(names, want) {
		t.Errorf("measured %v, want %v", names, want)
	}
	if len(r.Figures) < 2 {
		t.Errorf("%d figures", len(r.Figures))
	}
	for _, m := range r.Figures {
		for name, s := range m.By {
			if s.Median <= 0 || m.Table != tunnelling {
				t.Errorf("%s on %s in table %q: %v", m.Name, name, m.Table, s.Values)
			}
		}
	}
	v := slices.IndexFunc(r.Targets, func(v Verdict) bool { return v.Figure == vxlanTCP1 })
	if v < 0 || r.Targets[v].Contender != swdVXLANTAP || r.Targets[v].Against != "vxlan" {
		t.Errorf("judged %+v", r.Targets)
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
	row := Row{Measure: func(context.Context, *bench, *baseline.Path) (measurement, error) {
		for _, c := range []*baseline.Count{&end.From, &end.To} {
			c.Bytes += 1000
		}
		if !beside {
			end.Encap.Bytes += 1000
			end.Decap.Bytes += 1000
		}
		return measurement{values: []float64{1}, least: baseline.Least{AToB: baseline.Count{Bytes: 1000}}}, nil
	}}
	b := &bench{}
	if _, err := b.verified(t.Context(), row, p); err == nil || !strings.Contains(err.Error(), "tunnel") {
		t.Errorf("got %v", err)
	}
	beside = false
	if _, err := b.verified(t.Context(), row, p); err != nil {
		t.Errorf("what was counted is refused: %v", err)
	}
}

func TestHalves(t *testing.T) {
	for _, c := range []struct{ cores, first, second []int }{
		{[]int{0}, []int{0}, []int{0}},
		{[]int{0, 1}, []int{0}, []int{1}},
		{[]int{2, 3, 6}, []int{2}, []int{3, 6}},
	} {
		if first, second := halves(c.cores); !slices.Equal(first, c.first) || !slices.Equal(second, c.second) {
			t.Errorf("%v: %v, %v", c.cores, first, second)
		}
	}
}
