package main

import "slices"

// target is a figure to reach: a ratio to what another contender reached, or a
// bound for the figure itself. Where less is better (Measured.Lower) it may be
// bound at most, else it must be bound at least.
type target struct {
	// figure is Measured.Name. Where it was measured with the ends pinned too,
	// each contender's better placement counts.
	figure    string
	contender string
	against   string // Empty: bound is of the figure itself.
	bound     float64
}

// targets are the figures that Heddle is to reach.
var targets = []target{
	{tcp1, "swd-tap", "bridge", 1.0},
	{tcp1, "swd-veth", "bridge", 0.9},
	{tcp4, "swd-tap", "ovs", 1.6},
	{frames60, "swd-tap", "bridge", 1.5},
	{rrCross, "swd-tap", "bridge", 0.9},
	{rrCross, "swd-tap", "ovs", 1.3},
	{idleCPU, "swd-tap", "", 0.5}, // 0% to the nearest.
	{idleRSS, "swd-tap", "", 60},
	{idleCPU, "swd-veth", "", 0.5},
	{idleRSS, "swd-veth", "", 60},
	{"64 B frame over mem ports", columnSwitch, "", 35},
	{"allocations, 64 frames", columnSwitch, "", 0},
	{"forwarding to random MACs", columnLarge, columnSmall, 4},
	{"one FDB lookup after the other", columnLarge, columnSmall, 4},
	{"memory of a full FDB", columnSwitch, "", 32},

	{natTCP1, swdOwn, "masquerade", 1.0},
	{natTCP1, swdShared, "masquerade", 1.0},
	{natTCP4, swdOwn, "masquerade", 1.0},
	{natTCP4, swdShared, "masquerade", 1.0},
	{natCRR, swdOwn, "masquerade", 0.7},
	{natCRR, swdShared, "masquerade", 0.7},
	{natAB, swdOwn, "masquerade", 0.7},
	{natAB, swdShared, "masquerade", 0.7},
	{natFrames60, swdOwn, "masquerade", 1.5},
	{natFrames60, swdShared, "masquerade", 1.5},
	{natMemory, swdOwn, "", 128},
	{natMemory, swdShared, "", 128},
	{"64 B frame over mem ports, switch and NAT", columnFlow, "", 70},
	{"64 B frame over mem ports, switch and NAT", columnFlows, "", 70},
	{"allocations, 64 frames, switch and NAT", columnFlow, "", 0},
	{"allocations, 64 frames, switch and NAT", columnFlows, "", 0},
	{"translating for random connections", columnManyConns, columnFewConns, 4},
	{"memory of a full connection table", columnManyConns, "", 128},

	{vxlanTCP1, swdVXLANTAP, "vxlan", 0.9},
	{vxlanTCP1, swdVXLANTAP, "ovs-vxlan", 5},
	{frameEncap, columnFlow, "", 90},
	{frameEncap, columnFlows, "", 90},
	{allocsEncap, columnFlow, "", 0},
	{allocsEncap, columnFlows, "", 0},
	{allocsDecap, columnFlow, "", 0},
	{allocsDecap, columnFlows, "", 0},
}

// limits are what shows why a target can be out of reach: how near swd comes to
// a relay that does nothing (package relay), and that to the kernel's path. They
// have no bound.
var limits = slices.Concat(
	limitsOf([]string{tcp1, tcp4, frames60, rrCross}, [][2]string{
		{"swd-tap", relayTAP}, {relayTAP, "bridge"}, {"swd-veth", relayPacket}, {relayPacket, "bridge"},
	}),
	limitsOf([]string{tcp4, rrCross}, [][2]string{{relayTAP, "ovs"}}),
	limitsOf([]string{natTCP1, natTCP4, natCRR, natAB, natFrames60}, [][2]string{
		{swdOwn, relayUplink}, {swdShared, relayUplink}, {relayUplink, "masquerade"},
	}),
)

func limitsOf(figures []string, pairs [][2]string) []target {
	var ts []target
	for _, f := range figures {
		for _, p := range pairs {
			ts = append(ts, target{figure: f, contender: p[0], against: p[1]})
		}
	}
	return ts
}

