package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	want := []Verdict{
		{Figure: "TCP, 1 stream", Contender: "swd-tap", Against: "bridge", Value: 1.2, Min: 0.9, Max: 1.5, Bound: 1, Met: true, Samples: 2},
		{Figure: "idle CPU", Contender: "swd-tap", Bound: 0.5, Lower: true, Met: true, Samples: 2},
		{Figure: "idle RSS", Contender: "swd-tap", Value: 70, Min: 70, Max: 70, Bound: 60, Lower: true, Met: false, Samples: 2},
	}
	if got := made(t).Targets; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A limit is shown where both sides were measured, and is no verdict.
func TestLimits(t *testing.T) {
	r := &Result{Options: options{Runs: 2}}
	for round, v := range []float64{9, 18} {
		for name, v := range map[string]float64{"swd-tap": v, relayTAP: 2 * v} {
			r.add(round, rowNamed(t, "tcp-1"), name, measurement{values: []float64{v}}, nil, nil)
		}
	}
	r.finish()
	want := []Verdict{{Figure: tcp1, Contender: "swd-tap", Against: relayTAP, Value: 0.5, Min: 0.5, Max: 0.5, Samples: 2}}
	if !slices.Equal(r.Limits, want) {
		t.Errorf("%+v, want %+v", r.Limits, want)
	}
	var table strings.Builder
	if err := writeTable(&table, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "swd-tap / relay-tap   0.50 (0.50–0.50)") {
		t.Error(table.String())
	}
}

// of makes a figure of one contender's values, in the rounds given or in all.
func of(rounds []int, values ...float64) *Samples {
	s := newSamples(values)
	if rounds != nil {
		s.Rounds = rounds
	}
	return s
}

