// Package underlay sends and receives a tunnel's UDP datagrams in batches (udp(7)).
// What is in them is the tunnel's affair.
//
// # Sockets
//
//	              ┌ worker 0 ← socket at Local ┐
//	Recv ← UDP_GRO┤ worker 1 ← socket at Local ├ SO_REUSEPORT: the kernel spreads
//	              └ …                          ┘ the senders' ports over them
//	Send → UDP_SEGMENT → SourcePorts sockets at Local's address and ports from
//	                     49152 on, shared by all workers; they receive nothing
//
// A tunnel's outer source port is a hash of the inner flow (RFC 7348 section 5),
// so that routers, NICs and the peer's SO_REUSEPORT spread flows and keep each in
// order. A UDP socket sends from the port that it is bound to; so there is a
// socket for each port, and a flow's hash chooses one.
//
// # Way in
//
// One recvmmsg(2) reads into the worker's own slots, each of which holds the
// 64 KB that the kernel joins of one sender's equally long datagrams (UDP_GRO).
// How many it asks for follows from what came last: about
// dataplane.PullBytes, so that what is read is still in the cache when it is
// pushed on.
//
// # Way out
//
// An Outbox gathers datagrams, each a header piece and a payload piece that stay
// where they are, into messages: what follows each other to one destination and
// of one flow is one super-packet, which the kernel cuts (UDP_SEGMENT) as late as it
// can, in the NIC or not at all where the peer is on the same host. One sendmmsg(2)
// sends the messages of one source port.
//
// Over a veth pair, both ends on one CPU, a datagram of 1,450 bytes takes 0.65 µs
// so (17.8 Gb/s), and 9 µs one by one (BenchmarkVeth, the best of 30 runs on two
// CPUs that others kept busy).
//
// Where the kernel refuses to cut (EINVAL, EIO: no checksum offload on the
// device, IPsec), the message is sent again a datagram at a time, and so are the
// next 1,024 to that destination.
//
// Datagrams have DF set and are never fragmented; the kernel's path MTU cache,
// which forged ICMP errors can write to, doesn't limit them (IP_PMTUDISC_PROBE).
// PathMTU reads it.
//
// # Who may call what
//
// Recv and Send: only the worker that they name. Everything else: control
// code. The package never blocks, never logs, and knows no clock.
package underlay
