// Package daemon is what swd does: it assembles the engine, the switch, the
// ports and the host's links from specs, applies changes to them, and serves
// them over a unix socket.
//
// # What it holds
//
// A Daemon is a set of specs (package config) and the live objects made from
// them: networks of a vswitch.Switch, ports attached to a dataplane.Engine,
// devices on the host. Everything the host lends (a TAP, a veth, a packet
// socket) comes through the host interface, which tests replace.
//
// # Tunnels
//
// Who is to be reached comes from two sides, static peers and members of the
// mesh; settleTunnels (tunnels.go) makes the tunnels what both and the networks
// say, after every change of any of them: a remote for each address, a tunnel for
// each network that it shares. What members announce goes the other way than a
// spec: from the mesh into the switch and the tunnels (meshfollow.go), and what is
// found here goes to the mesh (endpoints.go).
//
// # Threads and locks
//
// Three locks, always taken in this order:
//
//	change  one change at a time (add, rm, apply, recovery of one port); held
//	        while the host is asked, which may take seconds
//	wiring  guards what stands between a device and the workers; held for a
//	        few rounds of theirs, so that a capture begins and ends beside a
//	        change
//	mu      guards the maps of specs and objects; held for moments only, so
//	        that a listing never waits for the host
//
// Workers are never locked out: what they see changes by Engine.Do and the
// switch's own mutators. Of the control goroutines one ages the FDB, one watches
// links, one tries ports that have no device again, one follows uplinks, one looks
// at the paths to peers, and one does what the mesh tells and tells it what is
// here; each client has its own. The mesh's own goroutine waits for that one
// only, and no longer than the membership lasts.
//
// # What survives
//
// The specs are saved on each change (state.go), so a restart makes the same
// switch again. A graceful stop leaves TAPs and veths where they are: their
// addresses and routes, and so the containers' connections, survive until the
// next start takes them over. Removing a port removes them, and a start removes
// those that a kill left of a port that wasn't saved yet. The mesh's keys
// (meshkeys.go) and the members that were known last (meshmemory.go) are saved
// beside the specs: they are not exported.
package daemon
