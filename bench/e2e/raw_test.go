package e2e

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/google/gopacket"
	"golang.org/x/sys/unix"
)

// raw is a packet socket at a station. Frames have their 802.1Q tag in place
// and a virtio-net header before them, both ways.
type raw struct{ fd int }

// openRaw opens a packet socket at a station until the test ends.
func (w *world) openRaw(s *station) *raw {
	w.Helper()
	r := &raw{}
	w.NoError(s.ns.Do(func() (err error) {
		r.fd, err = openSniffer(s.ifname)
		return err
	}))
	w.Cleanup(func() { w.NoError(unix.Close(r.fd)) })
	return r
}

// owesNothing is the virtio-net header of a complete frame.
var owesNothing = make([]byte, vnetLen)

// send sends a complete frame.
func (r *raw) send(frame []byte) error { return r.sendOwing(owesNothing, frame) }

// sendOwing sends a frame with its virtio-net header.
func (r *raw) sendOwing(header, frame []byte) error {
	_, err := unix.SendmsgBuffers(r.fd, [][]byte{header, frame}, nil, nil, 0)
	return err
}

// await returns the next frame that fits, behind its virtio-net header, or an
// error if none comes in time. What has come by the end of that is looked at too.
func (r *raw) await(bound time.Duration, fits func(frame []byte) bool) (header, frame []byte, err error) {
	const lateMost = 10_000 // Of a stream, more come than are looked at.
	buf, oob := make([]byte, 1<<17), make([]byte, 256)
	end, late := time.Now().Add(bound), 0
	for late < lateMost {
		if time.Now().After(end) {
			late++
		}
		n, oobn, _, _, err := unix.Recvmsg(r.fd, buf, oob, 0)
		if errors.Is(err, unix.EAGAIN) && late > 0 {
			break
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		header, frame := buf[:vnetLen], withTag(buf[vnetLen:n], oob[:oobn])
		if fits(frame) {
			return header, frame, nil
		}
	}
	return nil, nil, errNoFrame
}

var errNoFrame = errors.New("no such frame came")

// withTag puts back the tag that the kernel hands over beside the frame
// (PACKET_AUXDATA, packet(7)).
func withTag(frame, oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(frame) < etherLen {
		return frame
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		// struct tpacket_auxdata: status, len, snaplen (32 bits each), mac, net,
		// vlan_tci, vlan_tpid (16 bits each).
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tagged := append([]byte(nil), frame[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, binary.NativeEndian.Uint16(m.Data[18:]))
		tagged = binary.BigEndian.AppendUint16(tagged, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(tagged, frame[12:]...)
	}
	return frame
}

// experimental is the local experimental Ethernet type (IEEE 802, 88-B5).
const experimental = 0x88b5

// etherFrame returns a 60-byte frame of the experimental type.
func etherFrame(dst, src string, text string) []byte {
	d, errD := net.ParseMAC(dst)
	s, errS := net.ParseMAC(src)
	if err := errors.Join(errD, errS); err != nil {
		panic(err)
	}
	frame := append(append(make([]byte, 0, 60), d...), s...)
	frame = binary.BigEndian.AppendUint16(frame, experimental)
	frame = append(frame, text...)
	return frame[:60]
}

// carries tells whether a frame is etherFrame's with the text.
func carries(text string) func([]byte) bool {
	return func(frame []byte) bool {
		return len(frame) >= etherLen+len(text) &&
			binary.BigEndian.Uint16(frame[12:]) == experimental &&
			string(frame[etherLen:etherLen+len(text)]) == text
	}
}

// build makes a frame of layers with lengths and checksums set.
func (w *world) build(stack ...gopacket.SerializableLayer) []byte {
	w.Helper()
	for i, l := range stack {
		ip, ok := l.(gopacket.NetworkLayer)
		if !ok {
			continue
		}
		if l4, ok := stack[i+1].(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			w.NoError(l4.SetNetworkLayerForChecksum(ip))
		}
	}
	buf := gopacket.NewSerializeBuffer()
	w.NoError(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	return append([]byte(nil), buf.Bytes()...)
}

// hardware parses a station's MAC.
func (w *world) hardware(s *station) net.HardwareAddr {
	w.Helper()
	mac, err := s.ns.MAC(s.ifname)
	w.NoError(err)
	return mac
}
