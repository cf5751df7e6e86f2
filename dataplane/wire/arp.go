// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// ARPLen is the size in bytes of an ARP packet for IPv4 over Ethernet.
const ARPLen = 28

// ARP operations (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// arpEthIPv4 is the fixed first six bytes of ARP for IPv4 over Ethernet:
// hardware 1, protocol 0x0800, lengths 6 and 4.
const arpEthIPv4 = 0x0001_0800_0604

// ARPPacket is an ARP packet for IPv4 over Ethernet (RFC 826), a view of the
// frame's own bytes: the setters write to the frame.
type ARPPacket [ARPLen]byte

// ARPAt returns the ARP packet at offset off of b; ok is false if it is not
// all there or not for IPv4 over Ethernet.
func ARPAt(b []byte, off int) (p *ARPPacket, ok bool) {
	if !fits(b, off, ARPLen) {
		return nil, false
	}
	p = (*ARPPacket)(b[off:])
	return p, binary.BigEndian.Uint64(p[:])>>16 == arpEthIPv4
}

// Init writes the fixed fields for IPv4 over Ethernet and the operation.
func (p *ARPPacket) Init(op uint16) {
	binary.BigEndian.PutUint64(p[:], arpEthIPv4<<16|uint64(op))
}

// Op returns the operation.
func (p *ARPPacket) Op() uint16 { return binary.BigEndian.Uint16(p[6:]) }

// SenderMAC returns the sender's hardware address.
func (p *ARPPacket) SenderMAC() MAC { return MACAt(p[8:]) }

// SenderIP returns the sender's IPv4 address.
func (p *ARPPacket) SenderIP() uint32 { return binary.BigEndian.Uint32(p[14:]) }

// TargetMAC returns the target's hardware address.
func (p *ARPPacket) TargetMAC() MAC { return MACAt(p[18:]) }

// TargetIP returns the target's IPv4 address.
func (p *ARPPacket) TargetIP() uint32 { return binary.BigEndian.Uint32(p[24:]) }

// SetSender writes the sender's addresses.
func (p *ARPPacket) SetSender(mac MAC, ip uint32) {
	mac.Put(p[8:])
	binary.BigEndian.PutUint32(p[14:], ip)
}

// SetTarget writes the target's addresses.
func (p *ARPPacket) SetTarget(mac MAC, ip uint32) {
	mac.Put(p[18:])
	binary.BigEndian.PutUint32(p[24:], ip)
}
