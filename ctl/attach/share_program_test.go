package attach

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

// The claim of these tests: 192.0.2.10 and 2001:db8::10 with 61000-65535, TCP
// 8080 on both, UDP 53 on the IPv4 address only.
var testClaim = Claim{
	Addresses: addrs("192.0.2.10", "2001:db8::10"),
	Ports:     PortRange{61000, 65535},
	Published: []Published{
		{Proto: unix.IPPROTO_TCP, Ports: PortRange{8080, 8080}},
		{Addr: netip.MustParseAddr("192.0.2.10"), Proto: unix.IPPROTO_UDP, Ports: PortRange{53, 53}},
	},
}

// loadShare loads the program with a claim, attached to nothing.
func loadShare(t testing.TB, c Claim) *ebpf.Program {
	t.Helper()
	s := &Shared{name: "test", held: make(map[claimKey]*portBits)}
	if err := s.maps.make(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.maps.close() })
	if err := s.Set(c); err != nil {
		t.Fatal(err)
	}
	program, err := loadProgram(sharer, shareProgram(s.maps))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return program
}

// shoots runs the program over a frame (BPF_PROG_TEST_RUN).
func shoots(t testing.TB, program *ebpf.Program, frame []byte) bool {
	t.Helper()
	verdict, _, err := program.Test(frame)
	if err != nil {
		t.Fatal(err)
	}
	switch int32(verdict) {
	case tcActShot:
		return true
	case tcNext:
		return false
	}
	t.Fatalf("verdict %d", int32(verdict))
	return false
}

// Golden frames. The station is 00:00:00:00:00:00, as the kernel's test device
// is. Only what the program reads is right: there are no checksums.
const (
	eth4 = "000000000000 020000000001 0800"
	eth6 = "000000000000 020000000001 86dd"
	to10 = "c6336401 c000020a"                                                 // 198.51.100.1 to 192.0.2.10
	to11 = "c6336401 c000020b"                                                 // … to 192.0.2.11
	by10 = "c000020a c6336401"                                                 // 192.0.2.10 to 198.51.100.1
	to6  = "20010db8000000000000000000000001 20010db8000000000000000000000010" // 2001:db8::1 to ::10
	by6  = "20010db8000000000000000000000010 20010db8000000000000000000000001"
	tcp  = "00000000 00000000 50020000 00000000"
)

// ip4 and ip6 are headers: next protocol, addresses.
func ip4(proto, addrs string) string { return "45000028 00010000 40" + proto + "0000 " + addrs }
func ip6(next, addrs string) string  { return "60000000 0040" + next + "40 " + addrs }

// frag4 is a fragment of packet 0x0007: flags and offset, protocol, addresses.
func frag4(off, proto, addrs string) string {
	return "45000028 0007" + off + " 40" + proto + "0000 " + addrs
}

