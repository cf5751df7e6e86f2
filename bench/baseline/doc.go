// Package baseline builds what Heddle is measured against: two containers that
// are joined by something else. Each Path has containers of its own with the
// same names, addresses and settings, so that what differs is the path.
//
// Paths that switch:
//
//	container A                                     container B
//	eth0 198.18.0.1/24 ──── the path ──── eth0 198.18.0.2/24
//	     2001:db8::1/64                         2001:db8::2/64
//
// Paths to an outside, where B is, which has no route to A. An address of the
// path's stands for A there, and one of its TCP ports is published (a relay leaves
// A's address as it is, and B has the gateway's):
//
//	container A                    host                        outside B
//	eth0 198.18.0.1/24 ──── .254, the path, wan0 ──── eth0 192.0.2.1/24
//	                        192.0.2.9/24, Heddle's own .10
//
// Paths that tunnel, with A and B on hosts of their own, which share A's network
// by VXLAN over a veth pair:
//
//	container A              A's host                       B's host              container B
//	eth0 198.18.0.1/24 ── the path ── u0 192.0.2.1 ── u0 192.0.2.2 ── the path ── eth0 198.18.0.2/24
package baseline