// Verdict says whether a target was met.
type Verdict struct {
	Figure    string `json:"figure"`
	Contender string `json:"contender"`
	Against   string `json:"against,omitempty"`
	// Value is the median of the ratios within each round, or of the figure; of
	// contenders that weren't measured in the same rounds, the ratio of the medians.
	Value float64 `json:"value"`
	// Min and Max are the spread over the rounds: of the ratio within each
	// round, or of the figure.
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Bound float64 `json:"bound"`
	// Lower tells that Bound is the most that Value may be, not the least.
	Lower bool `json:"lower_is_better"`
	// Met tells that Value keeps to Bound, and is of as many samples as were asked
	// for.
	Met bool `json:"met"`
	// Samples is how many each side has at least; 0 tells that the figure was to be
	// measured and was not, and that there is no Value.
	Samples int `json:"samples"`
}

// judge holds the result against the targets that were to be measured.
func judge(r *Result) []Verdict {
	verdicts := []Verdict{}
	for _, t := range targets {
		if !t.wanted(r.Options) {
			continue
		}
		verdicts = append(verdicts, t.judge(r.placements(t.figure), r.Options.Runs))
	}
	return verdicts
}

// limit returns the limits that were measured.
func limit(r *Result) []Verdict {
	verdicts := []Verdict{}
	for _, t := range limits {
		if v := t.compare(r.placements(t.figure)); v.Samples > 0 {
			verdicts = append(verdicts, v)
		}
	}
	return verdicts
}

// wanted tells whether rows and contenders were chosen such that the target's
// figure is measured.
func (t target) wanted(o options) bool {
	for _, s := range suites {
		for _, f := range s.figures {
			if f.figure.Name == t.figure {
				return matches(o.Rows, inProcessRow)
			}
		}
	}
	measured := slices.ContainsFunc(chosen(o.Rows), func(row Row) bool {
		return slices.ContainsFunc(row.Figures, func(f Figure) bool { return f.Name == t.figure || f.Name == t.figure+pinned })
	})
	return measured && matches(o.Contenders, t.contender) && (t.against == "" || matches(o.Contenders, t.against))
}

// lower tells whether of the target's figure less is better.
func (t target) lower() bool {
	is := func(f Figure) bool { return f.Name == t.figure && f.Lower }
	for _, row := range allRows() {
		if slices.ContainsFunc(row.Figures, is) {
			return true
		}
	}
	return slices.ContainsFunc(suites, func(s suite) bool {
		return slices.ContainsFunc(s.figures, func(f benchFigure) bool { return is(f.figure) })
	})
}

// placements returns a figure in all the placements that it was measured in.
func (r *Result) placements(name string) []*Measured {
	var all []*Measured
	for _, m := range r.Figures {
		if m.Name == name || m.Name == name+pinned {
			all = append(all, m)
		}
	}
	return all
}

// best returns a contender's samples in the placement that suits it best.
func best(placements []*Measured, contender string) *Samples {
	var best *Samples
	for _, m := range placements {
		s := m.By[contender]
		if s == nil || len(s.Values) == 0 {
			continue
		}
		if best == nil || (s.Median > best.Median) != m.Lower {
			best = s
		}
	}
	return best
}

// judge compares what was measured in all placements, of which each contender was
// to give so many samples.
func (t target) judge(placements []*Measured, runs int) Verdict {
	v := t.compare(placements)
	v.Met = v.Samples > 0 && v.Samples >= runs && v.within()
	return v
}

// compare is judge without Met.
func (t target) compare(placements []*Measured) Verdict {
	v := Verdict{Figure: t.figure, Contender: t.contender, Against: t.against, Bound: t.bound, Lower: t.lower()}
	s := best(placements, t.contender)
	if s == nil {
		return v
	}
	if t.against == "" {
		v.Value, v.Min, v.Max, v.Samples = s.Median, s.Min, s.Max, len(s.Values)
		return v
	}
	base := best(placements, t.against)
	if base == nil || base.Min <= 0 {
		return v
	}
	v.Samples = min(len(s.Values), len(base.Values))
	if !slices.Equal(s.Rounds, base.Rounds) {
		// Some have no partner: the widest spread there can be.
		v.Value, v.Min, v.Max = s.Median/base.Median, s.Min/base.Max, s.Max/base.Min
		return v
	}
	// The machine's speed changes within a run, so that only what was measured in
	// the same round compares.
	ratios := make([]float64, len(s.Values))
	for i := range ratios {
		ratios[i] = s.Values[i] / base.Values[i]
	}
	paired := newSamples(ratios)
	v.Value, v.Min, v.Max = paired.Median, paired.Min, paired.Max
	return v
}

// within tells whether the value keeps to the bound.
func (v Verdict) within() bool {
	if v.Lower {
		return v.Value <= v.Bound
	}
	return v.Value >= v.Bound
}
