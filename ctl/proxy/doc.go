// Package proxy makes publications reachable from the host itself, at 127.0.0.1
// and at its own addresses: such packets never come to an interface, so NAT
// doesn't see them. It holds the published ports on the host, and carries what
// the host's programs send there to the container and back.
//
// # What it holds
//
// Each published port is bound, so that a port that the host uses can't be
// published, and a published one can't be taken by the host: not by a program,
// and not for an outgoing connection. Publications that have a port in common
// share its sockets; Publish says whose a session is. TCP and UDP sockets get what the host sends
// to itself; what comes by another interface than the loopback is dropped without
// an answer. SCTP ports are bound and not carried; a kernel
// without SCTP has nothing to bind.
//
// # What it costs
//
// A socket and a goroutine for each port and address, 4 KB in swd: MaxPorts
// bounds them. A range of 1,000 ports is bound in 70 ms. A session has two
// sockets and up to three goroutines; Config bounds them. TCP is spliced inside
// the kernel.
//
// Everything may be called from any goroutine.
package proxy
