package dataplane

// Engine runs the workers. NewEngine makes it, Start starts the threads, Stop
// ends them after a last round that drains what has arrived.
//
// Attach, Detach, Do and Stop are for control code, from any goroutine but a
// worker's, one at a time or not.
type Engine struct{}

// NewEngine returns an engine of n workers, 1 ≤ n ≤ MaxWorkers. Worker i is
// pinned to cpus[i%len(cpus)]; without cpus it floats.
func NewEngine(n int, cpus []int) (*Engine, error) { return nil, nil }

// Workers returns the number of workers.
func (e *Engine) Workers() int { return 0 }

// Start starts a locked, pinned thread for each worker.
func (e *Engine) Start() error { return nil }

// Attach has every worker pull from its queue of p and push to sink.
func (e *Engine) Attach(id PortID, p Port, sink Sink) error { return nil }

// Detach ends what Attach began. When it returns, no worker is in p or will
// be: it may be closed, unless a sink still holds it.
func (e *Engine) Detach(id PortID) {}

// Do runs f on every worker's thread between two rounds, one worker after the
// other, and returns when all have: afterwards no worker uses what was
// unlinked before. Before Start and after Stop it runs f on the caller's.
func (e *Engine) Do(f func(worker int)) {}

// Round runs one round of every worker on the caller's goroutine at the time
// now: for tests and for engines over mem ports, which are not started. It
// returns how many frames were pulled.
func (e *Engine) Round(now int64) int { return 0 }

// Now returns the engine's clock: nanoseconds since NewEngine, monotonic. It
// is what Batch.Now is taken from.
func (e *Engine) Now() int64 { return 0 }

// Stop drains and ends the workers and waits for them.
func (e *Engine) Stop() {}
