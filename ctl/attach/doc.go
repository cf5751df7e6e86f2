// Package attach does to the host's network configuration what a port needs:
// it opens the namespaces of containers, makes veth pairs, gives interfaces
// their addresses and routes, keeps the host's stack off an interface, or off
// Heddle's share of it, and tells when links and uplinks change. It is the only
// user of netlink outside bench. It makes no TAP and opens no AF_PACKET socket:
// packages tap and packet do, and the daemon calls them inside Namespace.Do.
//
// # Whose an interface is
//
// Every interface that Heddle makes carries the alias "heddle:PORT". What
// carries it is taken over after a restart and may be deleted; what doesn't is
// somebody else's and is neither. Nor is what a running swd still uses: an
// open TAP, or a silenced interface. Addresses and routes that Heddle sets carry
// Protocol as their origin, by which stale ones are recognised.
//
// # All or nothing
//
// A function that changes something and fails has put back what it changed.
// If putting back fails too, the error says both.
//
// # What is held open
//
// An open Namespace, and any socket or TAP descriptor opened inside one, keeps
// the namespace alive after its last process has ended: such a port sees no
// link go. Namespace.Alive tells whether what the namespace was opened by
// still leads to it. A Watcher keeps none alive but its own: it listens from
// one namespace to all those it follows.
//
// Everything may be called from any goroutine, at the same time, unless its
// comment says otherwise.
package attach
