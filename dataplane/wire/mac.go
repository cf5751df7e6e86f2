package wire

import (
	"encoding/binary"
	"fmt"
)

// MAC is a 48-bit Ethernet address as a number: the byte that is sent first is
// the most significant, the upper 16 bits are 0. 02:00:00:00:00:01 is
// 0x020000000001.
type MAC uint64

// Broadcast is ff:ff:ff:ff:ff:ff.
const Broadcast MAC = 0xffffffffffff

// groupBit is the I/G bit, the lowest of the first byte (IEEE 802 8.2.2).
const groupBit = 1 << 40

// reservedMACs is 01-80-C2-00-00-00, the first of 16 addresses that bridges
// never relay (IEEE 802.1Q 8.6.3).
const reservedMACs MAC = 0x0180c2000000

// IsZero tells whether the address is 00:00:00:00:00:00.
func (m MAC) IsZero() bool { return m == 0 }

// IsMulticast tells whether the address is a group's; broadcast is one.
func (m MAC) IsMulticast() bool { return m&groupBit != 0 }

// IsReserved tells whether a bridge must not relay to the address:
// 01-80-C2-00-00-00 to 0F.
func (m MAC) IsReserved() bool { return m&^0xf == reservedMACs }

// Bytes returns the address in the order in which it is sent.
func (m MAC) Bytes() (b [MACLen]byte) {
	binary.BigEndian.PutUint16(b[:], uint16(m>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(m))
	return b
}

// Put writes the address to the first six bytes of b and tells whether they
// were there.
func (m MAC) Put(b []byte) bool {
	if len(b) < MACLen {
		return false
	}
	binary.BigEndian.PutUint16(b, uint16(m>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(m))
	return true
}

// MACAt returns the address in the first six bytes of b, or 0 if b is shorter.
// DstMAC and SrcMAC are faster on frames.
func MACAt(b []byte) MAC {
	if len(b) < MACLen {
		return 0
	}
	return MAC(binary.BigEndian.Uint16(b))<<32 | MAC(binary.BigEndian.Uint32(b[2:]))
}

// String returns the address as six lower-case hexadecimal pairs with colons.
func (m MAC) String() string {
	const hex = "0123456789abcdef"
	var s [3*MACLen - 1]byte
	for i, b := range m.Bytes() {
		if i > 0 {
			s[3*i-1] = ':'
		}
		s[3*i], s[3*i+1] = hex[b>>4], hex[b&0xf]
	}
	return string(s[:])
}

// ParseMAC reads an address of six hexadecimal pairs, all separated by colons
// or all by hyphens.
func ParseMAC(s string) (MAC, error) {
	if len(s) != 3*MACLen-1 || (s[2] != ':' && s[2] != '-') {
		return 0, macError(s)
	}
	var m MAC
	for i := 0; i < len(s); i++ {
		if i%3 == 2 {
			if s[i] != s[2] {
				return 0, macError(s)
			}
			continue
		}
		d, ok := hexDigit(s[i])
		if !ok {
			return 0, macError(s)
		}
		m = m<<4 | MAC(d)
	}
	return m, nil
}

func macError(s string) error {
	return fmt.Errorf("parse MAC address %q: want six hexadecimal pairs like 02:00:00:00:00:01", s)
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
