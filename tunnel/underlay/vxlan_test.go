package underlay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// innerMTU is that of the vxlan device, and mss what fits it.
const (
	innerMTU = 1450
	mss      = innerMTU - 20 - 20
)

// vxlanHeader is what the device with VNI 7 writes.
var vxlanHeader = []byte{8, 0, 0, 0, 0, 0, 7, 0}

// inject is a frame for the vxlan device with what it owes.
type inject struct {
	frame []byte
	owes  wire.VNetHdr
}

// superFrame returns a TCP or UDP frame of n bytes of payload with a partial
// checksum, in segments of size unless that is 0.
func superFrame(r *rand.Rand, udp bool, n, size int) inject {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, wire.ProtoTCP,
		0, 0, 198, 18, 0, 1, 198, 18, 0, 2, 0x9c, 0x40, 0, 80}
	owes := wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 34, CsumOffset: wire.TCPCsumOff}
	if udp {
		f[23], owes.CsumOffset = wire.ProtoUDP, wire.UDPCsumOff
		f = append(f, byte((n+8)>>8), byte(n+8), 0, 0)
	} else {
		f = append(f, 0, 0, 0, 5, 0, 0, 0, 9, 0x50, wire.TCPAck, 0xfa, 0xf0, 0, 0, 0, 0)
	}
	if size > 0 {
		owes.GSOType, owes.GSOSize, owes.HdrLen = wire.VNetGSOTCP4, uint16(size), uint16(len(f))
		if udp {
			owes.GSOType = wire.VNetGSOUDPL4
		}
	}
	f = append(f, random(r, n)...)
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	csum, _ := wire.IPv4Checksum(f, 14)
	binary.BigEndian.PutUint16(f[24:], csum)
	pseudo := wire.PseudoSum4(binary.BigEndian.Uint32(f[26:]), binary.BigEndian.Uint32(f[30:]), f[23], len(f)-34)
	binary.BigEndian.PutUint16(f[34+int(owes.CsumOffset):], wire.Fold(pseudo))
	return inject{f, owes}
}

// onTheWire returns a frame's segments, or itself, with complete checksums.
func onTheWire(t *testing.T, f inject) (all [][]byte) {
	t.Helper()
	if !f.owes.GSO() {
		frame := bytes.Clone(f.frame)
		if !offload.Complete(frame, &f.owes) {
			t.Fatal("a frame can't be completed")
		}
		return [][]byte{frame}
	}
	var s offload.Segmenter
	if !s.Begin(f.frame, &f.owes) {
		t.Fatalf("a frame of %d bytes can't be cut: %+v", len(f.frame), f.owes)
	}
	for range s.Count() {
		b := make([]byte, 1<<16)
		all = append(all, b[:s.Next(b)])
	}
	return all
}

// TestKernelVXLAN: what a kernel's vxlan device sends over a veth arrives with
// inner checksums and segmentation undone where the veth claims to do them.
// What offload.Adopt and Whole say of it is right in any case.
//
//	packet socket → vx ─ vxlan device ─ v0 ──── v0 ─ underlay
func TestKernelVXLAN(t *testing.T) {
	for _, c := range []struct {
		name, off string
		whole     bool // A super-frame arrives as one.
	}{
		{"all offloads", "", true},
		{"no tunnel offloads", "tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off", false},
		{"no checksum offload", "tx-checksum-ip-generic off", false},
	} {
		for _, checksum := range []string{"noudpcsum", "udpcsum"} {
			t.Run(c.name+"/"+checksum, func(t *testing.T) {
				w := newWired(t)
				u := w.b.open(Config{Local: address(false, 2)})
				if c.off != "" {
					w.a.exec("ethtool -K v0 " + c.off)
				}
				w.a.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
				w.a.ip(fmt.Sprintf("link add vx mtu %d type vxlan id 7 dstport %d local 192.0.2.1 remote 192.0.2.2 dev v0 %s",
					innerMTU, port, checksum))
				w.a.ip("link set vx up")
				w.connected(false)
				testKernelVXLAN(t, &end{tb: t, Underlay: u}, newInjector(t, w.a, "vx"), c.whole)
			})
		}
	}
}

func testKernelVXLAN(t *testing.T, b *end, send func(inject), whole bool) {
	r := rand.New(rand.NewPCG(11, 11))
	for _, f := range []inject{
		superFrame(r, false, 100, 0), superFrame(r, true, 100, 0),
		superFrame(r, false, 44*mss+7, mss), superFrame(r, true, 20*1000+7, 1000),
	} {
		send(f)
		for want := onTheWire(t, f); len(want) > 0; {
			if !readable(t, b.FD(0), patience) {
				t.Fatalf("%d frames are missing", len(want))
			}
			in, _ := b.Recv(0)
			for i := range in {
				d := &in[i]
				if f.owes.GSO() && whole != (d.Len == len(vxlanHeader)+len(f.frame)) {
					t.Errorf("a super-frame of %d bytes arrives in a datagram of %d", len(f.frame), d.Len)
				}
				for _, got := range decapsulated(t, d) {
					if len(want) == 0 || !bytes.Equal(got, want[0]) {
						t.Fatalf("%d frames before the last one, one of %d bytes is not what was sent", len(want), len(got))
					}
					want = want[1:]
				}
			}
		}
	}
}

// decapsulated returns the frames in a datagram as they would be on a wire.
func decapsulated(t *testing.T, d *Datagram) (all [][]byte) {
	t.Helper()
	data := d.Buf[d.Off : d.Off+d.Len]
	size, seg := 0, d.SegSize
	if seg < d.Len && offload.Whole(data[len(vxlanHeader):]) {
		size, seg = seg, d.Len
	}
	for at := 0; at < len(data); at += seg {
		piece := data[at:min(at+seg, len(data))]
		if !bytes.HasPrefix(piece, vxlanHeader) {
			t.Fatalf("a datagram begins with % x", piece[:8])
		}
		frame := piece[len(vxlanHeader):]
		all = append(all, onTheWire(t, inject{frame, offload.Adopt(frame, innerMTU, size)})...)
	}
	return all
}

// newInjector returns what sends frames to an interface by a packet socket
// with a virtio-net header.
func newInjector(t *testing.T, n netns, ifname string) func(inject) {
	t.Helper()
	fd := -1
	n.do(func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
		ifi, err := net.InterfaceByName(ifname)
		must(t, err)
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index}))
	})
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	return func(f inject) {
		t.Helper()
		msg := make([]byte, wire.VNetHdrLen, wire.VNetHdrLen+len(f.frame))
		f.owes.Encode(msg)
		_, err := unix.Write(fd, append(msg, f.frame...))
		must(t, err)
	}
}
