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
	got := a.shared([]Region{{"lock", 0x3008, 8}, {"table", 0x3010, 0x20}}, 2)
	want := &Traced{Touched: 5, Written: 2, Shared: []SharedLine{
		{What: "lock, table", Reads: 1, Writes: 2},
		{What: "Go's runtime", Reads: 0.25, Writes: 0.25},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if newAccesses(at).read(strings.NewReader(" S something\n")) == nil {
		t.Error("a trace that is none was read")
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
		"switch.fdb.mu", "switch.fdb.cells[…]", "switch.workers[1].depth", "nat.mu", "nat.table.conns[…]", "egress.counters.perWorker[0].tally.txFrames",
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
		c, err := measure(name, 8, 2*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if c.Batch <= 0 || c.One <= 0 || (c.Locked > 0) != (name == pathNAT) {
			t.Errorf("measured %+v", c)
		}
	}
	if _, err := newPath("none", 1, 1); err == nil {
		t.Error("made a path that there isn't")
	}
}

func TestTheReportHasEveryCurve(t *testing.T) {
	r := &Result{Untraced: "in a test"}
	for _, name := range pathNames {
		for _, frames := range []int{1, 64} {
			r.Costs = append(r.Costs, Cost{Path: name, Frames: frames, Batch: 60 * float64(frames), One: 1e7})
		}
	}
	r.Curves = curves(r.Costs)
	var table bytes.Buffer
	r.write(&table)
	drawn := plot(r.Curves, "a title")
	if len(r.Curves) != 3*3 {
		t.Errorf("%d curves", len(r.Curves))
	}
	for _, c := range r.Curves {
		if !strings.Contains(table.String(), c.Name) || !strings.Contains(drawn, c.Name) {
			t.Errorf("%s isn't shown", c.Name)
		}
	}
}
