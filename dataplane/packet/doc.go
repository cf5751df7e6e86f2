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
//	├────────┼──────────────┼──────────┼──────────┼────────────────┼─ ─┤ 65,792
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
// counted RxKernel, when the next frame comes: a burst of DefaultSlots frames,
// however small, gets through while the worker waits for its CPU, 240 if there
// is one.
//
// Every slot holds a frame of 64 KB, so that the sender's CPU copies it in and
// the worker only out, in sendmmsg. Slots of 2 KB, with PACKET_COPY_THRESH for what is
// longer, hold more frames in less memory, but the worker then copies each long
// frame twice: about 15% more of its CPU for a bulk TCP stream.
//
// # Way out: sendmmsg
//
// Push writes the virtio-net header into each frame's own headroom, so that
// header and frame are one piece, and sends up to 64 such pieces in one system
// call. A frame that was pulled from a ring goes out from its slot: nothing is
// copied in user space.
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
