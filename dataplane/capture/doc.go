// Package capture copies what passes a port, for pcapng files and live views.
//
// A Mirror is a dataplane.Port around another one: Pull copies what the inner port
// gave (In), Push what it is about to be handed (Out). Control code puts it in
// the port's place for the time of a capture, so that a port that isn't
// captured costs nothing. One Capture serves the Mirrors of one port or of many: a
// network's capture.
//
//	worker 0 ─ Mirror.Pull, Mirror.Push ─► ring 0 ─┐
//	worker 1 ─ Mirror.Pull, Mirror.Push ─► ring 1 ─┴─► Read: one goroutine, merged by time
//
// # Never in the way
//
// A worker waits for nobody. Each has a ring of bytes of its own, which it
// fills and Read empties; what doesn't fit is counted by Missed. What one round
// of a worker copies is bounded too (roundBytes): the capture of a flood to
// hundreds of ports is full of holes, but costs the round no more than some
// 30 µs. Without a reader a ring is soon full, and then a batch costs 10 ns.
//
// # How control code uses it
//
//	c, err := capture.New(capture.Config{Workers: n, SnapLen: 256})
//	mirror := c.Wrap(id, port)             // for each port
//	engine.Swap(id, mirror)                // and in the switch, as the way out
//	for c.Wait() { c.Read(write) }         // a goroutine, until Stop
//	…
//	engine.Swap(id, port)                  // and in the switch, before it
//	c.Stop()                               // ends the goroutine's loop
//	c.Read(write)                          // by that goroutine: what was left
//	c.Close()
//
// The reader filters and writes: what it doesn't want costs it a call. A filter
// looks at the SnapLen first bytes of a frame; cut to less when writing.
//
// # What a record says
//
// Record.Time is Batch.Now, the engine's clock: add the wall time at which that
// was zero. All frames of a round have the same. Records come in the order of
// time; a worker's own stay in their order, two workers' are as close as their
// rounds. A frame that one captured port gives and another takes is there
// twice, In and Out. Out is what was handed to the port, also if its device
// then refuses it (Counters tell). What a frame owes comes along: a GSO frame
// is one record, and a partial checksum is none to complain about.
//
// # Who may call what
//
// Mirror.Pull and Mirror.Push: the worker that the batch names. Read: one goroutine
// at a time. Close: after the engine and the switch have let go of every Mirror,
// and Read and Wait have ended. Everything else: anybody, at any time.
package capture
