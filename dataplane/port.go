package dataplane

// PortID is a port's dense number: an index into tables. 0 is no port. Numbers
// of ports that are gone are given again.
type PortID uint16

// MaxPorts bounds PortID: 1 ≤ id < MaxPorts.
const MaxPorts = 4096

// Port is a way for frames in and out: a TAP, an AF_PACKET socket, memory, a
// tunnel, a gateway. It has one queue for each worker; Pull and Push use that
// of Batch.Worker, and different workers may call them at the same time.
type Port interface {
	// Pull fills the batch with frames that have arrived, none if there are
	// none; it never blocks. The frames are valid until the worker's next Pull
	// from any port. It takes no more than BatchSize frames or about
	// PullBytes, whichever comes first, so that the frames are still in the
	// cache when they are pushed; of a read of many frames at once all come, also
	// beyond PullBytes. It counts them as rx; malformed input is
	// counted as a drop and left out. It sets b.More where another Pull at
	// once is worth its cost.
	Pull(b *Batch)

	// Push sends the frames that b.Sel selects, in order. It counts those that
	// it sent as tx, and the others as drops, of this port. The frames are the
	// caller's again when it returns. It may write to a selected frame's headroom, and
	// may settle what the frame owes in place (complete a checksum) as long as
	// Frame.Owes says so afterwards; it changes nothing else.
	Push(b *Batch)

	// FD returns the descriptor of a worker's queue that becomes readable
	// when Pull has something, or -1 if the port is to be polled each round.
	FD(worker int) int

	// Counters returns the port's counters. They outlive Close.
	Counters() *Counters

	// Close gives back what the port holds. The engine has let go of the port
	// before: no Pull or Push runs or follows.
	Close() error
}

// PullBytes is about how much one Pull takes, in bytes: more would push what
// was read first out of the second-level cache before it is written.
const PullBytes = 128 << 10

// Sink takes the batches that a worker pulled from a port: a network for a
// container's port.
type Sink interface {
	// Push forwards the frames of b and counts those it drops. It runs on the
	// worker's thread and must not block.
	Push(b *Batch)
}
