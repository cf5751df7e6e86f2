// Package tunnel carries a network's frames to other hosts and back, in UDP:
// VXLAN (RFC 7348; docs/TUNNEL.md draws the headers).
//
// # Nouns
//
// A VTEP is this host's end of all tunnels. A Peer is another host. A Tunnel is
// the way of one network to one peer: a port of the network, like any other. An
// underlay is the UDP port that the datagrams go by. A gate is an address of a
// gateway on this host.
//
// # Who hands it frames, and where they go
//
//	network → Tunnel.Push → sort by source port → encapsulate → underlay.Send → peer
//	                          └→ ARP and ND answers, ICMP errors → network
//	peer → underlay.Recv → VTEP.Pull: whose, which network, ECN, join TCP
//	       worker        → VTEP.Push → network
//
// To flood is the switch's doing: each tunnel is a port, so a frame for all is
// pushed to each (head-end replication), a MAC is learnt behind its tunnel, and
// what came from a tunnel never leaves by one (split horizon).
//
// What the other hosts have announced spares the network its flooding: the
// switch knows the MAC (Network.Announce), and a request for the address is
// answered by the tunnel that leads there (Tunnel.Announce), while all others
// leave it out.
//
// A super-frame is cut into datagrams of its own, headers made anew and payload
// copied while it is summed; the kernel gets up to 64 of them as one message. What comes in
// is joined again, so that the port that it goes to gets super-frames.
//
// # Threads
//
// VTEP.Pull and Push and Tunnel.Push are for workers, each with its own Batch,
// several at the same time; each works with its worker's state only. They take no
// lock: who the peers are and which tunnels they have is copied on write; the
// announced addresses are read under a generation (neighbours). A tunnel may
// push what it has to say into its network from within its own Push.
//
// Everything else is for control code, from any goroutine but a worker's. The
// methods take VTEP.mu themselves, which workers never do, and take effect with
// a worker's next batch. A worker may be in a tunnel that was removed until its
// batch ends: wait for it with Engine.Do.
//
// # What it never does
//
// It never fragments, reads a clock (time is Batch.Now), blocks a worker,
// allocates for a frame, logs, changes a frame that it is given to push but for
// its headroom and its partial checksum, or learns: MACs are the switch's.
package tunnel
