// Package baseline builds what Heddle is measured against: two containers that
// are joined by something else. Each Path has containers of its own with the
// same names, addresses and settings, so that what differs is the path.
//
//	container A                                     container B
//	eth0 198.18.0.1/24 ──── the path ──── eth0 198.18.0.2/24
//	     2001:db8::1/64                         2001:db8::2/64
package baseline
