// Package dataplane is the vocabulary of the hot loop and the loop itself.
//
// A Frame is L2 bytes with headroom and what they still owe (VNetHdr). A Batch
// is up to 64 frames that came in by one Port, and the time. A Port is a way
// in and out. A Worker is one pinned thread that pulls batches from its ports
// and pushes each to the port's Sink. A Drop is the reason why a frame went no
// further.
//
// # A frame's way
//
//	device → Port.Pull → Worker → Sink.Push (a switch looks up the way out)
//	                                  └─ Port.Push → device
//
// A frame is borrowed: its bytes lie in the worker's slab or belong to the port
// that pulled it, and are valid until the worker's next Pull. Who wants them longer
// copies them. Frames are not copied on their way: a Batch goes down the line
// whole, and Batch.Sel says which of its frames a Push is for.
//
// # Threads
//
// Each worker has its own queue of every port: Pull and Push take the worker
// from Batch.Worker and touch only that worker's state. Control code changes
// what a worker sees by Engine.Do, between two rounds.
package dataplane
