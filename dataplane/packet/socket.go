package packet

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// The ring's layout (linux/if_packet.h, tpacket_rcv in net/packet/af_packet.c).
const (
	// reserve is PACKET_RESERVE. The kernel sets tp_mac to
	// align16(52 + header) + reserve + 10 − header, with header ≥ 16 for
	// alignment: 196 at the least, and 210 for a plain Ethernet header, where
	// the network header begins at 224, a multiple of 16.
	reserve = 134
	// plainMAC is that tp_mac of a frame with a plain Ethernet header.
	plainMAC = bufStart + 28 + reserve + wire.VNetHdrLen - wire.EthHdrLen
	// slotLen holds a frame of the usual MTU, 1,500, with two tags, in whole
	// cache lines: an odd number of them, so that the slots' first lines fall
	// into different cache sets.
	slotLen = 29 * 64
	// blockLen is a block of the ring: memory that the kernel allocates in
	// one piece if it can.
	blockLen       = 1 << 20
	slotsPerBlock  = blockLen / slotLen
	sendBufferSize = dataplane.BatchSize << 16
	// receiveBufferSize bounds what waits of frames that are longer than a
	// slot. The kernel counts the memory that they take, and takes this twice:
	// 16 MB are some 200 of 64 KB.
	receiveBufferSize = 8 << 20
)

// checkEthernet refuses interfaces whose frames have no Ethernet header.
func checkEthernet(fd int) error {
	sa, err := boundTo(fd)
	if err != nil {
		return err
	}
	if sa.Hatype != unix.ARPHRD_ETHER {
		return fmt.Errorf("not an Ethernet interface (ARPHRD type %d): name a veth end, a NIC or another Ethernet interface", sa.Hatype)
	}
	return nil
}

// boundTo returns the interface that a socket is bound to; its Ifindex is -1
// when the interface is gone.
func boundTo(fd int) (*unix.SockaddrLinklayer, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	ll, ok := sa.(*unix.SockaddrLinklayer)
	if !ok {
		return nil, errors.New("getsockname: not an AF_PACKET socket")
	}
	return ll, nil
}

// setOptions makes a socket ready for mapRing. PACKET_VNET_HDR is refused once
// there is a ring, and the ring's headers are those of PACKET_VERSION.
func setOptions(fd int) error {
	for _, o := range [...]struct {
		name       string
		opt, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, reserve},
		{"PACKET_COPY_THRESH", unix.PACKET_COPY_THRESH, 1}, // Any but 0 is alike.
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.opt, o.value); err != nil {
			return fmt.Errorf("setsockopt %s: %w", o.name, err)
		}
	}
	// Without CAP_NET_ADMIN the buffers are as large as net.core.wmem_max and
	// rmem_max allow: frames that don't fit are counted TxQueueFull and RxKernel.
	for _, o := range [...]struct {
		name               string
		force, plain, size int
	}{
		{"SO_SNDBUF", unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBufferSize},
		{"SO_RCVBUF", unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBufferSize},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, o.size) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, o.size); err != nil {
			return fmt.Errorf("setsockopt %s: %w", o.name, err)
		}
	}
	return nil
}

// mapRing gives the socket a ring of so many blocks and returns the mapping.
func mapRing(fd, blocks int) ([]byte, error) {
	req := unix.TpacketReq{
		Block_size: blockLen,
		Block_nr:   uint32(blocks),
		Frame_size: slotLen,
		Frame_nr:   uint32(blocks * slotsPerBlock),
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("setsockopt PACKET_RX_RING (%d MB): %w", blocks*blockLen>>20, err)
	}
	ring, err := unix.Mmap(fd, 0, blocks*blockLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap the ring: %w", err)
	}
	return ring, nil
}

// slotsOf returns the slots of a ring, in the order in which they are filled.
func slotsOf(ring []byte) [][]byte {
	slots := make([][]byte, 0, len(ring)/blockLen*slotsPerBlock)
	for block := 0; block < len(ring); block += blockLen {
		for i := range slotsPerBlock {
			at := block + i*slotLen
			slots = append(slots, ring[at:at+slotLen:at+slotLen])
		}
	}
	return slots
}

// joinFanout puts the sockets into a new fanout group of the kernel's choice
// of number: a flow goes to one of them, by its symmetric hash.
func joinFanout(queues []queue) error {
	const modeShift, groupMask = 16, 0xffff
	// The first asks for a group that nobody has; the others join it.
	arg := (unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_UNIQUEID) << modeShift
	for i := range queues {
		if err := unix.SetsockoptInt(queues[i].fd, unix.SOL_PACKET, unix.PACKET_FANOUT, arg); err != nil {
			return fmt.Errorf("setsockopt PACKET_FANOUT: %w", err)
		}
		if i == 0 {
			group, err := unix.GetsockoptInt(queues[0].fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
			if err != nil {
				return fmt.Errorf("getsockopt PACKET_FANOUT: %w", err)
			}
			arg = unix.PACKET_FANOUT_HASH<<modeShift | group&groupMask
		}
	}
	return nil
}

// awaitDelivery returns when no frame is on its way any more to sockets as they
// were before. A frame that met a queue's socket both as one of its own and as
// one of the group, or the group while it was smaller, could else still be on its
// way when the filters go, and come twice or to another worker. The kernel waits
// for such frames whenever it closes an AF_PACKET socket (synchronize_net in
// packet_release, net/packet/af_packet.c): some 10 ms.
func awaitDelivery() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open an AF_PACKET socket: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close an AF_PACKET socket: %w", err)
	}
	return nil
}
