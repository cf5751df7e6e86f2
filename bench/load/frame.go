package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The payload of a frame, after 42 bytes of Ethernet, IPv4 and UDP header:
//
//	 0       4      6               14      18
//	+-------+------+---------------+-------+--------------
//	| magic | flow | sequence      | hash  | filler …
//	+-------+------+---------------+-------+--------------
//
// in network byte order. The filler repeats the low byte of the hash.
const (
	headerLen  = 14 + 20 + 8
	payloadLen = 4 + 2 + 8 + 4
	magic      = 0x48646c65

	offSrcMAC  = 6
	offType    = 12
	offProto   = 14 + 9
	offSrcPort = 14 + 20

	offMagic  = headerLen
	offFlow   = offMagic + 4
	offSeq    = offFlow + 2
	offHash   = offSeq + 8
	offFiller = offHash + 4
)

// MinSize is the shortest frame in bytes, without FCS; MaxSize the longest.
// MaxFlows bounds the flows of one run.
const (
	MinSize  = headerLen + payloadLen
	MaxSize  = 1514
	MaxFlows = 1024

	firstPort  = 10000 // Source port of flow 0.
	dstPort    = 9     // Discard (RFC 863).
	initialTTL = 64
)

// Frames says what the frames of a run look like. Sender and receiver must
// have the same.
type Frames struct {
	Src, Dst     net.HardwareAddr // Unicast; no interface's own.
	SrcIP, DstIP netip.Addr       // IPv4.
	Flows        int              // 1 to MaxFlows, told apart by UDP source port.
	Size         int              // Bytes without FCS, MinSize to MaxSize.
	// Routed says, for a receiver, that the path routes and translates: a frame
	// has one hop less to go, and its source MAC and, for each flow, its source
	// port are what the path chose for the first. Src is not used then.
	Routed bool
}

// DefaultFrames are 60-byte frames of one flow.
func DefaultFrames() Frames {
	return Frames{
		Src:   net.HardwareAddr{0x02, 0x48, 0x64, 0x6c, 0, 1},
		Dst:   net.HardwareAddr{0x02, 0x48, 0x64, 0x6c, 0, 2},
		SrcIP: netip.MustParseAddr("198.18.100.1"),
		DstIP: netip.MustParseAddr("198.18.100.2"),
		Flows: 1,
		Size:  MinSize,
	}
}

// templates builds the first frame of each flow; later ones differ in the
// payload alone. UDP's checksum is 0, none (RFC 768).
func (f Frames) templates() ([][]byte, error) {
	switch {
	case f.Flows < 1 || f.Flows > MaxFlows:
		return nil, fmt.Errorf("flows: %d is not 1 to %d", f.Flows, MaxFlows)
	case f.Size < MinSize || f.Size > MaxSize:
		return nil, fmt.Errorf("frame size: %d is not %d to %d bytes", f.Size, MinSize, MaxSize)
	case !f.SrcIP.Is4() || !f.DstIP.Is4():
		return nil, errors.New("frames: the addresses must be IPv4")
	case len(f.Src) != 6 || len(f.Dst) != 6:
		return nil, errors.New("frames: the MACs must have 6 bytes")
	}
	hops := uint8(initialTTL)
	if f.Routed {
		hops--
	}
	all := make([][]byte, f.Flows)
	for flow := range all {
		buf := gopacket.NewSerializeBuffer()
		payload := make([]byte, f.Size-headerLen)
		ip := &layers.IPv4{
			Version: 4, TTL: hops, Protocol: layers.IPProtocolUDP,
			SrcIP: f.SrcIP.AsSlice(), DstIP: f.DstIP.AsSlice(),
		}
		udp := &layers.UDP{SrcPort: layers.UDPPort(firstPort + flow), DstPort: dstPort, Length: uint16(8 + len(payload))}
		eth := &layers.Ethernet{SrcMAC: f.Src, DstMAC: f.Dst, EthernetType: layers.EthernetTypeIPv4}
		// The UDP length is set by hand, since fixing lengths and checksums is
		// one option for all layers and UDP's checksum shall stay 0.
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, udp, gopacket.Payload(payload)); err != nil {
			return nil, fmt.Errorf("building frames: %w", err)
		}
		udpBytes := append([]byte(nil), buf.Bytes()...)
		opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		if err := gopacket.SerializeLayers(buf, opts, eth, ip, gopacket.Payload(udpBytes)); err != nil {
			return nil, fmt.Errorf("building frames: %w", err)
		}
		frame := append([]byte(nil), buf.Bytes()...)
		stamp(frame, uint16(flow), 0)
		all[flow] = frame
	}
	return all, nil
}

// stamp writes the payload of frame number seq of a flow.
func stamp(frame []byte, flow uint16, seq uint64) {
	binary.BigEndian.PutUint32(frame[offMagic:], magic)
	binary.BigEndian.PutUint16(frame[offFlow:], flow)
	binary.BigEndian.PutUint64(frame[offSeq:], seq)
	h := hash(flow, seq, len(frame))
	binary.BigEndian.PutUint32(frame[offHash:], h)
	for i := offFiller; i < len(frame); i++ {
		frame[i] = byte(h)
	}
}

// hash is the finaliser of SplitMix64 (Steele et al., 2014), shortened.
func hash(flow uint16, seq uint64, size int) uint32 {
	x := seq ^ uint64(flow)<<48 ^ uint64(size)<<32
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return uint32((x ^ x>>31) >> 32)
}
