// Command contention tells how Heddle scales on more cores than the machine has.
//
// It measures, over ports in memory, what a batch costs a worker on the way of a
// switch, with NAT and with VXLAN; how long NAT's one lock is held for it; what
// a cache line costs that comes from another core; and what two workers do at
// the same time. It counts by valgrind's lackey, where that is installed, which
// cache lines two workers both touch and one of them writes (trace.go). From
// these a simulation says what 1 to 64 workers would do (simulate.go), beside
// two workers as measured.
//
//	contention [--out DIR] [--seconds N]
//
// It prints a table and, with --out, writes table.md, result.json and plot.svg.
package main
