package dataplane

import (
	"sync/atomic"
	"unsafe"
)

// cacheLine is what workers keep their counters apart by: two lines of 64
// bytes, because the prefetcher takes them in pairs.
const cacheLine = 128

// tally is one worker's share of a port's counters. Only that worker adds to
// it, once a batch; anybody reads it.
type tally struct {
	rxFrames, rxBytes, txFrames, txBytes atomic.Uint64
	drops                                [DropCount]atomic.Uint64
}

type paddedTally struct {
	tally
	_ [(cacheLine - unsafe.Sizeof(tally{})%cacheLine) % cacheLine]byte
}

// Counters counts what passed a port, seen from Heddle: rx came in by the
// port, tx went out by it. A GSO frame counts as one frame of all its bytes, also
// where the port cuts it. Each worker adds to its own share; the sums are taken
// when they are read.
type Counters struct {
	perWorker []paddedTally
}

// NewCounters returns zeroed counters for workers 0 to workers-1.
func NewCounters(workers int) *Counters {
	return &Counters{perWorker: make([]paddedTally, workers)}
}

// Rx adds frames that came in. Only the worker itself may call it, like Tx
// and Drop.
func (c *Counters) Rx(worker, frames, bytes int) {
	t := &c.perWorker[worker].tally
	add(&t.rxFrames, frames)
	add(&t.rxBytes, bytes)
}

// Tx adds frames that went out.
func (c *Counters) Tx(worker, frames, bytes int) {
	t := &c.perWorker[worker].tally
	add(&t.txFrames, frames)
	add(&t.txBytes, bytes)
}

// Drop adds n frames that went no further for the reason d.
func (c *Counters) Drop(worker int, d Drop, n int) {
	add(&c.perWorker[worker].drops[d], n)
}

// add needs no locked instruction: the counter has one writer.
func add(c *atomic.Uint64, n int) { c.Store(c.Load() + uint64(n)) }

// Totals is the sum over all workers at one moment.
type Totals struct {
	RxFrames, RxBytes, TxFrames, TxBytes uint64
	Drops                                [DropCount]uint64
}

// Totals adds up the workers' shares. Anybody may call it at any time; the
// fields are each exact, but not of the very same instant.
func (c *Counters) Totals() Totals {
	var s Totals
	for i := range c.perWorker {
		t := &c.perWorker[i].tally
		s.RxFrames += t.rxFrames.Load()
		s.RxBytes += t.rxBytes.Load()
		s.TxFrames += t.txFrames.Load()
		s.TxBytes += t.txBytes.Load()
		for d := range t.drops {
			s.Drops[d] += t.drops[d].Load()
		}
	}
	return s
}