func TestShareProgram(t *testing.T) {
	checkLeaks(t)
	// Ports: ee48 is 61000, ee47 60999, ffff 65535, 1f90 8080, 0035 53.
	tests := []struct {
		name  string
		frame string
		shot  bool
	}{
		{"TCP to the first port of the range", eth4 + ip4("06", to10) + "0050 ee48" + tcp, true},
		{"TCP to the last", eth4 + ip4("06", to10) + "0050 ffff" + tcp, true},
		{"TCP below the range", eth4 + ip4("06", to10) + "0050 ee47" + tcp, false},
		{"TCP to a published port", eth4 + ip4("06", to10) + "0050 1f90" + tcp, true},
		{"TCP from a published port", eth4 + ip4("06", to10) + "1f90 0050" + tcp, false},
		{"TCP to another's address", eth4 + ip4("06", to11) + "0050 ee48" + tcp, false},
		{"UDP to a port published for TCP", eth4 + ip4("11", to10) + "0050 1f90 00080000", false},
		{"UDP to a published port", eth4 + ip4("11", to10) + "0050 0035 00080000", true},
		{"SCTP to the range", eth4 + ip4("84", to10) + "0050 f000 00000000 00000000", true},
		{"UDP-Lite to the range", eth4 + ip4("88", to10) + "0050 f000 00080000", false},
		{"TCP with IPv4 options", eth4 + "46000028 00010000 40060000" + to10 + "01010101 0050 ee48" + tcp, true},
		{"IPv4 header of 4 words", eth4 + "44000028 00010000 40060000" + to10 + "0050 ee48" + tcp, false},
		{"no ports", eth4 + ip4("06", to10) + "0050", false},
		{"for another station", "020000000009 020000000001 0800" + ip4("06", to10) + "0050 ee48" + tcp, false},
		{"ARP", "ffffffffffff 020000000001 0806 00010800060400010200000000 01c633640100000000 0000c000020a", false},

		{"echo request", eth4 + ip4("01", to10) + "0800 0000 f000 0001", false},
		{"echo reply, any identifier", eth4 + ip4("01", to10) + "0000 0000 f000 0001", false},
		{"port unreachable, from our port", eth4 + ip4("01", to10) + "0303 0000 00000000" + ip4("11", by10) + "f000 0035 00080000", true},
		{"too big, from a published port", eth4 + ip4("01", to10) + "0304 0000 00000514" + ip4("06", by10) + "1f90 0050 00000000", true},
		{"time exceeded, from a host's port", eth4 + ip4("01", to10) + "0b00 0000 00000000" + ip4("06", by10) + "8000 0050 00000000", false},
		{"error to a published port from the host's", eth4 + ip4("01", to10) + "0303 0000 00000000" + ip4("06", by10) + "8000 1f90 00000000", false},
		{"error about another's packet", eth4 + ip4("01", to10) + "0303 0000 00000000" + ip4("11", to11) + "f000 0035 00080000", false},
		{"error about a later fragment", eth4 + ip4("01", to10) + "0303 0000 00000000" + frag4("0001", "11", by10) + "f000 0035 00080000", false},
		{"error about an echo", eth4 + ip4("01", to10) + "0b00 0000 00000000" + ip4("01", by10) + "0800 0000 f000 0001", false},

		{"IPv6 TCP to the range", eth6 + ip6("06", to6) + "0050 ee48" + tcp, true},
		{"IPv6 TCP to the host", eth6 + ip6("06", to6) + "0050 0050" + tcp, false},
		{"IPv6 TCP from us", eth6 + ip6("06", by6) + "0050 ee48" + tcp, false},
		{"IPv6 UDP to a port published for IPv4", eth6 + ip6("11", to6) + "0050 0035 00080000", false},
		{"behind hop-by-hop, 16 bytes of destination options and routing", eth6 + ip6("00", to6) + "3c00000000000000" +
			"2b01000000000000 0000000000000000" + "0600000000000000" + "0050 ee48" + tcp, true},
		{"behind an authentication header", eth6 + ip6("33", to6) + "0604 0000 00000000 00000000 00000000 00000000 00000000" + "0050 ee48" + tcp, true},
		{"behind 8 headers", eth6 + ip6("3c", to6) + strings.Repeat("3c00000000000000", 7) + "0600000000000000" + "0050 ee48" + tcp, true},
		{"behind 9", eth6 + ip6("3c", to6) + strings.Repeat("3c00000000000000", 8) + "0600000000000000" + "0050 ee48" + tcp, false},
		{"an atomic fragment", eth6 + ip6("2c", to6) + "06000000 00000007" + "0050 ee48" + tcp, true},
		{"neighbour solicitation", eth6 + ip6("3a", to6) + "8700 0000 00000000" + "20010db8000000000000000000000010", false},
		{"ICMPv6 echo reply", eth6 + ip6("3a", to6) + "8100 0000 f000 0001", false},
		{"packet too big, from our port", eth6 + ip6("3a", to6) + "0200 0000 00000500" + ip6("06", by6) + "f000 0050 00000000", true},
		{"the same, behind options", eth6 + ip6("3a", to6) + "0200 0000 00000500" + ip6("3c", by6) + "0600000000000000" + "f000 0050 00000000", true},
		{"packet too big, from a host's port", eth6 + ip6("3a", to6) + "0200 0000 00000500" + ip6("06", by6) + "8000 0050 00000000", false},
		{"packet too big about another's", eth6 + ip6("3a", to6) + "0200 0000 00000500" + ip6("06", to6) + "f000 0050 00000000", false},
		{"IPv4's ICMP in IPv6", eth6 + ip6("01", to6) + "0303 0000 00000000" + ip4("11", by10) + "f000 0035 00080000", false},
	}
	program := loadShare(t, testClaim)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := shoots(t, program, golden.Bytes(t, test.frame)); got != test.shot {
				t.Errorf("shot %v", got)
			}
		})
	}
}

