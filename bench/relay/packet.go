package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ring (linux/if_packet.h): slots that hold a frame of 64 KB behind its
// headers. The virtio-net header lies vnetLen before the frame, as sendmsg
// wants it, so that nothing is copied here.
const (
	slotLen = 68 << 10
	slots   = 120 // More than a burst, which is given back as a whole.
	block   = slotLen * 15
	vnetLen = 10
)

// packetPort is an AF_PACKET socket on an interface, with a ring of received
// frames.
type packetPort struct {
	socket int
	ring   []byte
	next   int // The slot that the kernel fills next.
	held   int // How many slots before it are still to be given back.
	lent   [burst]unix.Iovec
	msgs   [burst]mmsghdr
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	_   [8]byte
}

// Packet relays between two interfaces of the calling thread's namespace on
// the CPU until the context ends. It calls ready when it has begun to listen.
func Packet(ctx context.Context, interfaces [2]string, cpu int, ready func()) (err error) {
	var ports [2]port
	for i, name := range interfaces {
		p, e := newPacketPort(name)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, p.close()) }()
		ports[i] = p
	}
	ready()
	return run(ctx, ports, cpu)
}

func newPacketPort(name string) (_ *packetPort, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("packet socket on %s: %w", name, err)
		}
	}()
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &packetPort{socket: fd}
	if err := p.open(link.Index); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *packetPort) open(ifindex int) error {
	for _, o := range [...]struct {
		name              string
		level, opt, value int
	}{
		{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"PACKET_RESERVE", unix.SOL_PACKET, unix.PACKET_RESERVE, vnetLen},
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{"SO_SNDBUFFORCE", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, burst << 16},
	} {
		if err := unix.SetsockoptInt(p.socket, o.level, o.opt, o.value); err != nil {
			return os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	req := unix.TpacketReq{Block_size: block, Block_nr: slots * slotLen / block, Frame_size: slotLen, Frame_nr: slots}
	if err := unix.SetsockoptTpacketReq(p.socket, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return os.NewSyscallError("setsockopt PACKET_RX_RING", err)
	}
	ring, err := unix.Mmap(p.socket, 0, slots*slotLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	p.ring = ring
	for i := range p.msgs {
		p.msgs[i].hdr.Iovlen = 1
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // In network byte order.
	return os.NewSyscallError("bind", unix.Bind(p.socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}))
}

func (p *packetPort) close() error {
	var err error
	if p.ring != nil {
		err = unix.Munmap(p.ring)
	}
	return errors.Join(err, unix.Close(p.socket))
}

func (p *packetPort) fd() int { return p.socket }

// status is a slot's tp_status, which says whose the slot is.
func (p *packetPort) status(slot int) *uint32 {
	return (*uint32)(unsafe.Pointer(&p.ring[slot*slotLen]))
}

func (p *packetPort) receive() ([]unix.Iovec, error) {
	n := 0
	for ; n < burst && atomic.LoadUint32(p.status(p.next))&unix.TP_STATUS_USER != 0; n++ {
		slot := p.ring[p.next*slotLen:][:slotLen]
		hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
		p.lent[n] = unix.Iovec{Base: &slot[hdr.Mac-vnetLen], Len: uint64(hdr.Snaplen + vnetLen)}
		p.next = (p.next + 1) % slots
	}
	p.held = n
	return p.lent[:n], nil
}

func (p *packetPort) giveBack() {
	for ; p.held > 0; p.held-- {
		atomic.StoreUint32(p.status((p.next+slots-p.held)%slots), unix.TP_STATUS_KERNEL)
	}
}

func (p *packetPort) send(frames []unix.Iovec) error {
	for i := range frames {
		p.msgs[i].hdr.Iov = &frames[i]
	}
	for sent := 0; sent < len(frames); {
		m, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(p.socket),
			uintptr(unsafe.Pointer(&p.msgs[sent])), uintptr(len(frames)-sent), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			sent += int(m)
		case lost(errno) || errno == unix.EINVAL: // EINVAL: a frame that virtio-net can't express.
			sent++
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
	}
	return nil
}
