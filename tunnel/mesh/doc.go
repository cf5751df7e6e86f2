// Package mesh joins hosts into one membership and tells each of them what
// lives where: which hosts are there, which networks each has, and behind which
// host each MAC address and its IP addresses are.
//
// # Nouns
//
// A Member is a host of the mesh, known by its name. An instance is one run of
// a member's daemon: a restart is a new instance of the same name. An Endpoint
// is a MAC address of a network with the IP addresses that belong to it; its
// owner is the member that it is behind. A replica is the copy that a member
// keeps of what another one announces.
//
// # How it works
//
// Who is there is hashicorp/memberlist's business (SWIM with Lifeguard): each
// member probes another one twice a second, suspicions and failures travel by
// gossip, all of it encrypted with a shared key. What a member announces is a
// log of numbered changes: each is gossiped as a delta, and a member that finds
// a gap, or a fingerprint that differs from its own in the answer to a probe,
// asks for what it lacks. So every replica is exactly what its owner announced
// up to some number. docs/MESH.md has the formats, sizes and limits.
//
// A MAC that several members announce belongs to the one with the highest
// mobility sequence number, and of equals to the one whose name sorts first, as
// EVPN decides it (RFC 7432 section 15).
//
// # Threads
//
// All methods of Mesh are for control code, from any goroutine. Handler is
// called from one goroutine, one call at a time, with no lock held: it may call
// the mesh, except for Leave and Close, which wait for it.
//
// # What it never does
//
// It touches no frame and no tunnel: a Handler makes those. It decides nothing
// by the time of day: intervals are measured on the monotonic clock, and order
// comes from sequence numbers.
package mesh
