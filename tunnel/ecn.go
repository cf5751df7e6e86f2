// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import "heddle/dataplane/wire"

// The ECN field of an IP header (RFC 3168 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
	ecn    = 3 // Its bits in the TOS or traffic class.
)

// outerECN is what the outer header says for an inner field: the same, which is
// RFC 6040's normal mode (4.1).
func outerECN(tos uint8) uint8 { return tos & ecn }

// Verdicts of innerECN.
const dropped = 0xff

// ecnTable is RFC 6040 figure 4: what an inner field becomes, by inner and
// outer one.
var ecnTable = [4][4]uint8{
	//        outer: notECT   ect1    ect0    ce
	notECT: {notECT, notECT, notECT, dropped},
	ect1:   {ect1, ect1, ect1, ce},
	ect0:   {ect0, ect1, ect0, ce},
	ce:     {ce, ce, ce, ce},
}

// innerECN carries over to a frame what routers have marked on its way, and
// tells whether it may go on. What is no IP can't be marked and goes on. If the
// outer header is not ECN-capable nothing changes, and it needn't be called.
func innerECN(frame []byte, outer uint8) bool {
	etherType, l3, ok := wire.L3(frame)
	if !ok {
		return true
	}
	switch etherType {
	case wire.EtherTypeIPv4:
		h, ok := wire.IPv4At(frame, l3)
		if !ok {
			return true
		}
		old := h.TOS()
		field := ecnTable[old&ecn][outer&ecn]
		if field == dropped {
			return false
		}
		if next := old&^ecn | field; next != old {
			h.SetTOS(next)
			h.SetChecksum(wire.Delta16(uint16(old), uint16(next)).Update(h.Checksum()))
		}
	case wire.EtherTypeIPv6:
		h, ok := wire.IPv6At(frame, l3)
		if !ok {
			return true
		}
		old := h.TrafficClass()
		field := ecnTable[old&ecn][outer&ecn]
		if field == dropped {
			return false
		}
		h.SetTrafficClass(old&^ecn | field)
	}
	return true
}
