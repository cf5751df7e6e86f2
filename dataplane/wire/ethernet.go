// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Sizes in bytes and offsets from the frame's first byte of an Ethernet II
// header (IEEE 802.3 3.2) and of the tag that 802.1Q puts behind the MACs.
const (
	EthHdrLen  = 14
	VLANTagLen = 4
	MACLen     = 6

	EthDst     = 0
	EthSrc     = 6
	EthTypeOff = 12

	// MaxVLANTags is how many tags the parsers step over: a service tag and a
	// customer tag (802.1ad). A third is the payload's EtherType to them.
	MaxVLANTags = 2
)

// EtherTypes that Heddle looks at (IANA IEEE 802 numbers).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100 // 802.1Q customer tag.
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8 // 802.1ad service tag.
)

// DstMAC returns the destination address of a frame, or 0 if the frame is
// shorter than EthHdrLen. One load.
func DstMAC(frame []byte) MAC {
	if len(frame) < EthHdrLen {
		return 0
	}
	return MAC(binary.BigEndian.Uint64(frame[EthDst:]) >> 16)
}

// SrcMAC returns the source address of a frame, or 0 if the frame is shorter
// than EthHdrLen. One load.
func SrcMAC(frame []byte) MAC {
	if len(frame) < EthHdrLen {
		return 0
	}
	return MAC(binary.BigEndian.Uint64(frame[EthSrc:]) >> 16)
}

// IsVLAN tells whether an EtherType announces a tag.
func IsVLAN(etherType uint16) bool {
	return etherType == EtherTypeVLAN || etherType == EtherTypeQinQ
}

// L3 steps over up to MaxVLANTags tags and returns the EtherType of what
// follows and the offset where it begins, which is at most len(frame). ok is
// false if the frame ends before its EtherType does. An 802.3 length field
// (below 0x0600) is returned as it stands.
func L3(frame []byte) (etherType uint16, off int, ok bool) {
	if len(frame) < EthHdrLen {
		return 0, 0, false
	}
	etherType, off = binary.BigEndian.Uint16(frame[EthTypeOff:]), EthHdrLen
	for range MaxVLANTags {
		if !IsVLAN(etherType) {
			break
		}
		if len(frame)-off < VLANTagLen {
			return 0, 0, false
		}
		etherType = binary.BigEndian.Uint16(frame[off+2:])
		off += VLANTagLen
	}
	return etherType, off, true
}

// VLANTag is an 802.1Q tag: the EtherType that announces it and the tag
// control information (3 bits priority, 1 bit drop eligible, 12 bits VLAN).
type VLANTag struct {
	Proto uint16
	TCI   uint16
}

// ID returns the VLAN, 0 to 4095; 0 is a priority tag without a VLAN.
func (t VLANTag) ID() uint16 { return t.TCI & 0x0fff }

// Priority returns the priority code point, 0 to 7.
func (t VLANTag) Priority() uint8 { return uint8(t.TCI >> 13) }

// VLANTags returns the tags of a frame, the outer one first, and how many
// there are. It stops at MaxVLANTags and where the frame ends.
func VLANTags(frame []byte) (tags [MaxVLANTags]VLANTag, n int) {
	off := EthTypeOff
	for n < MaxVLANTags && len(frame)-off >= VLANTagLen+2 {
		proto := binary.BigEndian.Uint16(frame[off:])
		if !IsVLAN(proto) {
			break
		}
		tags[n] = VLANTag{Proto: proto, TCI: binary.BigEndian.Uint16(frame[off+2:])}
		n++
		off += VLANTagLen
	}
	return tags, n
}

// fits tells whether b has n bytes from offset off on.
func fits(b []byte, off, n int) bool { return off >= 0 && off <= len(b) && len(b)-off >= n }
