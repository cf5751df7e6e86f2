package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"heddle/bench/baseline"
)

// Rows are measured only on contenders of their table.
func TestRowsOn(t *testing.T) {
	bridge, masquerade := &baseline.Path{}, &baseline.Path{External: "a", NAT: &baseline.NAT{MaxConns: 262_144}}
	daemon := &baseline.Path{External: "a", NAT: &baseline.NAT{MaxConns: tableRoom}}
	relay := &baseline.Path{External: "a"}
	vxlan := &baseline.Path{Hosts: true, PIDs: []int{1, 2}}
	for _, c := range []struct {
		row  string
		path *baseline.Path
		want bool
	}{
		{"tcp-1", bridge, true}, {"tcp-1", masquerade, false}, {"idle", bridge, false},
		{"nat-tcp-1", bridge, false}, {"nat-tcp-1", masquerade, true},
		{"nat-crr-100k", masquerade, true}, {"nat-crr-1m", masquerade, false}, {"nat-crr-1m", daemon, true},
		{"vxlan-tcp-1", vxlan, true}, {"vxlan-tcp-1", bridge, false}, {"tcp-1", vxlan, false}, {"idle", vxlan, false},
		{"nat-tcp-1", vxlan, false},
		{"nat-crr", relay, true}, {"nat-crr-1k", relay, false}, {"nat-memory", relay, false}, {"tcp-1", relay, false},
	} {
		if got := rowNamed(t, c.row).on(c.path); got != c.want {
			t.Errorf("%s: %v", c.row, got)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		name     string
		want     bool
	}{
		{nil, "tcp-1", true},
		{[]string{"tcp-1"}, "tcp-1", true}, {[]string{"tcp-1"}, "tcp-1-pinned", false},
		{[]string{"nat-*"}, "nat-crr", true}, {[]string{"nat-*"}, "tcp-1", false},
		{[]string{"idle", "*-pinned"}, "nat-ab-pinned", true},
		{[]string{"["}, "tcp-1", false},
	} {
		if got := matches(c.patterns, c.name); got != c.want {
			t.Errorf("%v of %s: %v", c.patterns, c.name, got)
		}
	}
}

// docs/BENCH.md tells of every row and every contender, and of no other.
func TestEveryRowIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/BENCH.md")
	if err != nil {
		t.Fatal(err)
	}
	known := append(rowNames(), contenderNames()...)
	var explained []string
	for line := range strings.Lines(string(page)) {
		cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if !ok || !strings.HasPrefix(line, "| `") {
			continue
		}
		for name := range strings.FieldsFuncSeq(cell, func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			explained = append(explained, name)
			if !slices.Contains(known, name) {
				t.Errorf("BENCH.md explains %s, which there isn't", name)
			}
		}
	}
	for _, name := range known {
		if !slices.Contains(explained, name) {
			t.Errorf("BENCH.md has no line for %s", name)
		}
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
