// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import (
	"encoding/binary"

	"heddle/dataplane/wire"
)

// Adopt tells what a frame owes that came out of a tunnel by a socket that
// can't say it. A kernel leaves inner checksums, and inner segmentation, to the
// device that the outer packet leaves by (lco_csum, SKB_GSO_UDP_TUNNEL); where
// that is a veth, nobody does them, and the receiving UDP socket gets a TCP
// frame of up to 64 KB with a partial checksum.
//
// A checksum is partial if its field is the pseudo-header's sum. A right one
// that happens to be equal is then computed again with the same result; a
// frame damaged before it was encapsulated passes for partial in one case of
// 65,536, as it does for right.
//
// A frame with a partial checksum whose IP packet is longer than mtu bytes is a
// GSO frame: of TCP, with segments of mtu bytes; of UDP, only if size, the
// payload bytes of each, is known (otherwise 0).
//
// A frame that is no TCP or UDP, or is padded, owes nothing.
func Adopt(frame []byte, mtu, size int) wire.VNetHdr {
	var l wire.Layers
	if !l.Parse(frame) {
		return wire.VNetHdr{}
	}
	return adopt(frame, &l, mtu, size)
}

func adopt(frame []byte, l *wire.Layers, mtu, size int) (owes wire.VNetHdr) {
	csumOff := wire.TCPCsumOff
	switch l.Proto {
	case wire.ProtoTCP:
	case wire.ProtoUDP:
		csumOff = wire.UDPCsumOff
	default:
		return owes
	}
	at := l.L4 + csumOff
	if l.IsFragment() || at+2 > l.End || l.End != len(frame) ||
		binary.BigEndian.Uint16(frame[at:]) != wire.Fold(l.PseudoSum(frame, l.End-l.L4)) {
		return owes
	}
	owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(l.L4), CsumOffset: uint16(csumOff)}
	if l.End-l.L3 <= mtu {
		return owes
	}
	gso := owes
	if l.Proto == wire.ProtoUDP {
		gso.GSOType, gso.GSOSize = wire.VNetGSOUDPL4, uint16(size)
	} else {
		gso.GSOType = wire.VNetGSOTCP4
		if l.V6 {
			gso.GSOType = wire.VNetGSOTCP6
		}
		if t, ok := wire.TCPAt(frame, l.L4); ok {
			gso.GSOSize = uint16(max(0, mtu-(l.L4-l.L3)-t.HdrLen()))
			if t.Flags()&wire.TCPCwr != 0 {
				gso.GSOType |= wire.VNetGSOECN
			}
		}
	}
	g, ok := locate(frame, &gso)
	if !ok {
		return owes
	}
	gso.HdrLen = uint16(g.hdr)
	return gso
}

// Whole tells whether a frame is one IP packet by what the packet's own header
// says of its length. It tells a UDP GSO frame that a kernel left uncut inside a
// tunnel's datagram from several datagrams that it has joined: a socket with
// UDP_GRO gets both with a segment size, and to take the first for the second
// would be to take its payload for headers.
func Whole(frame []byte) bool {
	var l wire.Layers
	return l.Parse(frame) && l.End == len(frame)
}