func TestJudgePairs(t *testing.T) {
	for _, c := range []struct {
		name            string
		x, y            *Samples
		value, min, max float64
		samples         int
	}{
		{"pairs", of(nil, 2, 6, 4), of(nil, 1, 2, 4), 2, 1, 3, 3},
		{"an even count", of(nil, 2, 4, 6, 100), of(nil, 1, 1, 1, 1), 5, 2, 100, 4},
		// Without a partner in the same round the spread is the widest there can be.
		{"a round failed", of([]int{0, 2}, 2, 4), of(nil, 1, 2, 3), 1.5, 2.0 / 3, 4, 2},
		{"other rounds failed", of([]int{0, 2}, 2, 4), of([]int{0, 1}, 1, 4), 1.2, 0.5, 4, 2},
		{"not measured", nil, of(nil, 1), 0, 0, 0, 0},
		{"against what was not measured", of(nil, 1), nil, 0, 0, 0, 0},
		{"against nothing", of(nil, 1), of(nil, 0), 0, 0, 0, 0},
	} {
		m := &Measured{By: map[string]*Samples{}}
		if c.x != nil {
			m.By["x"] = c.x
		}
		if c.y != nil {
			m.By["y"] = c.y
		}
		v := target{contender: "x", against: "y", bound: 2}.judge([]*Measured{m}, 3)
		if v.Met != (c.value >= 2 && c.samples >= 3) || v.Value != c.value || v.Min != c.min || v.Max != c.max || v.Samples != c.samples {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// Each contender is judged in the placement that suits it best.
func TestJudgeBestPlacement(t *testing.T) {
	r := &Result{
		Options: options{Runs: 2, Rows: []string{"tcp-1*"}, Contenders: []string{"swd-tap", "bridge"}},
		Figures: []*Measured{
			{Name: tcp1, By: map[string]*Samples{"swd-tap": newSamples([]float64{9, 9}), "bridge": newSamples([]float64{20, 16})}},
			{Name: tcp1 + pinned, By: map[string]*Samples{"swd-tap": newSamples([]float64{15, 12}), "bridge": newSamples([]float64{8, 8})}},
		},
	}
	v := judge(r)
	if len(v) != 1 || v[0].Value != 0.75 || v[0].Min != 0.75 || v[0].Max != 0.75 {
		t.Errorf("%+v", v)
	}
	lower := []*Measured{{Lower: true, By: map[string]*Samples{"x": newSamples([]float64{3})}}, {Lower: true, By: map[string]*Samples{"x": newSamples([]float64{2})}}}
	if s := best(lower, "x"); s.Median != 2 {
		t.Errorf("of two where less is better: %+v", s)
	}
}

// Fewer samples than were asked for meet no bound, and are an error.
func TestTooFewSamples(t *testing.T) {
	r := &Result{Options: options{Runs: 3, Rows: []string{"tcp-1"}, Contenders: []string{"bridge", "swd-tap"}}, Errors: []string{}}
	for round := range 3 {
		r.add(round, rowNamed(t, "tcp-1"), "bridge", measurement{values: []float64{10}}, nil, nil)
		if round > 0 {
			r.add(round, rowNamed(t, "tcp-1"), "swd-tap", measurement{values: []float64{30}}, nil, nil)
		}
	}
	r.finish()
	if len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "2 of 3 samples") {
		t.Errorf("errors %q", r.Errors)
	}
	if v := r.Targets; len(v) != 1 || v[0].Met || v[0].Value != 3 || v[0].Samples != 2 {
		t.Errorf("judged %+v", v)
	}
	var out bytes.Buffer
	if err := deliver(&out, r, ""); err == nil || !strings.Contains(out.String(), "NOT MET: 2 of 3 samples") ||
		!strings.Contains(out.String(), "30.0 (30.0–30.0) of 2") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// figuresToReach are what Heddle is to reach, as its design has them.
var figuresToReach = []struct {
	figure, contender, against, bound string
}{
	{tcp1, "swd-tap", "bridge", "≥ 1"},
	{tcp1, "swd-veth", "bridge", "≥ 0.9"},
	{tcp4, "swd-tap", "ovs", "≥ 1.6"},
	{frames60, "swd-tap", "bridge", "≥ 1.5"},
	{rrCross, "swd-tap", "bridge", "≥ 0.9"},
	{rrCross, "swd-tap", "ovs", "≥ 1.3"},
	{natTCP1, swdOwn, "masquerade", "≥ 1"},
	{natTCP4, swdOwn, "masquerade", "≥ 1"},
	{natTCP1, swdShared, "masquerade", "≥ 1"},
	{natTCP4, swdShared, "masquerade", "≥ 1"},
	{natCRR, swdOwn, "masquerade", "≥ 0.7"},
	{natCRR, swdShared, "masquerade", "≥ 0.7"},
	{natAB, swdOwn, "masquerade", "≥ 0.7"},
	{natAB, swdShared, "masquerade", "≥ 0.7"},
	{natFrames60, swdOwn, "masquerade", "≥ 1.5"},
	{natFrames60, swdShared, "masquerade", "≥ 1.5"},
	{vxlanTCP1, swdVXLANTAP, "vxlan", "≥ 0.9"},
	{vxlanTCP1, swdVXLANTAP, "ovs-vxlan", "≥ 5"},
	{"64 B frame over mem ports", columnSwitch, "", "≤ 35"},
	{"64 B frame over mem ports, switch and NAT", columnFlow, "", "≤ 70"},
	{"64 B frame over mem ports, switch and NAT", columnFlows, "", "≤ 70"},
	{frameEncap, columnFlow, "", "≤ 90"},
	{frameEncap, columnFlows, "", "≤ 90"},
	{"allocations, 64 frames", columnSwitch, "", "≤ 0"},
	{"allocations, 64 frames, switch and NAT", columnFlow, "", "≤ 0"},
	{"allocations, 64 frames, switch and NAT", columnFlows, "", "≤ 0"},
	{allocsEncap, columnFlow, "", "≤ 0"},
	{allocsEncap, columnFlows, "", "≤ 0"},
	{allocsDecap, columnFlow, "", "≤ 0"},
	{allocsDecap, columnFlows, "", "≤ 0"},
	{"forwarding to random MACs", columnLarge, columnSmall, "≤ 4"},
	{"one FDB lookup after the other", columnLarge, columnSmall, "≤ 4"},
	{"translating for random connections", columnManyConns, columnFewConns, "≤ 4"},
	{natMemory, swdOwn, "", "≤ 128"},
	{natMemory, swdShared, "", "≤ 128"},
	{"memory of a full connection table", columnManyConns, "", "≤ 128"},
	{"memory of a full FDB", columnSwitch, "", "≤ 32"},
	{idleCPU, "swd-tap", "", "≤ 0.5"},
	{idleRSS, "swd-tap", "", "≤ 60"},
	{idleCPU, "swd-veth", "", "≤ 0.5"},
	{idleRSS, "swd-veth", "", "≤ 60"},
}

// measuredAll is a result in which each target is exceeded by off, or missed if
// that is negative.
func measuredAll(off float64) *Result {
	r := &Result{Options: options{Runs: 5}}
	five := func(v float64) *Samples { return newSamples([]float64{v, v, v, v, v}) }
	for _, t := range targets {
		value := t.bound + off
		if t.lower() {
			value = t.bound - off
		}
		m := &Measured{By: map[string]*Samples{t.contender: five(value), t.against: five(1)}}
		r.Targets = append(r.Targets, t.judge([]*Measured{m}, 5))
	}
	return r
}

// Every figure to reach is one line of the table, with its bound and whether it
// is met; none is left out because nothing was measured.
func TestEveryFigureIsJudged(t *testing.T) {
	if len(targets) != len(figuresToReach) {
		t.Errorf("%d targets for %d figures", len(targets), len(figuresToReach))
	}
	for name, c := range map[string]struct {
		result *Result
		want   string
	}{
		"better": {measuredAll(0.001), "met"},
		"worse":  {measuredAll(-0.001), "NOT MET"},
		"empty":  {func() *Result { r := &Result{Options: options{Runs: 5}}; r.finish(); return r }(), "NOT MEASURED"},
	} {
		var out bytes.Buffer
		if err := writeTable(&out, c.result); err != nil {
			t.Fatal(err)
		}
		_, table, ok := strings.Cut(out.String(), "\nto reach")
		if !ok {
			t.Fatalf("%s: nothing is to reach:\n%s", name, out.String())
		}
		for _, f := range figuresToReach {
			who := f.contender
			if f.against != "" {
				who += " / " + f.against
			}
			lines := 0
			for line := range strings.Lines(table) {
				if !strings.HasPrefix(line, f.figure+"  ") || !strings.Contains(line, "  "+who+"  ") {
					continue
				}
				lines++
				_, verdict, _ := strings.Cut(line, "  "+f.bound+"  ")
				if got := strings.TrimSpace(verdict); got != c.want {
					t.Errorf("%s: %q says %q, want %s", name, line, got, c.want)
				}
			}
			if lines != 1 {
				t.Errorf("%s: %d lines for %v", name, lines, f)
			}
		}
	}
}

// Only what rows and contenders were chosen for is judged.
func TestWanted(t *testing.T) {
	count := func(rows, contenders []string) (n int) {
		for _, target := range targets {
			if target.wanted(options{Rows: rows, Contenders: contenders}) {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		rows, contenders []string
		want             int
	}{
		{nil, nil, len(targets)},
		{[]string{"tcp-1"}, nil, 2}, {[]string{"tcp-1-pinned"}, nil, 2},
		{[]string{"tcp-1"}, []string{"swd-*"}, 0}, {[]string{"tcp-1"}, []string{"swd-tap", "bridge"}, 1},
		{[]string{"latency"}, nil, 0}, {[]string{"idle"}, []string{"swd-tap"}, 2},
		{[]string{inProcessRow}, []string{"bridge"}, 17},
	} {
		if got := count(c.rows, c.contenders); got != c.want {
			t.Errorf("%v on %v: %d targets, want %d", c.rows, c.contenders, got, c.want)
		}
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