// Fragments follow their first one, whichever of the two it was for.
func TestShareProgramFragments(t *testing.T) {
	checkLeaks(t)
	const payload = "00000000 00000000"
	ours4, hosts4 := eth4+frag4("2000", "11", to10)+"0050 0035 00080000", eth4+frag4("2000", "11", to10)+"0050 0036 00080000"
	later4, last4 := eth4+frag4("2001", "11", to10)+payload, eth4+frag4("0002", "11", to10)+payload
	other4 := eth4 + frag4("0002", "06", to10) + payload // The protocol is part of what is identified.
	frag6 := func(off, rest string) string { return eth6 + ip6("2c", to6) + "0600" + off + "00000007" + rest }
	ours6, hosts6 := frag6("0001", "0050 1f90"+tcp), frag6("0001", "0050 1f91"+tcp)
	later6 := frag6("0008", payload)
	program := loadShare(t, testClaim)
	for i, step := range []struct {
		frame string
		shot  bool
	}{
		{later4, false}, // Before its first.
		{ours4, true}, {later4, true}, {last4, true}, {other4, false},
		{hosts4, false}, {later4, false}, // The identification is used again.
		{later6, false}, {ours6, true}, {later6, true}, {later4, false}, {hosts6, false}, {later6, false},
	} {
		if got := shoots(t, program, golden.Bytes(t, step.frame)); got != step.shot {
			t.Errorf("step %d: shot %v", i, got)
		}
	}
}

// As many addresses as there may be, twice: each update takes memory anew.
func TestShareProgramMaxClaimed(t *testing.T) {
	checkLeaks(t)
	var c Claim
	for i := range MaxClaimed {
		c.Addresses = append(c.Addresses, netip.AddrFrom4([4]byte{192, 0, 2 + byte(i>>8), byte(i)}))
	}
	s := &Shared{name: "test", held: make(map[claimKey]*portBits)}
	if err := s.maps.make(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.maps.close() }()
	for _, ports := range []PortRange{{61000, 65535}, {1, 65535}} {
		c.Ports = ports
		if err := s.Set(c); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.held) != 3*MaxClaimed {
		t.Errorf("%d bitmaps", len(s.held))
	}
}

// isOurPacket is the program again, slow and obvious, for frames that are no
// fragments.
func isOurPacket(c *Claim, frame []byte) bool {
	claimed := func(a netip.Addr, proto uint8, port []byte) bool {
		if len(port) < 2 || proto != wire.ProtoTCP && proto != wire.ProtoUDP && proto != wire.ProtoSCTP {
			return false
		}
		p := binary.BigEndian.Uint16(port)
		for _, own := range c.Addresses {
			if own != a {
				continue
			}
			for _, r := range c.Published {
				if r.Proto == proto && r.Ports.contains(p) && (!r.Addr.IsValid() || r.Addr == a) {
					return true
				}
			}
			return c.Ports.contains(p)
		}
		return false
	}
	if [6]byte(frame) != [6]byte{} {
		return false
	}
	// ip returns addresses, and what is behind the headers.
	ip := func(b []byte, v6 bool) (src, dst netip.Addr, proto uint8, upper []byte, ok bool) {
		if !v6 {
			if len(b) < 20 || b[0]&15 < 5 || len(b) < int(b[0]&15)*4 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
				return
			}
			return netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9], b[b[0]&15*4:], true
		}
		u, ok := wire.IPv6Walk(b, 0)
		if !ok || u.FragOff != 0 {
			return src, dst, 0, nil, false
		}
		return netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), u.Proto, b[u.Off:], true
	}
	v6 := binary.BigEndian.Uint16(frame[12:]) == wire.EtherTypeIPv6
	_, dst, proto, upper, ok := ip(frame[14:], v6)
	if !ok {
		return false
	}
	if proto == wire.ProtoICMP && !v6 || proto == wire.ProtoICMPv6 && v6 {
		if len(upper) < 8 || !wire.IsICMPError(upper[0], v6) {
			return false
		}
		src, _, proto, upper, ok := ip(upper[8:], v6)
		return ok && src == dst && claimed(src, proto, upper)
	}
	return len(upper) >= 4 && claimed(dst, proto, upper[2:])
}

