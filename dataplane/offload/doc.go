// Package offload settles what a frame owes: it checks a virtio-net header
// that somebody else wrote, completes partial checksums, and cuts a GSO
// super-frame into segments, for the ports whose way out can't. The other way
// round it joins a flow's TCP segments into a super-frame, for what comes in by
// a tunnel.
//
// Ports call Check on what they pull. Whoever pushes a frame to a sink without
// checksum offload calls Complete, to one without segmentation offload a
// Segmenter. SegmentLen is what the MTU is compared with. InsertVLAN puts back
// a tag that a packet socket hands over beside the frame. A tunnel gives what it
// has decapsulated to a Coalescer, which also knows what a kernel has left undone
// inside a tunnel: Adopt, Whole. A port that can give a kernel more than 64 KB at a
// time couples super-frames in a Train.
//
// Everything works on (frame, *wire.VNetHdr), on the caller's buffers and
// goroutine, and keeps nothing but what its type says. Nothing trusts
// VNetHdr.HdrLen, and nothing panics whatever frame and header say.
package offload
