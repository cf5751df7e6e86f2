// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// Size in bytes of the header that all ICMP and ICMPv6 messages have (type,
// code, checksum and four bytes whose meaning the type gives) and the offset
// of the checksum in it.
const (
	ICMPHdrLen  = 8
	ICMPCsumOff = 2
)

// ICMP types (RFC 792).
const (
	ICMPEchoReply    = 0
	ICMPUnreachable  = 3
	ICMPSourceQuench = 4
	ICMPRedirect     = 5
	ICMPEcho         = 8
	ICMPTimeExceeded = 11
	ICMPParamProblem = 12
)

// ICMPv6 types (RFC 4443, RFC 4861).
const (
	ICMPv6Unreachable   = 1
	ICMPv6PacketTooBig  = 2
	ICMPv6TimeExceeded  = 3
	ICMPv6ParamProblem  = 4
	ICMPv6Echo          = 128
	ICMPv6EchoReply     = 129
	ICMPv6RouterSolicit = 133
	ICMPv6RouterAdvert  = 134
	ICMPv6NeighSolicit  = 135
	ICMPv6NeighAdvert   = 136
)

// ICMPHeader is the common header of ICMP and ICMPv6 messages, a view of the
// frame's own bytes: the setters write to the frame.
type ICMPHeader [ICMPHdrLen]byte

// ICMPAt returns the header at offset off of b; ok is false if it is not all
// there.
func ICMPAt(b []byte, off int) (h *ICMPHeader, ok bool) {
	if !fits(b, off, ICMPHdrLen) {
		return nil, false
	}
	return (*ICMPHeader)(b[off:]), true
}

// Type returns the message's type.
func (h *ICMPHeader) Type() uint8 { return h[0] }

// Code returns the message's code.
func (h *ICMPHeader) Code() uint8 { return h[1] }

// Checksum returns the checksum field.
func (h *ICMPHeader) Checksum() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// EchoID returns the identifier; valid only for echo and echo reply.
func (h *ICMPHeader) EchoID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// EchoSeq returns the sequence number; valid only for echo and echo reply.
func (h *ICMPHeader) EchoSeq() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// SetTypeCode writes type and code. No setter touches the checksum.
func (h *ICMPHeader) SetTypeCode(typ, code uint8) { h[0], h[1] = typ, code }

// SetChecksum writes the checksum field.
func (h *ICMPHeader) SetChecksum(v uint16) { binary.BigEndian.PutUint16(h[2:], v) }

// SetEchoID writes the identifier of an echo or echo reply.
func (h *ICMPHeader) SetEchoID(v uint16) { binary.BigEndian.PutUint16(h[4:], v) }

// IsEcho tells whether an ICMP (v6: ICMPv6) message of this type is an echo
// request or reply.
func IsEcho(typ uint8, v6 bool) bool {
	if v6 {
		return typ == ICMPv6Echo || typ == ICMPv6EchoReply
	}
	return typ == ICMPEcho || typ == ICMPEchoReply
}

// IsICMPError tells whether a message of this type reports an error about the
// packet that it carries the start of.
func IsICMPError(typ uint8, v6 bool) bool {
	if v6 {
		return typ < 128 // RFC 4443 2.1: the high bit marks the informational ones.
	}
	switch typ {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParamProblem:
		return true
	}
	return false
}
