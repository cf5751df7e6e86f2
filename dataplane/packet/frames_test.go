package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/dataplane/wire"
)

var (
	nearMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0a}
	farMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}
)

// recipe says what frame to build; the zero value is 64 bytes of IPv4 and UDP
// without a tag, complete.
type recipe struct {
	v6, tcp bool
	tags    []layers.EthernetType // Of the tags, outer first.
	payload int
	// partial leaves the checksum to be completed, gso is the segment size.
	partial bool
	gso     uint16
	port    uint16 // The source port.
	seed    uint64 // Of the payload.
}

// build makes the frame with gopacket and then takes out of the checksum what
// a partial one leaves open.
func build(r recipe) sent {
	payload := make([]byte, r.payload)
	rnd := rand.New(rand.NewPCG(r.seed, 1))
	for i := range payload {
		payload[i] = byte(rnd.Uint32())
	}
	l3Type := layers.EthernetTypeIPv4
	if r.v6 {
		l3Type = layers.EthernetTypeIPv6
	}
	types := append(append([]layers.EthernetType{}, r.tags...), l3Type)
	stack := []gopacket.SerializableLayer{&layers.Ethernet{DstMAC: nearMAC, SrcMAC: farMAC, EthernetType: types[0]}}
	for i := range r.tags {
		stack = append(stack, &layers.Dot1Q{Priority: 5, VLANIdentifier: uint16(100 + i), Type: types[i+1]})
	}
	proto := layers.IPProtocolUDP
	if r.tcp {
		proto = layers.IPProtocolTCP
	}
	var l3 gopacket.NetworkLayer
	if r.v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
		l3, stack = ip, append(stack, ip)
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IP{198, 18, 0, 1}, DstIP: net.IP{198, 18, 0, 2}, Flags: layers.IPv4DontFragment}
		l3, stack = ip, append(stack, ip)
	}
	var csumOffset, hdrLen int
	if r.tcp {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(40000 + r.port), DstPort: 5001, Seq: 1000, Ack: 1, ACK: true, PSH: true, Window: 512,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
				{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}}
		_ = tcp.SetNetworkLayerForChecksum(l3)
		stack, csumOffset, hdrLen = append(stack, tcp), 16, 32
	} else {
		udp := &layers.UDP{SrcPort: layers.UDPPort(40000 + r.port), DstPort: 5001}
		_ = udp.SetNetworkLayerForChecksum(l3)
		stack, csumOffset, hdrLen = append(stack, udp), 6, 8
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append(stack, gopacket.Payload(payload))...); err != nil {
		panic(err)
	}
	s := sent{frame: buf.Bytes()}
	if r.partial || r.gso > 0 {
		start := len(s.frame) - r.payload - hdrLen
		s.owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(csumOffset)}
		binary.BigEndian.PutUint16(s.frame[start+csumOffset:], pseudoSum(s.frame, start, r.v6, uint8(proto)))
	}
	if r.gso > 0 {
		s.owes.GSOSize = r.gso
		s.owes.HdrLen = uint16(len(s.frame) - r.payload)
		switch {
		case !r.tcp:
			s.owes.GSOType = wire.VNetGSOUDPL4
		case r.v6:
			s.owes.GSOType = wire.VNetGSOTCP6
		default:
			s.owes.GSOType = wire.VNetGSOTCP4
		}
	}
	return s
}

// pseudoSum is the uninverted sum over the pseudo-header (RFC 9293 3.1, RFC
// 8200 8.1) of what begins at start.
func pseudoSum(frame []byte, start int, v6 bool, proto uint8) uint16 {
	addrs := frame[start-8 : start]
	if v6 {
		addrs = frame[start-32 : start]
	}
	sum := uint32(proto) + uint32(len(frame)-start)
	return fold(sum, addrs)
}

// fold adds b as big-endian words to sum and folds it to 16 bits.
func fold(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
