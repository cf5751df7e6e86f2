// Package vswitch is the learning switch (IEEE 802.1D/Q): it takes batches of
// frames from ports, learns where each source is, and pushes each frame to the
// port behind which its destination is, or to all others.
//
// # Nouns
//
// A Switch holds the networks and the one FDB that they share. A Network is
// one broadcast domain; frames never cross from one to another. A slot is a
// port's place on a network: its Port, MTU and Role. An Entry is a MAC address
// and where it is.
//
// # Who hands it frames, and where they go
//
//	Worker → Network.Push(batch) → for each frame: validate, learn, look up
//	                             → for each port concerned: Port.Push(batch), once
//
// A Network is the dataplane.Sink of its ports. It copies nothing and moves
// nothing: which frames a port is to send is a bit mask in Batch.Sel, whose
// bits go in the order of arrival, which is what keeps a flow in order. Frames
// that go no further are counted on the ingress port's Counters with their
// reason; those that are too long for one egress, on that egress port's.
//
// # Threads
//
// Network.Push is for workers: each calls it with its own Batch, several at
// the same time. It takes no lock but, for a MAC that is new, has moved or was
// not seen in this second, the FDB's by TryLock. A port that it pushes to may
// call Network.Push again on the same worker with a batch of its own or the
// same one (a gateway that turns traffic round), up to maxNesting deep.
//
// Everything else is for control code, from any goroutine but a worker's. The
// methods take the Switch's mutex themselves and touch the FDB in chunks of a
// few microseconds, between which workers learn.
//
// What control code publishes (ports, roles, MTUs, ageing) is copied on write
// and takes effect with a worker's next batch. A worker may be in a port that
// Detach or Swap has taken out until it has ended its batch: wait for it with
// Engine.Detach, Engine.Swap or Engine.Do before closing that port or giving
// its PortID again.
//
// # What it never does
//
// It never changes a frame, reads a clock (time comes with Batch.Now and the
// now of Expire and Entries), blocks a worker, allocates for a frame, logs, or
// sends a frame back to the port it came from.
package vswitch
