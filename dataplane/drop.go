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
	Isolated     // The network's ports may not reach each other.
	NoEgress     // Nobody else is on the network.
	ExceedsMTU   // Longer than the egress port's MTU allows.

	// At the egress port.
	TxQueueFull // The device's queue or the socket's buffer is full (EAGAIN, ENOBUFS).
	TxDown      // The device is down or gone (EIO, ENETDOWN, ENXIO, EBADFD).
	TxRefused   // The kernel refused the frame (any other error).
	TxOffload   // The frame can't be segmented or completed for this port.

	// DropCount is the number of reasons, None included.
	DropCount
)

var dropNames = [DropCount]string{
	None:         "none",
	RxTruncated:  "rx-truncated",
	RxBadOffload: "rx-bad-offload",
	RxKernel:     "rx-kernel",
	Runt:         "runt",
	SrcZero:      "src-zero",
	SrcMulticast: "src-multicast",
	SrcIsDst:     "src-is-dst",
	ReservedMAC:  "reserved-mac",
	MACFlapping:  "mac-flapping",
	SamePort:     "same-port",
	Isolated:     "isolated",
	NoEgress:     "no-egress",
	ExceedsMTU:   "exceeds-mtu",
	TxQueueFull:  "tx-queue-full",
	TxDown:       "tx-down",
	TxRefused:    "tx-refused",
	TxOffload:    "tx-offload",
}

// String returns the name that users see.
func (d Drop) String() string {
	if d >= DropCount {
		return "unknown"
	}
	return dropNames[d]
}
