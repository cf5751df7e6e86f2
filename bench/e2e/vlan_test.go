package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Tagged frames between every two kinds of port. The kernel takes the tag off
// on its way to a packet socket; it must be there again on the other side, and
// what a frame owes must still be said from the right offset.
//
//	container tap1 ────┐     ┌──── container tap2
//	container veth3 ───┤ swd ├─── container veth4
//	container packet5 ─┘     └─ container packet6
func TestVLAN(t *testing.T) {
	w := newWorld(t)
	var from, to []*station
	for _, kind := range []string{onTAP, onVeth, onPacket} {
		from, to = append(from, w.add(kind)), append(to, w.add(kind))
	}
	for _, a := range from {
		for _, b := range to {
			w.reach(a, b.ip4)
			t.Run(a.kind+" to "+b.kind, func(t *testing.T) { w.within(t).tagged(a, b) })
		}
	}
}

// The stacks of tags that pass.
var tags = map[string][]gopacket.SerializableLayer{
	"802.1Q":        {dot1Q(5, 7, layers.EthernetTypeIPv4)},
	"priority only": {dot1Q(3, 0, layers.EthernetTypeIPv4)},
	"Q in Q":        {dot1Q(0, 100, layers.EthernetTypeDot1Q), dot1Q(1, 4094, layers.EthernetTypeIPv4)},
}

func dot1Q(priority uint8, id uint16, next layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{Priority: priority, VLANIdentifier: id, Type: next}
}

func (w *world) tagged(a, b *station) {
	in, out := w.openRaw(b), w.openRaw(a)
	for name, stack := range tags {
		text := []byte(fmt.Sprintf("tagged, %s, from %s to %s", name, a.name, b.name))
		complete := w.taggedFrame(a, b, stack, &layers.UDP{SrcPort: 4711, DstPort: 4712}, text)
		w.NoError(out.send(complete))
		_, got, err := in.await(patience, func(f []byte) bool { return bytes.Contains(f, text) })
		if err != nil || !bytes.Equal(got, complete) {
			w.Errorf("%s, complete: %v\ngot  %x\nsent %x", name, err, got, complete)
		}
		w.owingChecksum(name, out, in, complete)
	}
	w.owingSegments(a, b, out, in)
}

// taggedFrame makes a frame with an L4 layer and payload behind tags.
func (w *world) taggedFrame(a, b *station, tags []gopacket.SerializableLayer, l4 gopacket.SerializableLayer, payload []byte) []byte {
	proto := layers.IPProtocolUDP
	if _, ok := l4.(*layers.TCP); ok {
		proto = layers.IPProtocolTCP
	}
	stack := []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: w.hardware(a), DstMAC: w.hardware(b), EthernetType: layers.EthernetTypeDot1Q},
	}
	stack = append(stack, tags...)
	return w.build(append(stack,
		&layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(a.ip4).To4(), DstIP: net.ParseIP(b.ip4).To4()},
		l4, gopacket.Payload(payload))...)
}

const ipv4Len = 20

// partially returns a frame's L4 offset, and the frame with the sum of the
// pseudo-header in its checksum field.
func partially(complete []byte, field int) (at int, frame []byte) {
	at = etherLen
	for eth := binary.BigEndian.Uint16(complete[12:]); eth == 0x8100; at += 4 {
		eth = binary.BigEndian.Uint16(complete[at+2:])
	}
	ip := complete[at : at+ipv4Len]
	at += ipv4Len
	frame = append([]byte(nil), complete...)
	binary.BigEndian.PutUint16(frame[at+field:], uint16(pseudo(ip[9], len(complete)-at, ip[12:20])))
	return at, frame
}

// owing returns a virtio-net header.
func owing(gso byte, headerLen, size, start, through int) []byte {
	h := []byte{needsChecksum, gso}
	for _, v := range []int{headerLen, size, start, through} {
		h = binary.LittleEndian.AppendUint16(h, uint16(v))
	}
	return h
}

// owingChecksum sends a tagged frame with a partial checksum.
func (w *world) owingChecksum(name string, out, in *raw, complete []byte) {
	const field = 6 // Of UDP.
	at, frame := partially(complete, field)
	w.NoError(out.sendOwing(owing(0, 0, 0, at, field), frame))
	header, got, err := in.await(patience, func(f []byte) bool {
		return len(f) == len(complete) && bytes.Equal(f[at+8:], complete[at+8:])
	})
	if err != nil {
		w.Errorf("%s, partial checksum: %v", name, err)
		return
	}
	if finished := finish(header, got); !bytes.Equal(finished, complete) {
		w.Errorf("%s, partial checksum\ngot      %x\nfinished %x\nsent     %x\nfinished %x", name, got, finished, frame, complete)
	}
}

// finish completes a received frame's checksum if it owes it. The kernel
// counts csum_start from the frame as it hands it over, without the first tag.
func finish(header, frame []byte) []byte {
	if header[0]&needsChecksum == 0 {
		return frame
	}
	start, through := int(binary.LittleEndian.Uint16(header[6:])), int(binary.LittleEndian.Uint16(header[8:]))
	if binary.BigEndian.Uint16(frame[12:]) == 0x8100 {
		start += 4
	}
	done := append([]byte(nil), frame...)
	binary.BigEndian.PutUint16(done[start+through:], ^sum(0, done[start:]))
	return done
}

// owingSegments sends a tagged super-frame of TCP and puts together what comes.
func (w *world) owingSegments(a, b *station, out, in *raw) {
	const segment, field = 1400, 16
	payload := bytes.Repeat([]byte("0123456789abcdef"), 350) // 5,600 bytes, 4 segments.
	const sequence = 1000
	tcp := &layers.TCP{SrcPort: 4713, DstPort: 4714, Seq: sequence, ACK: true, PSH: true, Window: 1024, DataOffset: 5}
	complete := w.taggedFrame(a, b, tags["802.1Q"], tcp, payload)
	at, frame := partially(complete, field)
	w.NoError(out.sendOwing(owing(1, at+20, segment, at, field), frame))
	got := make([]byte, len(payload))
	for have := 0; have < len(payload); {
		header, f, err := in.await(patience, func(f []byte) bool {
			return len(f) > at+20 && bytes.Equal(f[:12], complete[:12]) && f[at-ipv4Len+9] == 6
		})
		if err != nil {
			w.Errorf("super-frame: %d of %d bytes came: %v", have, len(payload), err)
			return
		}
		if tag := binary.BigEndian.Uint16(f[14:]); binary.BigEndian.Uint16(f[12:]) != 0x8100 || tag != 5<<13|7 {
			w.Errorf("super-frame: tag %#x on\n%x", tag, f[:at+20])
			return
		}
		done := finish(header, f)
		ip, l4 := done[at-ipv4Len:at], done[at:]
		if sum(pseudo(ip[9], len(l4), ip[12:20]), l4) != 0xffff {
			w.Errorf("super-frame: TCP checksum wrong in\n%x\n%x", header, f)
			return
		}
		offset := int(binary.BigEndian.Uint32(f[at+4:])) - sequence
		if offset < 0 || offset+len(l4)-20 > len(payload) {
			w.Errorf("super-frame: %d bytes at %d", len(l4)-20, offset)
			return
		}
		have += copy(got[offset:], l4[20:])
	}
	if !bytes.Equal(got, payload) {
		w.Error("super-frame: the content is another")
	}
}
