// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "encoding/binary"

// TCP options (RFC 9293 3.2, RFC 7323 2).
const (
	tcpOptEnd   = 0
	tcpOptNop   = 1
	TCPOptMSS   = 2 // Two bytes: the longest segment that the sender takes.
	TCPOptScale = 3 // One byte: by how many bits its window is shifted.
)

// TCPOption returns the offset in b of the value of the option kind, of n
// bytes, of the TCP header at offset l4, or 0 if it has none or its options are
// malformed before.
func TCPOption(b []byte, l4 int, kind byte, n int) int {
	h, ok := TCPAt(b, l4)
	if !ok {
		return 0
	}
	b = b[:l4+h.HdrLen()]
	for at := l4 + TCPMinHdrLen; at < len(b); {
		switch b[at] {
		case tcpOptEnd:
			return 0
		case tcpOptNop:
			at++
			continue
		}
		if at+2 > len(b) || b[at+1] < 2 || at+int(b[at+1]) > len(b) {
			return 0
		}
		if b[at] == kind && int(b[at+1]) == 2+n {
			return at + 2
		}
		at += int(b[at+1])
	}
	return 0
}

// ClampMSS lowers the MSS option of the SYN whose TCP header is at offset l4 to
// most, and makes its checksum good; a partial one (VNetHdr.Partial) doesn't
// cover the option yet. It tells whether it changed anything: not if there is
// no option or it says no more, and not if most is below 1.
func ClampMSS(b []byte, l4, most int, partial bool) bool {
	at := TCPOption(b, l4, TCPOptMSS, 2)
	if at == 0 || most < 1 {
		return false
	}
	old := binary.BigEndian.Uint16(b[at:])
	if int(old) <= most {
		return false
	}
	binary.BigEndian.PutUint16(b[at:], uint16(most))
	if !partial {
		h := (*TCPHeader)(b[l4:])
		d := Delta16(old, uint16(most))
		if (at-l4)%2 != 0 { // Behind an odd number of NOPs the words are crossed.
			d = d>>8 | d<<8
		}
		h.SetChecksum(d.Update(h.Checksum()))
	}
	return true
}
