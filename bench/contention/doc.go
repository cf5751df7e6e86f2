// Command contention tells how Heddle scales on more cores than the machine has.
//
// It measures, over ports in memory, what one worker and what two do at the same
// time on the way of a switch, with NAT and with VXLAN; how long NAT's one lock
// is held; and what it takes a lock and a cache line to go from one CPU to
// another (measure.go, handover.go). It counts by valgrind's lackey, where that
// is installed, instructions and the cache lines that two workers both touch and
// one of them writes (trace.go). From these a simulation says what 1 to 64
// workers would do (simulate.go); for two it stands beside what was measured.
//
//	contention [--out DIR] [--seconds N] [--rounds N]
//
// It prints a table and, with --out, writes table.md, result.json and plot.svg.
package main
