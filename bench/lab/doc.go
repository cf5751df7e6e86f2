// Package lab makes network namespaces, the links between them and the
// processes in them, for tests and benchmarks, and takes everything away again.
//
// A Lab owns all that it made: namespaces, processes, a directory. Close ends
// it in bounded time, and namespaces that a killed process left behind are
// removed by the next Lab. Nothing is ever made in the caller's own namespace,
// and no process is ended but those the lab started, each by its pid.
//
//	caller's namespace          hdb-PID-1-a           hdb-PID-1-b
//	  (test or swbench)         eth0 ────── veth ─────── eth0
//
// Tests use T, whose methods fail the test instead of returning errors and
// which checks for leaks at its end. Every step is also written down as the
// command that does the same (Lab.Commands), so that a result can be repeated
// by hand.
//
// All of it needs root. The methods of Lab, NetNS, Process and Swd may be
// called from any goroutine.
package lab
