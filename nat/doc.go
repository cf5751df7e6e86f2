// Package nat is the way of a network's containers to the world and back: a
// gateway with addresses on the network, an uplink with addresses outside, and
// the connections that are translated between them (RFC 4787, 5382, 5508,
// 3022; docs/DROPS.md has what goes no further).
//
// # Nouns
//
// A NAT holds everything. A Gateway is a network's port that answers for the
// gateway's addresses and routes. An Uplink is the sink of an interface's port.
// A link is what both are: a station on an Ethernet with neighbours. The Stack
// is the host's own, which containers reach without translation. A rule is
// a masquerade, by which a network's containers reach an uplink, or a
// publication, by which an uplink's ports reach a container. A conn is a
// connection between an inside, an external and an outside endpoint. A mapping
// is what the connections of one inside endpoint share: its external endpoint.
//
// # Who hands it frames, and where they go
//
//	network → Gateway.Push → outboundPacket ─┬ conn → rewrite source ─┬→ Uplink's port
//	                                         └→ Stack's port          └ hairpin ┐
//	worker  → Uplink.Push  → inboundPacket  → conn → rewrite destination  ←────┘
//	                                                                 └→ Gateway's network
//
// A hairpin is both, one after the other: two connections, and neither side
// knows. What the NAT makes itself (ARP, ND, echo replies, ICMP errors), and
// what has waited for a MAC or for the first fragment, goes by an outbox of the
// worker after the batch.
//
// Frames are rewritten where they lie, whole super-frames at a time, and their
// checksums by what has changed, partial ones too. So a frame to a gateway's
// MAC has to be the gateway's alone: the MAC is a static entry of the network's
// FDB (GatewayConfig.MAC). What a gateway gets by flooding it leaves alone.
//
// # Threads
//
// Gateway.Push, Uplink.Push and Stack.Push are for workers, each with its own
// Batch, several at the same time. A worker holds NAT.mu once for a batch, while
// it translates and not while it pushes: 10 ns for up to 64 frames when it is
// free. With more than one worker they wait for each other for as long as a
// batch's translation takes, 3 µs for 64 frames; the system calls that bring
// and take them are fifty times as long. What that costs, in ns of CPU time a
// frame (BenchmarkWorkers, 64 B, the least of four runs), by the time that a
// worker has other work between batches:
//
//	             nothing   20 µs   100 µs
//	1 worker     75        79      90
//	2 workers    90        96      94
//
// That is 0.6% of a frame's whole way; bench/contention has what it is with more
// workers. To keep the connections of each worker apart instead, with ports that
// name their owner, would save it and cost a copy and a wake-up for each frame
// that comes in by another worker's queue than it went out by: for a super-frame
// more than its whole way. An endpoint-independent mapping belongs to all flows
// of its endpoint, whichever queues they come by.
//
// NAT.Tick runs on a worker's thread. Everything else is for control code, from
// any goroutine but a worker's, takes the locks itself and holds NAT.mu for a
// few microseconds at a time (chunk connections). A worker may be in a link
// that was removed until its batch ends: wait for it with Engine.Do.
//
// Lock order: NAT.control, then NAT.mu.
//
// # What it never does
//
// It never reads a clock (time is Batch.Now and the now of control methods),
// blocks a worker but for NAT.mu, allocates for a frame, logs, rewrites what is
// inside L4 (no ALGs) but for a SYN's MSS, or reassembles.
package nat