// Random frames, nearly right ones, against the model.
func TestShareProgramAgainstModel(t *testing.T) {
	checkLeaks(t)
	program := loadShare(t, testClaim)
	r := rand.New(rand.NewPCG(1, 2))
	shot := 0
	for range 30_000 {
		frame := randomFrame(r)
		want := isOurPacket(&testClaim, frame)
		if got := shoots(t, program, frame); got != want {
			t.Fatalf("shot %v, the model says %v: % x", got, want, frame)
		}
		if want {
			shot++
		}
	}
	if shot < 1000 {
		t.Errorf("%d frames of 30,000 are Heddle's: too few to prove much", shot)
	}
}

func randomFrame(r *rand.Rand) []byte {
	pick := func(n ...byte) byte { return n[r.IntN(len(n))] }
	address := func(v6 bool) []byte {
		a := addrs("192.0.2.10", "192.0.2.10", "192.0.2.11", "2001:db8::10", "2001:db8::10", "2001:db8::11")[r.IntN(3)+3*int(b2i(v6))]
		return a.AsSlice()
	}
	packet := func(v6 bool, icmp byte) []byte {
		proto := pick(6, 17, 132, icmp, icmp, 1, 50, 136)
		if !v6 {
			words := pick(5, 5, 5, 5, 6, 15, 4)
			h := []byte{0x40 | words, 0, 0, 40, 0, 1, 0, 0, 64, proto, 0, 0}
			h = append(append(h, address(false)...), address(false)...)
			return append(h, make([]byte, max(0, int(words)-5)*4)...)
		}
		h := append(append([]byte{0x60, 0, 0, 0, 0, 40, 0, 64}, address(true)...), address(true)...)
		at := 6
		for range r.IntN(10) / 2 * r.IntN(3) {
			next := pick(0, 43, 60, 51, 135, 139, 140, 44)
			h[at] = next
			at = len(h)
			ext := make([]byte, 8+int(pick(0, 0, 1, 2))*8)
			switch next {
			case 51:
				ext[1] = byte(len(ext)/4 - 2)
			case 44:
				ext = ext[:8] // Atomic: anything else is a fragment.
			default:
				ext[1] = byte(len(ext)/8 - 1)
			}
			h = append(h, ext...)
		}
		h[at] = proto
		return h
	}
	ports := func() []byte {
		b := make([]byte, 20)
		for i := range 2 {
			p := []uint16{53, 80, 8080, 60999, 61000, 65535, uint16(r.Uint32())}[r.IntN(7)]
			binary.BigEndian.PutUint16(b[2*i:], p)
		}
		return b
	}
	v6 := r.IntN(2) == 0
	frame := append(make([]byte, 12), 8, 0)
	icmp := byte(wire.ProtoICMP)
	if v6 {
		frame = append(make([]byte, 12), 0x86, 0xdd)
		icmp = wire.ProtoICMPv6
	}
	frame = append(frame, packet(v6, icmp)...)
	if r.IntN(2) == 0 {
		frame = append(frame, ports()...)
	} else {
		frame = append(frame, pick(0, 1, 2, 3, 4, 5, 8, 11, 12, 127, 128, 129), 0, 0, 0, 0, 0, 0, 0)
		frame = append(append(frame, packet(v6, icmp)...), ports()...)
	}
	if r.IntN(10) == 0 {
		frame = frame[:max(54, r.IntN(len(frame)))] // The kernel tests no shorter ones.
	}
	return frame
}

func b2i(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func BenchmarkShareProgram(b *testing.B) {
	program := loadShare(b, testClaim)
	for name, frame := range map[string]string{
		"ours":   eth4 + ip4("06", to10) + "0050 ee48" + tcp,
		"host's": eth4 + ip4("06", to10) + "0050 0050" + tcp,
		"other":  "ffffffffffff 020000000001 0806 00010800060400010200000000 01c633640100000000 0000c000020a",
	} {
		b.Run(name, func(b *testing.B) {
			_, took, err := program.Benchmark(golden.Bytes(b, frame), b.N, b.ResetTimer)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "kernel-ns/op")
		})
	}
}
