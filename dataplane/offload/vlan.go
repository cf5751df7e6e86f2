// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package offload

import (
	"encoding/binary"

	"heddle/dataplane/wire"
)

// InsertVLAN puts a tag into a frame that was handed over without it, as
// packet sockets do (tp_vlan_tci with TP_STATUS_VLAN_VALID, linux/if_packet.h).
// buf is wire.VLANTagLen bytes of headroom and then the frame; afterwards all
// of buf is the frame. The MACs move down by the tag's length, and CsumStart
// with the headers behind the tag. proto is the tag's EtherType, 0x8100 or
// 0x88a8.
//
// It returns false, and has changed nothing, if the frame has no Ethernet
// header or CsumStart has no room to move.
func InsertVLAN(buf []byte, tci, proto uint16, h *wire.VNetHdr) bool {
	if len(buf) < wire.VLANTagLen+wire.EthHdrLen || h.CsumStart > 0xffff-wire.VLANTagLen {
		return false
	}
	dst := wire.DstMAC(buf[wire.VLANTagLen:])
	src := wire.SrcMAC(buf[wire.VLANTagLen:])
	dst.Put(buf[wire.EthDst:])
	src.Put(buf[wire.EthSrc:])
	binary.BigEndian.PutUint16(buf[wire.EthTypeOff:], proto)
	binary.BigEndian.PutUint16(buf[wire.EthTypeOff+2:], tci)
	if h.Partial() {
		h.CsumStart += wire.VLANTagLen
	}
	return true
}

// RemoveVLAN takes the outer tag out again: what InsertVLAN did is undone.
// buf is the tagged frame; afterwards buf[wire.VLANTagLen:] is the frame
// without the tag, which is returned as its TCI and EtherType.
//
// It returns false, and has changed nothing, if the frame has no tag or
// CsumStart is not behind it.
func RemoveVLAN(buf []byte, h *wire.VNetHdr) (tag wire.VLANTag, ok bool) {
	tags, n := wire.VLANTags(buf)
	if n == 0 || len(buf) < wire.VLANTagLen+wire.EthHdrLen ||
		h.Partial() && int(h.CsumStart) < wire.VLANTagLen+wire.EthHdrLen {
		return tag, false
	}
	dst, src := wire.DstMAC(buf), wire.SrcMAC(buf)
	dst.Put(buf[wire.VLANTagLen+wire.EthDst:])
	src.Put(buf[wire.VLANTagLen+wire.EthSrc:])
	if h.Partial() {
		h.CsumStart -= wire.VLANTagLen
	}
	return tags[0], true
}
