// Package wire knows the bytes and offsets of the protocols that pass through
// Heddle: Ethernet, 802.1Q, ARP, IPv4 and IPv6, TCP, UDP, ICMP, their
// checksums, the virtio-net header, and the flow key.
//
// It holds no state, allocates nothing and imports the standard library only.
// Every function takes a slice of untrusted bytes and says by its results
// what it found; none panics on short or malformed input.
package wire
