package dataplane

// Drop is the reason why a frame went no further. Each has a counter per port
// (Totals.Drops), a name that `swctl drops` prints, and a line in
// docs/DROPS.md.
type Drop uint8

// The reasons, in the order in which a frame meets them. None is no drop.
const (
	None Drop = iota

	// At the ingress port.
	RxTruncated  // The device had a longer frame than fits a buffer.
	RxBadOffload // The offload header contradicts the frame.
	RxKernel     // The kernel dropped it before the port could read it (ring or queue full).

	// In the switch.
	Runt         // Shorter than an Ethernet header (14 bytes; 18 with a tag).
	SrcZero      // Source 00:00:00:00:00:00.
	SrcMulticast // Source is a multicast or the broadcast address.
	SrcIsDst     // Source and destination are the same address.
	ReservedMAC  // Destination 01-80-C2-00-00-00…0F: never relayed (IEEE 802.1Q 8.6.3).
	MACFlapping  // The source is held down after moving too often between two ports.
	SamePort     // The destination is behind the ingress port.
	Isolated     // The network's ports, or two networks, may not reach each other.
	NoEgress     // Nobody else is on the network.
	ExceedsMTU   // Longer than the egress port's MTU allows.

	// In the tunnels.
	UnknownPeer    // From an address that is no peer's.
	VXLANShort     // The datagram ends before its VXLAN header does.
	VXLANFlags     // Its I flag is not set: it names no network.
	UnknownVNI     // The network that it names is not shared with this peer.
	ECNMarked      // Marked as congested on the way, and its sender can't be told (RFC 6040).
	GatewayAddress // ARP or ND from another host that speaks for a gateway's address here.
	UnderlayGuard  // A VXLAN datagram that a container, not Heddle, made for a tunnel's end.

	// In the gateway and the uplink.
	NotRoutable      // Neither IP, ARP nor ND, tagged, or not for one station.
	BadPacket        // Its IP, TCP, UDP, SCTP or ICMP header is malformed or not all there.
	BadChecksum      // Its IP header's, ICMP or SCTP checksum is wrong.
	SpoofedSource    // Its source is none of the network's addresses.
	TTLExpired       // Its TTL or hop limit ran out here.
	NoRoute          // The uplink has no address or next hop of its family.
	NoNeighbour      // Nobody answered for the next hop's address, or too many frames wait.
	ProtoUnsupported // A protocol without ports, which can't be translated.
	Unsolicited      // From outside, or to the gateway itself, and nobody asked for it.
	NoConnection     // It belongs to no connection and may not begin one.
	TCPWindow        // Outside of the connection's window, or a flag that its state forbids.
	ICMPNoConn       // An ICMP error about a packet of no connection.
	ConnTableFull    // There is no room for another connection or container.
	HostLimit        // Its container holds as many connections or ports as it may.
	NoFreePort       // The uplink's address has no free port.
	FragmentOverlap  // It overlaps another fragment of its packet.
	FragmentLost     // Its packet's first fragment didn't come in time, or too many wait.

	// At the egress port.
	TxQueueFull // The device's queue or the socket's buffer is full (EAGAIN, ENOBUFS).
	TxDown      // The device is down or gone (EIO, ENETDOWN, ENXIO, EBADFD).
	TxRefused   // The kernel refused the frame (any other error).
	TxOffload   // The frame can't be segmented or completed for this port.

	// DropCount is the number of reasons, None included.
	DropCount
)

var dropNames = [DropCount]string{
	None:             "none",
	RxTruncated:      "rx-truncated",
	RxBadOffload:     "rx-bad-offload",
	RxKernel:         "rx-kernel",
	Runt:             "runt",
	SrcZero:          "src-zero",
	SrcMulticast:     "src-multicast",
	SrcIsDst:         "src-is-dst",
	ReservedMAC:      "reserved-mac",
	MACFlapping:      "mac-flapping",
	SamePort:         "same-port",
	Isolated:         "isolated",
	NoEgress:         "no-egress",
	ExceedsMTU:       "exceeds-mtu",
	UnknownPeer:      "unknown-peer",
	VXLANShort:       "vxlan-short",
	VXLANFlags:       "vxlan-flags",
	UnknownVNI:       "unknown-vni",
	ECNMarked:        "ecn-marked",
	GatewayAddress:   "gateway-address",
	UnderlayGuard:    "underlay-guard",
	NotRoutable:      "not-routable",
	BadPacket:        "bad-packet",
	BadChecksum:      "bad-checksum",
	SpoofedSource:    "spoofed-source",
	TTLExpired:       "ttl-expired",
	NoRoute:          "no-route",
	NoNeighbour:      "no-neighbour",
	ProtoUnsupported: "proto-unsupported",
	Unsolicited:      "unsolicited",
	NoConnection:     "no-connection",
	TCPWindow:        "tcp-window",
	ICMPNoConn:       "icmp-no-connection",
	ConnTableFull:    "conn-table-full",
	HostLimit:        "host-limit",
	NoFreePort:       "no-free-port",
	FragmentOverlap:  "fragment-overlap",
	FragmentLost:     "fragment-lost",
	TxQueueFull:      "tx-queue-full",
	TxDown:           "tx-down",
	TxRefused:        "tx-refused",
	TxOffload:        "tx-offload",
}

// String returns the name that users see.
func (d Drop) String() string {
	if d >= DropCount {
		return "unknown"
	}
	return dropNames[d]
}
