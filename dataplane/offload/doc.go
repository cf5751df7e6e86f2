// Package offload settles what a frame owes: it checks a virtio-net header
// that somebody else wrote, completes partial checksums, and cuts a GSO
// super-frame into segments, for the ports whose way out can't.
//
// Ports call Check on what they pull. Whoever pushes a frame to a sink without
// checksum offload calls Complete, to one without segmentation offload a
// Segmenter. SegmentLen is what the MTU is compared with. InsertVLAN puts back
// a tag that a packet socket hands over beside the frame.
//
// Everything works on (frame, *wire.VNetHdr), on the caller's buffers and
// goroutine, and keeps nothing. Nothing trusts VNetHdr.HdrLen, and nothing
// panics whatever frame and header say.
package offload
