// Package load sends and receives small frames over AF_PACKET, to find how
// many of them a path between two interfaces delivers, intact and in order.
//
// The sender writes frames of 60 bytes (64 on a wire, with the FCS), one flow
// or several, with sendmmsg(2). Each carries its flow, a sequence number and a
// hash over both and the frame's length. The receiver reads a TPACKET_V3 ring,
// and only frames whose every byte is as sent count as delivered; loss,
// duplicates, reordering and damage are counted each for itself. What is never
// trusted is an interface counter alone.
//
//	sender → interface in one namespace → the path under test → interface → receiver
//
// The frames are valid IPv4/UDP, but use MACs of their own (Frames.Src and
// Dst), not the interfaces'. The receiver announces Dst with one frame, so
// that the path learns where it is. The receiving interface's stack sees
// frames for another host and drops them at once, after the packet socket has
// had them: the stack's UDP and ICMP code, which is no part of the path, costs
// nothing. The ring wakes its reader by the block, not by the frame.
//
// On a machine of few cores the sender, the path and the receiver share them.
// The sender is pinned to a core of its own, since it would never sleep. The
// receiver costs some 2% of a core.
//
// Through a path that routes and translates, the receiver knows what the path
// may change and holds it to that (Frames.Routed). It answers ARP for Frames.DstIP
// with Frames.Dst, so that what was said of the receiving stack is true there too.
//
// For bulk TCP there are Pour and Drain, the ends of a stream of which no byte is
// taken on trust: checksums are not for a stack whose interface says that the
// hardware has them right, so that iperf3 counts damaged bytes too.
//
// For NAT there are besides: Server and Connect, the ends of TCP connections
// that carry one request each, and Fill, which fills a connection table.
package load
