package wire

import (
	"bytes"
	"net"
	"testing"

	"heddle/bench/golden"
)

func TestMACs(t *testing.T) {
	frame := golden.Bytes(t, arpRequest)
	if got := DstMAC(frame); got != Broadcast {
		t.Errorf("DstMAC = %v, want %v", got, Broadcast)
	}
	if got := SrcMAC(frame); got != 0x020000000001 {
		t.Errorf("SrcMAC = %v, want 02:00:00:00:00:01", got)
	}
	for n := range EthHdrLen {
		if DstMAC(frame[:n]) != 0 || SrcMAC(frame[:n]) != 0 {
			t.Errorf("%d bytes have a MAC", n)
		}
	}
}

func TestMACKinds(t *testing.T) {
	for _, c := range []struct {
		mac                       string
		zero, multicast, reserved bool
	}{
		{"00:00:00:00:00:00", true, false, false},
		{"02:00:00:00:00:01", false, false, false},
		{"ff:ff:ff:ff:ff:ff", false, true, false},
		{"01:00:5e:00:00:01", false, true, false},
		{"00:01:00:00:00:00", false, false, false},
		{"01:80:c2:00:00:00", false, true, true},
		{"01-80-C2-00-00-0F", false, true, true},
		{"01:80:c2:00:00:10", false, true, false},
		{"01:80:c2:00:01:00", false, true, false},
	} {
		m, err := ParseMAC(c.mac)
		if err != nil {
			t.Errorf("%s: %v", c.mac, err)
		}
		if m.IsZero() != c.zero || m.IsMulticast() != c.multicast || m.IsReserved() != c.reserved {
			t.Errorf("%s: zero %v, multicast %v, reserved %v; want %v %v %v", c.mac,
				m.IsZero(), m.IsMulticast(), m.IsReserved(), c.zero, c.multicast, c.reserved)
		}
	}
}

func TestParseMACRefuses(t *testing.T) {
	for _, s := range []string{
		"", "02:00:00:00:00", "02:00:00:00:00:0", "02:00:00:00:00:001", "02-00:00:00:00:00",
		"02:00:00:00:00:0g", "020000000001", "0200.0000.0001", "02:00:00:00:00:01:00:00",
		"02 00 00 00 00 01", "02:00:00:00:00:0ä",
	} {
		if m, err := ParseMAC(s); err == nil {
			t.Errorf("ParseMAC(%q) = %v, want an error", s, m)
		}
	}
}

// FuzzParseMAC holds ParseMAC against net.ParseMAC, which takes more forms.
func FuzzParseMAC(f *testing.F) {
	f.Add("02:00:00:00:00:01")
	f.Add("01-80-C2-00-00-0F")
	f.Add("0200.0000.0001")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		want, wantErr := net.ParseMAC(s)
		if (err == nil) != (wantErr == nil && len(s) == 17) {
			t.Fatalf("ParseMAC(%q) says %v, net.ParseMAC %v", s, err, wantErr)
		}
		if err != nil {
			return
		}
		b := m.Bytes()
		if !bytes.Equal(b[:], want) || m.String() != want.String() || MACAt(b[:]) != m {
			t.Fatalf("ParseMAC(%q) = %v, want %v", s, m, want)
		}
		var put [MACLen]byte
		if !m.Put(put[:]) || put != b || m.Put(put[:5]) {
			t.Fatalf("Put(%v) wrote % x", m, put)
		}
	})
}

func TestL3(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		etherType uint16
		off       int
	}{
		{"untagged", tcpSYN4, EtherTypeIPv4, 14},
		{"QinQ", udpQinQ, EtherTypeIPv4, 22},
		{"one tag", "020000000002 020000000001 8100 0001 86dd", EtherTypeIPv6, 18},
		{"a third tag is payload", "020000000002 020000000001 8100 0001 8100 0002 8100 0003 0800", EtherTypeVLAN, 22},
		{"802.3 length", "020000000002 020000000001 0026 4242", 0x26, 14},
	} {
		etherType, off, ok := L3(golden.Bytes(t, c.hex))
		if !ok || etherType != c.etherType || off != c.off {
			t.Errorf("%s: L3 = %#04x, %d, %v; want %#04x, %d", c.name, etherType, off, ok, c.etherType, c.off)
		}
	}
	qinq := golden.Bytes(t, udpQinQ)
	for n := range 22 {
		if _, _, ok := L3(qinq[:n]); ok {
			t.Errorf("L3 is content with %d bytes of a double-tagged frame", n)
		}
	}
}

func TestVLANTags(t *testing.T) {
	tags, n := VLANTags(golden.Bytes(t, udpQinQ))
	if n != 2 || tags[0].Proto != EtherTypeQinQ || tags[0].ID() != 100 || tags[1].Proto != EtherTypeVLAN ||
		tags[1].ID() != 10 || tags[1].Priority() != 3 {
		t.Errorf("tags = %+v, %d", tags, n)
	}
	if _, n := VLANTags(golden.Bytes(t, tcpSYN4)); n != 0 {
		t.Errorf("an untagged frame has %d tags", n)
	}
}

func TestARP(t *testing.T) {
	frame := golden.Bytes(t, arpRequest)
	p, ok := ARPAt(frame, EthHdrLen)
	if !ok || p.Op() != ARPRequest || p.SenderMAC() != 0x020000000001 || p.SenderIP() != 0xc6120001 ||
		p.TargetMAC() != 0 || p.TargetIP() != 0xc6120002 {
		t.Fatalf("ARPAt = % x, %v", p, ok)
	}
	var q ARPPacket
	q.Init(ARPRequest)
	q.SetSender(0x020000000001, 0xc6120001)
	q.SetTarget(0, 0xc6120002)
	if q != *p {
		t.Errorf("built % x, want % x", q, *p)
	}
	frame[EthHdrLen+4] = 8
	if _, ok := ARPAt(frame, EthHdrLen); ok {
		t.Error("ARP with a hardware length of 8 is taken for Ethernet's")
	}
}
