package main

// target is a figure to reach: a ratio to what another contender reached, or a
// bound for the figure itself. Where less is better (Measured.Lower) it may be
// bound at most, else it must be bound at least.
type target struct {
	figure    string // Measured.Name.
	contender string
	against   string // Empty: bound is of the figure itself.
	bound     float64
}

// targets are the figures that Heddle is to reach.
var targets = []target{
	{"TCP, 1 stream", "swd-tap", "bridge", 1.0},
	{"TCP, 1 stream", "swd-veth", "bridge", 0.9},
	{"TCP, 4 streams", "swd-tap", "ovs", 1.6},
	{"60 B frames delivered, one flow", "swd-tap", "bridge", 1.5},
	{"TCP_RR, two cores", "swd-tap", "bridge", 0.9},
	{"TCP_RR, two cores", "swd-tap", "ovs", 1.3},
	{"idle CPU", "swd-tap", "", 0.5}, // Shown as 0%: less than the clock's tick tells apart.
	{"idle RSS", "swd-tap", "", 60},
	{"64 B frame over mem ports", columnSwitch, "", 35},
	{"allocations, 64 frames", columnSwitch, "", 0},
	{"forwarding to random MACs", columnLarge, columnSmall, 4},
	{"memory of a full FDB", columnSwitch, "", 32},
}

// Verdict says whether a target was met.
type Verdict struct {
	Figure    string  `json:"figure"`
	Contender string  `json:"contender"`
	Against   string  `json:"against,omitempty"`
	Value     float64 `json:"value"` // The ratio of the medians, or the median.
	// Min and Max are the spread over the rounds: of the ratio within each
	// round, or of the figure.
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Bound float64 `json:"bound"`
	// Lower tells that Bound is the most that Value may be, not the least.
	Lower bool `json:"lower_is_better"`
	Met   bool `json:"met"`
}

// judge holds the result against the targets. Those that were not measured are
// left out.
func judge(r *Result) []Verdict {
	verdicts := []Verdict{}
	for _, t := range targets {
		for _, m := range r.Figures {
			if m.Name != t.figure {
				continue
			}
			if v, ok := t.judge(m); ok {
				verdicts = append(verdicts, v)
			}
		}
	}
	return verdicts
}

func (t target) judge(m *Measured) (Verdict, bool) {
	s := m.By[t.contender]
	if s == nil || len(s.Values) == 0 {
		return Verdict{}, false
	}
	v := Verdict{Figure: t.figure, Contender: t.contender, Against: t.against, Bound: t.bound, Lower: m.Lower}
	if t.against == "" {
		v.Value, v.Min, v.Max = s.Median, s.Min, s.Max
		v.Met = v.within()
		return v, true
	}
	base := m.By[t.against]
	if base == nil || len(base.Values) == 0 || base.Median == 0 {
		return Verdict{}, false
	}
	v.Value = s.Median / base.Median
	v.Met = v.within()
	var ratios []float64
	if len(s.Values) == len(base.Values) { // No round failed.
		for i := range s.Values {
			ratios = append(ratios, s.Values[i]/base.Values[i])
		}
	} else {
		ratios = []float64{s.Min / base.Max, s.Max / base.Min}
	}
	spread := newSamples(ratios)
	v.Min, v.Max = spread.Min, spread.Max
	return v, true
}

// within tells whether the value keeps to the bound.
func (v Verdict) within() bool {
	if v.Lower {
		return v.Value <= v.Bound
	}
	return v.Value >= v.Bound
}
