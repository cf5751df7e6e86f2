package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSharedLinesOfATrace(t *testing.T) {
	const at = 0x1000
	var trace strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&trace, format+"\n", args...) }
	say("==1== Lackey, an example Valgrind tool")
	say(" S 5000,8") // Before everything.
	for range marksBefore {
		say(" S %x,4", at)
	}
	say(" M %x,4", at)
	for range 4 { // Worker 0: two batches.
		say("I  400000,3")
		say(" L 2000,8") // Both read it, nobody writes.
		say(" M 3008,8") // Both write.
		say(" S 4000,8") // Its own.
	}
	say(" L 603c,8") // Two lines, of which the other writes the second.
	say(" S %x,4", at)
	say(" S 7000,8") // Between the phases.
	say(" S %x,4", at)
	for range 4 {
		say(" L 2010,8")
		say(" S 3010,4")
		say(" S 4040,8")
	}
	say(" S 6040,8")
	say(" S %x,4", at)
	say(" S 3000,8")
	a := newAccesses(at)
	if err := a.read(strings.NewReader(trace.String())); err != nil {
		t.Fatal(err)
	}
	got := a.shared([]Region{{"lock", 0x3008, 8}, {"table", 0x3010, 0x20}}, 2, 1)
	want := &Traced{Lines: 2, Touched: 5, Written: 2, Instructions: 1, Frames: 1, Shared: []SharedLine{
		{What: "lock, table", Reads: 1, Writes: 2},
		{What: "Go's runtime", Reads: 0.25, Writes: 0.25},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{" S something\n", fmt.Sprintf(" S %x,4\n", at)} {
		if newAccesses(at).read(strings.NewReader(bad)) == nil {
			t.Errorf("%q was read as a trace", bad)
		}
	}
}

func TestRegionsAreNamed(t *testing.T) {
	p, err := newPath(pathNAT, 2, 8)
	if err != nil {
		t.Fatal(err)
	}
	regions := regionsOf(p.roots)
	found := map[string]bool{}
	for _, r := range regions {
		found[r.Name] = true
		if r.Len > 0 && nameOf(regions, r.Addr) == "" {
			t.Errorf("%s at %x has no name", r.Name, r.Addr)
		}
	}
	for _, name := range []string{
		"switch.fdb.mu", "switch.fdb.cells[…]", "switch.workers[1].depth", "nat.mu.mu", "nat.table.conns[…]", "egress.counters.perWorker[0].tally.txFrames",
	} {
		if !found[name] {
			t.Errorf("no region %s", name)
		}
	}
	if name := nameOf(regions, 1); name != "" {
		t.Errorf("address 1 is %s", name)
	}
}

// Each path carries what two workers push, and the figures of it are there.
func TestPathsCarryFrames(t *testing.T) {
	for _, name := range pathNames {
		for _, frames := range []int{1, 64} {
			p, err := newPath(name, 2, frames)
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				p.push(0)
				p.push(1)
			}
			if err := p.carried(20 * uint64(frames)); err != nil {
				t.Error(err)
			}
		}
		c := Cost{Path: name, Frames: 8}
		for i := range 2 {
			if err := c.round(i, 2*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.One) != 2 || len(c.Two) != 2 || c.batch() <= 0 || c.hold() != 0 {
			t.Errorf("measured %+v", c)
		}
	}
	if _, err := newPath("none", 1, 1); err == nil {
		t.Error("made a path that there isn't")
	}
}

func TestLockedIsWhatNATAdds(t *testing.T) {
	alone := &Cost{Path: pathSwitch, Frames: 8, One: []float64{1e6, 2e6}}
	c := &Cost{Path: pathNAT, Frames: 8, One: []float64{0.8e6, 1e6}}
	c.against(alone)
	if got, want := c.Locked, []float64{4000}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v ns a batch, want %v", got, want)
	}
}

func TestTheReportHasEveryCurve(t *testing.T) {
	h := Handover{Lines: 2, Transfer: 80, Look: 700, Looks: 4, Wake: 9000}
	r := &Result{Untraced: "in a test", Handover: h, Rounds: []Handover{h}}
	for _, name := range pathNames {
		for _, frames := range []int{1, 64} {
			c := &Cost{Path: name, Frames: frames, One: []float64{1.2e7, 1e7, 1.1e7}, Two: []float64{2e7, 2.2e7, 2.3e7}}
			if name == pathNAT {
				c.Locked = []float64{20 * float64(frames)}
			}
			r.Costs = append(r.Costs, c)
		}
	}
	r.simulate()
	var table bytes.Buffer
	r.write(&table)
	drawn := plot(r.Curves, "a title")
	if len(r.Curves) != 2+6+1 {
		t.Errorf("%d curves", len(r.Curves))
	}
	for _, c := range r.Curves {
		if !strings.Contains(table.String(), c.Name) || !strings.Contains(drawn, c.Name) {
			t.Errorf("%s isn't shown", c.Name)
		}
	}
	for _, want := range []string{
		"| switch | 64 | – | 90.9 | – | 11.0 (10.0–12.0) | 22.0 (20.0–23.0) | 2.09 (1.67–2.20) | 21.9 | 1.00 |", "2, not counted in this run", "at 80 (80–80) ns", "every 700 ns",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

// A lock that was held for longer than anybody looks comes later.
func TestHandover(t *testing.T) {
	h := handover(5 * time.Millisecond)
	if h.Transfer <= 0 || h.Look <= 0 || h.Wake <= 0 {
		t.Errorf("measured %+v", h)
	}
}
