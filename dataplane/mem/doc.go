// Package mem is a port in memory: the double of a device for tests, and the
// source and sink of in-process benchmarks.
//
// Three kinds are made:
//
//   - New: a port whose far end is the test: Inject puts frames where Pull
//     finds them, Sent returns what Push took, offload state included.
//   - Pair: two ports joined by a cable: what one pushes, the other pulls. Two
//     engines in one process talk through it.
//   - NewLoop: a port that gives the same frames at every Pull and only counts
//     what is pushed: 5 ns a frame in and 2 ns out, so that a benchmark
//     measures what stands between.
//
// By default a port takes any frame as it is, as a TAP does. Config.NoPartial
// and NoGSO make it complete checksums and segment in software.
//
// # Who may call what
//
// Pull and Push are the hot path: worker w's thread calls them with
// Batch.Worker == w and touches only queue w. Inject, Sent, Fail and the
// constructors are for control code, from any goroutine, also while workers
// run. Close follows the last Pull and Push, as for every port.
//
// There is one bounded ring a worker and direction; a full one makes Push
// drop with TxQueueFull, as a device would, and Inject say how many fitted.
// FD is -1: workers poll the port.
package mem
