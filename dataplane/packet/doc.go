// Package packet is the dataplane.Port on an interface that exists: a veth
// end, a NIC, anything Ethernet. It reads and writes with AF_PACKET sockets
// (packet(7)), one for each worker, joined by PACKET_FANOUT_HASH so that a
// flow stays with one worker, both its directions with the same one.
//
// # Way in: a ring
//
// The kernel copies each frame into a slot of a TPACKET_V2 ring, and Pull
// lends it from there. A slot, by its offsets in bytes:
//
//	0        52          ≥ 186      mac-10     mac             mac+snaplen
//	├────────┼──────────────┼──────────┼──────────┼────────────────┼─ ─┤ 1,856
//	 tpacket2 │← Frame.Buf …  headroom │ virtio-  │ the frame, without  │
//	 _hdr,    │  ≥ dataplane.Headroom  │ net      │ its outer VLAN tag  │
//	 sockaddr │  + the tag             │ header   │                     │
//
// The slot's status word says whose it is: TP_STATUS_KERNEL or TP_STATUS_USER.
// A VLAN tag comes beside the frame, in tpacket2_hdr, whether or not it was in
// the frame on the wire; Pull puts it back by moving the two MACs into the
// headroom, and moves Frame.Owes.CsumStart along.
//
// The slots of one Pull go back to the kernel at the next, because frames are
// borrowed until then. What comes while all are full or lent is lost and
// counted RxKernel, when the next frame comes: a burst of DefaultSlots frames
// gets through while the worker waits for its CPU.
//
// # Long frames: the socket's queue
//
// A frame that is longer than a slot, so each super-frame, stays with the kernel
// as it is, queued at the socket, and its slot is marked TP_STATUS_COPY
// (PACKET_COPY_THRESH). Pull reads it into the worker's slab. That is a copy by
// the worker in place of one by the sender's CPU, but into memory that is in the
// worker's cache, where a ring of slots that hold 64 KB goes through 16 MB.
// What finds no room in the receive buffer is lost and counted RxKernel when its
// slot, which then has the beginning only, is looked at.
//
// The kernel queues it before it gives the slot: epoll may report the socket for
// that moment while Pull still finds nothing.
//
// # Way out: sendmmsg
//
// Push writes the virtio-net header into each frame's own headroom, so that
// header and frame are one piece, and sends up to 64 such pieces in one system
// call. A frame goes out from where it was pulled to, a slot or the slab: nothing
// is copied in user space.
//
// # The socket and its library
//
// mdlayher/packet opens the sockets, with a filter that refuses everything
// until ring and fanout are in place and every frame that met less has gone its
// way: none is queued where the ring doesn't show it, none comes twice. It also
// registers them with Go's netpoller, whose thread the frames would then wake
// beside the worker's. So Open takes a duplicate of the descriptor and closes
// the library's: the socket lives on, unknown to the Go runtime.
//
// # Who may call what
//
// Pull and Push: only the worker that b.Worker names. Open, Fault and Close:
// control code, from any goroutine. FD and Counters: anybody.
// The package never blocks, never logs, and knows no clock.
//
// Everything the port holds dies with its sockets, promiscuous mode included:
// a killed process leaves nothing behind.
package packet
