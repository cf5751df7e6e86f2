package tunnel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// spec describes an IP frame to build, from mac(1) to mac(2), 198.18.0.1 to .2
// or 2001:db8::1 to ::2.
type spec struct {
	tags         int // 802.1Q tags, 0 to 2.
	v6           bool
	proto        uint8 // wire.ProtoTCP for 0.
	tos          uint8
	mayFragment  bool // IPv4 without DF.
	sport, dport uint16
	flags        uint8  // TCP; ACK for 0.
	options      string // TCP, hex.
	seq          uint32
	payload      int
	size         int  // GSOSize; 0 builds a plain frame.
	partial      bool // Leave the L4 checksum partial.
}

func mac(i int) wire.MAC { return wire.MAC(0x020000000000 + i) }

// frame builds it.
func (s spec) frame() dataplane.Frame {
	if s.proto == 0 {
		s.proto = wire.ProtoTCP
	}
	if s.flags == 0 {
		s.flags = wire.TCPAck
	}
	var l4 []byte
	l4 = binary.BigEndian.AppendUint16(l4, s.sport)
	l4 = binary.BigEndian.AppendUint16(l4, s.dport)
	csumOff := wire.UDPCsumOff
	if s.proto == wire.ProtoTCP {
		csumOff = wire.TCPCsumOff
		options, _ := hex.DecodeString(s.options)
		l4 = binary.BigEndian.AppendUint32(l4, s.seq)
		l4 = append(l4, 0, 0, 0, 9, byte(5+len(options)/4)<<4, s.flags, 0xfa, 0xf0, 0, 0, 0, 0)
		l4 = append(l4, options...)
	} else {
		l4 = binary.BigEndian.AppendUint16(l4, uint16(8+s.payload))
		l4 = append(l4, 0, 0)
	}
	for i := range s.payload {
		l4 = append(l4, byte(s.seq+uint32(i)*7))
	}

	b := make([]byte, 0, 128+len(l4))
	m := mac(2).Bytes()
	b = append(b, m[:]...)
	m = mac(1).Bytes()
	b = append(b, m[:]...)
	for i := range s.tags {
		b = append(b, [][]byte{{0x81, 0x00}, {0x88, 0xa8}}[(s.tags-1-i)%2]...)
		b = append(b, 0, byte(10+i))
	}
	var pseudo uint32
	if s.v6 {
		b = append(b, 0x86, 0xdd, 0x60|s.tos>>4, s.tos<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(l4)))
		b = append(b, s.proto, 64)
		for host := range byte(2) {
			b = append(b, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host+1)
		}
		pseudo = wire.PseudoSum6((*[16]byte)(b[len(b)-32:]), (*[16]byte)(b[len(b)-16:]), s.proto, len(l4))
	} else {
		b = append(b, 0x08, 0x00)
		l3 := len(b)
		b = append(b, 0x45, s.tos)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(l4)))
		b = append(b, 0x12, 0x34, 0x40, 0, 64, s.proto, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2)
		if s.mayFragment {
			b[l3+6] = 0
		}
		csum, _ := wire.IPv4Checksum(b, l3)
		binary.BigEndian.PutUint16(b[l3+10:], csum)
		pseudo = wire.PseudoSum4(0xc6120001, 0xc6120002, s.proto, len(l4))
	}
	var owes wire.VNetHdr
	if s.partial {
		owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(len(b)), CsumOffset: uint16(csumOff)}
		binary.BigEndian.PutUint16(l4[csumOff:], wire.Fold(pseudo))
	} else {
		binary.BigEndian.PutUint16(l4[csumOff:], ^wire.Fold(wire.Sum(l4, pseudo)))
	}
	if s.size > 0 {
		owes.GSOSize = uint16(s.size)
		switch {
		case s.proto == wire.ProtoUDP:
			owes.GSOType = wire.VNetGSOUDPL4
		case s.v6:
			owes.GSOType = wire.VNetGSOTCP6
		default:
			owes.GSOType = wire.VNetGSOTCP4
		}
	}
	f := frameOf(append(b, l4...))
	f.Owes = owes
	return f
}

// onWire is what a frame becomes on a wire without offloads: cut and complete.
func onWire(t testing.TB, data []byte, owes wire.VNetHdr) [][]byte {
	t.Helper()
	data = bytes.Clone(data)
	if !owes.GSO() {
		if !offload.Complete(data, &owes) {
			t.Fatalf("can't complete % x", data)
		}
		return [][]byte{data}
	}
	var s offload.Segmenter
	if !s.Begin(data, &owes) {
		t.Fatalf("can't cut %+v % x", owes, data[:min(len(data), 80)])
	}
	var all [][]byte
	buf := make([]byte, dataplane.MaxFrame)
	for n := s.Next(buf); n > 0; n = s.Next(buf) {
		all = append(all, bytes.Clone(buf[:n]))
	}
	return all
}

// sumsRight tells whether every checksum of a complete frame is right.
func sumsRight(frame []byte) bool {
	var l wire.Layers
	if !l.Parse(frame) || !l.V6 && !wire.IPv4Verify(frame, l.L3) {
		return false
	}
	return wire.Fold(wire.Sum(frame[l.L4:l.End], l.PseudoSum(frame, l.End-l.L4))) == 0xffff
}

func expect[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %v, want %v", what, g, w)
	}
}

// drops returns the drops that are not zero, by name.
func drops(c *dataplane.Counters) string {
	var s []string
	for d, n := range c.Totals().Drops {
		if n > 0 {
			s = append(s, fmt.Sprintf("%s=%d", dataplane.Drop(d), n))
		}
	}
	return strings.Join(s, " ")
}
