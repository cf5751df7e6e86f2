package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// patience is how long a test waits for something that takes microseconds, on a
// machine that may stand still for seconds.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if name := os.Getenv("HDTAP_HOLD"); name != "" {
		os.Exit(hold(name))
	}
	lab.Main(m)
}

// quiet makes a namespace that says nothing of its own accord.
func quiet(t *lab.T, name string) *lab.NetNS {
	t.Helper()
	n := t.NewNetNS(name)
	t.NoError(n.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	return n
}

// openIn opens a port in a namespace, up, and deletes it when the test ends.
func openIn(t *lab.T, n *lab.NetNS, c Config) *Port {
	t.Helper()
	var p *Port
	t.NoError(n.Do(func() (err error) { p, err = Open(c); return err }))
	t.Cleanup(func() {
		if err := p.Delete(); err != nil && p.Fault() == nil {
			t.Error(err)
		}
	})
	t.NoError(n.SetUp(c.Name, true))
	return p
}

// openErr is the error of Open in a namespace.
func openErr(t *lab.T, n *lab.NetNS, c Config) error {
	t.Helper()
	return n.Do(func() error {
		p, err := Open(c)
		if err == nil {
			t.Errorf("Open(%+v) took over what it must not", c)
			return p.Close()
		}
		return err
	})
}

// socket is an AF_PACKET socket with virtio-net headers on an interface.
type socket struct{ fd int }

func openSocket(t *lab.T, n *lab.NetNS, ifName string) socket {
	t.Helper()
	s := socket{-1}
	link, err := n.Link(ifName)
	t.NoError(err)
	t.NoError(n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	for _, opt := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		t.NoError(unix.SetsockoptInt(s.fd, unix.SOL_PACKET, opt, 1))
	}
	tv := unix.NsecToTimeval(int64(patience))
	t.NoError(unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	all := binary.BigEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, all))
	t.NoError(unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Attrs().Index}))
	return s
}

// send sends a frame out of the interface, which is into the port.
func (s socket) send(frame []byte, owes wire.VNetHdr) error {
	b := make([]byte, wire.VNetHdrLen+len(frame))
	owes.Encode(b)
	copy(b[wire.VNetHdrLen:], frame)
	_, err := unix.Write(s.fd, b)
	return err
}

// receive waits for a frame that the port sent.
func (s socket) receive() ([]byte, wire.VNetHdr, error) {
	b := make([]byte, wire.VNetHdrLen+BigTCP)
	n, err := unix.Read(s.fd, b)
	for errors.Is(err, unix.EINTR) { // Go's own signals end a read that has a timeout (signal(7)).
		n, err = unix.Read(s.fd, b)
	}
	if err != nil {
		return nil, wire.VNetHdr{}, fmt.Errorf("receive: %w", err)
	}
	var h wire.VNetHdr
	h.Decode(b)
	return b[wire.VNetHdrLen:n], h, nil
}

// pullSome waits until a worker's queue has frames.
func pullSome(p *Port, worker int) (*dataplane.Batch, error) {
	b := dataplane.NewBatch(worker)
	fds := []unix.PollFd{{Fd: int32(p.FD(worker)), Events: unix.POLLIN}}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		b.Reset()
		if p.Pull(b); b.N > 0 {
			return b, nil
		}
	}
	return nil, fmt.Errorf("worker %d: nothing to pull within %v", worker, patience)
}

// frame is what a test gives to a batch.
type frame struct {
	data []byte
	owes wire.VNetHdr
}

func batchOf(worker int, frames ...frame) *dataplane.Batch {
	b := dataplane.NewBatch(worker)
	for _, fr := range frames {
		f := b.Next()
		f.Buf = make([]byte, dataplane.Headroom+len(fr.data))
		f.Off, f.Len, f.Owes = dataplane.Headroom, len(fr.data), fr.owes
		copy(f.Bytes(), fr.data)
		b.Add()
	}
	return b
}

var (
	macA = []byte{2, 0, 0, 0, 0, 0xa}
	macB = []byte{2, 0, 0, 0, 0, 0xb}
)

// plain returns a frame of n bytes with an EtherType for experiments (IEEE
// 802, 0x88b5), told apart by its number.
func plain(n, number int) []byte {
	b := bytes.Repeat([]byte{byte(number)}, n)
	copy(b, macB)
	copy(b[6:], macA)
	copy(b[12:], []byte{0x88, 0xb5})
	return b
}

// transport returns an Ethernet and IPv4 frame from 198.18.0.2 to 198.18.0.1
// with n bytes of payload in TCP or UDP, whose checksum is partial.
func transport(proto uint8, srcPort, dstPort uint16, n int) frame {
	const l3, l4 = 14, 34
	hdr, csum := 8, wire.UDPCsumOff
	if proto == wire.ProtoTCP {
		hdr, csum = 20, wire.TCPCsumOff
	}
	b := make([]byte, l4+hdr+n)
	copy(b, macB)
	copy(b[6:], macA)
	copy(b[12:], []byte{0x08, 0x00})
	copy(b[l3:], []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, proto, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1})
	binary.BigEndian.PutUint16(b[l3+2:], uint16(20+hdr+n))
	binary.BigEndian.PutUint16(b[l3+10:], ^wire.Fold(wire.Sum(b[l3:l4], 0)))
	binary.BigEndian.PutUint16(b[l4:], srcPort)
	binary.BigEndian.PutUint16(b[l4+2:], dstPort)
	if proto == wire.ProtoTCP {
		b[l4+12], b[l4+13] = 5<<4, 0x10
	} else {
		binary.BigEndian.PutUint16(b[l4+4:], uint16(hdr+n))
	}
	pseudo := wire.Sum(b[l3+12:l4], 0) + uint32(proto) + uint32(hdr+n)
	binary.BigEndian.PutUint16(b[l4+csum:], wire.Fold(pseudo))
	for i := range n {
		b[l4+hdr+i] = byte(i)
	}
	return frame{b, wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: l4, CsumOffset: uint16(csum)}}
}

// gso makes a frame one of many segments.
func (f frame) gso(typ uint8, size int) frame {
	f.owes.GSOType, f.owes.GSOSize = typ, uint16(size)
	return f
}

// checksumRight tells whether the checksum of a frame as transport makes them
// adds up: with the pseudo-header, everything sums to 0xffff.
func checksumRight(b []byte) bool {
	const l3, l4 = 14, 34
	pseudo := wire.Sum(b[l3+12:l4], 0) + uint32(b[l3+9]) + uint32(len(b)-l4)
	return wire.Fold(wire.Sum(b[l4:], pseudo)) == 0xffff
}

// aligned tells whether a frame begins a cache line.
func aligned(f *dataplane.Frame) bool {
	return uintptr(unsafe.Pointer(&f.Bytes()[0]))%line == 0
}
