// Package tap is the dataplane.Port on a TAP device: the interface itself is
// in the container's namespace, this process holds its queues
// (Documentation/networking/tuntap.rst in Linux).
//
// # One read or write, one frame
//
// Each worker has a queue of the device, and for what it pulls a slab, into
// which frames are read one behind the other:
//
//	64-byte line                     64-byte line
//	├──────────────────┬────────────┼───────────────────────┬─────┼───
//	  headroom, 128 B,   virtio-net   the frame, up to        pad   next
//	  ending in the      header, 10 B MaxFrame                      headroom …
//
// so that 64 small frames touch 16 KB, which stay in the first-level cache
// until they are pushed, and large ones about PullBytes. Push writes the
// header into the headroom in front of the frame, wherever that was pulled.
// Each is one non-blocking system call by RawSyscall. Frames of 64 KB (GSO) and
// partial checksums pass whole; a device whose kernel is older than 6.2 and
// can't take UDP GSO gets segments made in software.
//
// # Super-frames, one write
//
// Super-frames of a TCP connection that follow each other in a Push are written
// as one, by writev from where they lie (offload.Train): the receiver's stack
// then takes in, and wakes its process for, what a Pull brought of a connection,
// seven frames at most. An IPv4 packet so becomes longer than its header can
// tell, as the kernel's own do by BIG TCP. All stay shorter than the device's
// gro_ipv4_max_size, which Config.GROMax sets, and gro_max_size (IPv6): anybody
// may set them with ip-link(8).
//
//	batch    A1  B1  A2  x  A3        x: a frame of another kind
//	written  A1·A2   B1   x   A3      no frame overtakes one of its connection
//
// Each frame counts as one, as it came in. The container sees fewer and longer ones.
//
// What a frame costs, the kernel's part included, in µs: the least of 2,000
// batches on a busy 2-core Zen 5 VM, Linux 6.18, where getppid(2) took 0.2. A
// write runs the receiving stack, which here drops the frame at once.
//
//	         60 B   1,514 B   64 KB    nothing there
//	Pull     0.8    0.8       3.6      0.4
//	Push     1.2    1.2       4.9
//
// # Many small frames at once
//
// With Config.Rings four or more frames of a Push are one io_uring_enter, and
// so are up to sixteen reads of a Pull from the fifth small frame on, each into a
// slot of its own. A 60 B frame then costs 0.15 µs less to read and 0.3 µs less to
// write. Nothing waits in a ring: a call does what it was given and reports it,
// so that order, errors and who owns which memory are as without, and epoll
// still tells when to Pull. A ring's call costs twice a read's, which is why one
// frame alone, and large ones, do without.
//
// # The device and its life
//
// Open creates the device if there is none of that name, with songgao/water,
// persistent and with many queues, and attaches a queue for each worker. The
// device outlives the process, with its addresses, routes and connections:
//
//	Open ──► open ──Close or a crash──► left behind ──Open──► open (taken over)
//	           └────Delete───────────────────────────────────────► vanished
//
// A device is left behind by no queue being open. Open takes that one over,
// with any number of queues, and refuses what somebody holds (ErrHeld), what is
// no TAP and what belongs to another user (ErrTaken). While it is open it is
// the caller's alone: it is owned by the process's user, so that nobody else
// without CAP_NET_ADMIN can attach a queue.
//
// A new device has no queueing discipline (noqueue, as a veth). The default would
// be one for each of the 256 queues that it may have, which by pfifo_fast is 6 MB
// of the kernel's memory, and holds nothing back: the driver drops what finds its
// own queue full. Another may be set with tc(8), and stays at a take-over.
//
// The kernel gives a flow's frames to the queue that last wrote the reverse
// flow (tun_flow_update), which is that of the worker that has it: nothing
// better is known, so no steering program is attached.
//
// # Who may call what
//
// Pull and Push: only the worker that b.Worker names. Open: control code, on a
// thread (runtime.LockOSThread) in the network namespace where the device is
// or shall be; /dev/net/tun has to be there. Fault, Close and Delete: control
// code, from any goroutine in any namespace. FD and Counters: anybody. The
// package never blocks in Pull and Push, never logs, and knows no clock.
package tap
