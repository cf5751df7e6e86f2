package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// typeMask takes the flags out of nlattr.nla_type (linux/netlink.h,
// NLA_TYPE_MASK).
const typeMask = 1<<14 - 1

const devicePath = "/dev/net/tun"

// queueFlags is what each queue is attached with. The kernel takes the flags of
// the last that was attached for the whole device (tun_set_iff).
const queueFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// attachQueue opens a queue of the device, which it makes, not persistent, if
// there is none of that name.
func attachQueue(name string) (fd int, err error) {
	fd, err = unix.Open(devicePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s (is the tun module loaded?): %w", devicePath, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(queueFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return -1, fmt.Errorf("attach a queue: %w: it takes root or CAP_NET_ADMIN", err)
		}
		return -1, fmt.Errorf("attach a queue: ioctl TUNSETIFF: %w", err)
	}
	return fd, nil
}

// offloads is what the device may leave to us, the most first: each is tried
// until the kernel knows all of it. UDP GSO came with Linux 6.2.
var offloads = [...]int{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6,
	unix.TUN_F_CSUM,
	0,
}

// setOptions sets the device's header length and offloads by one of its
// queues, and tells whether the device does without UDP GSO.
func setOptions(fd int) (noUSO bool, err error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, wire.VNetHdrLen); err != nil {
		return false, fmt.Errorf("ioctl TUNSETVNETHDRSZ: %w", err)
	}
	for _, o := range offloads {
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, o); err == nil {
			return o&unix.TUN_F_USO4 == 0, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return false, fmt.Errorf("ioctl TUNSETOFFLOAD: %w", err)
}

// device is what the kernel tells of an interface.
type device struct {
	exists  bool
	kind    string // Of the driver: "tun", "veth"; "" for hardware.
	dropped uint64 // Frames that the container sent and the kernel dropped.
	gro     offload.GROMax
	// What follows is valid only for the kind "tun".
	mode             uint8 // IFF_TUN or IFF_TAP.
	multiQueue       bool
	queues, disabled int  // Queues that a process has open, and switched off.
	owned            bool // There is an owner: the user owner.
	owner            uint32
}

// free returns nil if the name can be used: nothing is there, or a TAP that
// somebody left behind.
func (d device) free() error {
	switch {
	case !d.exists:
		return nil
	case d.kind != "tun":
		if d.kind == "" {
			d.kind = "hardware"
		}
		return fmt.Errorf("%w by an interface that is no TAP (%s): choose another name", ErrTaken, d.kind)
	case d.mode != unix.IFF_TAP:
		return fmt.Errorf("%w by a TUN device, not a TAP: choose another name", ErrTaken)
	case !d.multiQueue:
		return fmt.Errorf("%w by a TAP of one queue: delete it and let it be made anew, or add it with `multi_queue`", ErrTaken)
	case d.queues+d.disabled > 0:
		return fmt.Errorf("%w (%d queues): end that process or choose another name", ErrHeld, d.queues+d.disabled)
	case d.owned && d.owner != uint32(os.Geteuid()):
		return fmt.Errorf("%w by a TAP of user %d: delete it or choose another name", ErrTaken, d.owner)
	}
	return nil
}

// find asks the kernel for the interface of that name in the namespace of n.
func find(n *rtnl, name string) (device, error) {
	link, err := n.link(name)
	if err != nil || link == nil {
		return device{}, err
	}
	info := attributes(link[unix.IFLA_LINKINFO])
	d := device{exists: true, kind: text(info[unix.IFLA_INFO_KIND]), dropped: txDropped(link)}
	d.gro = offload.GROMax{IPv4: plainGROMax, IPv6: plainGROMax}
	if v, ok := link[unix.IFLA_GRO_IPV4_MAX_SIZE]; ok { // Since Linux 6.3.
		d.gro.IPv4 = int(number(v))
	}
	if v, ok := link[unix.IFLA_GRO_MAX_SIZE]; ok {
		d.gro.IPv6 = int(number(v))
	}
	if d.kind == "tun" {
		d.parse(attributes(info[unix.IFLA_INFO_DATA]))
	}
	return d, nil
}

// txDropped returns struct rtnl_link_stats64's tx_dropped (linux/if_link.h).
func txDropped(link map[uint16][]byte) uint64 {
	const at = 7 * 8
	stats := link[unix.IFLA_STATS64]
	if len(stats) < at+8 {
		return 0
	}
	return binary.NativeEndian.Uint64(stats[at:])
}

// parse reads the attributes IFLA_TUN_*.
func (d *device) parse(tun map[uint16][]byte) {
	d.mode = uint8(number(tun[unix.IFLA_TUN_TYPE]))
	d.multiQueue = number(tun[unix.IFLA_TUN_MULTI_QUEUE]) != 0
	d.queues = int(number(tun[unix.IFLA_TUN_NUM_QUEUES]))
	d.disabled = int(number(tun[unix.IFLA_TUN_NUM_DISABLED_QUEUES]))
	_, d.owned = tun[unix.IFLA_TUN_OWNER]
	d.owner = number(tun[unix.IFLA_TUN_OWNER])
}

// attributes splits netlink attributes (struct nlattr, padded to 4 bytes) by
// their type.
func attributes(b []byte) map[uint16][]byte {
	const hdrLen = unix.SizeofNlAttr
	found := map[uint16][]byte{}
	for len(b) >= hdrLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < hdrLen || n > len(b) {
			break
		}
		found[binary.NativeEndian.Uint16(b[2:])&typeMask] = b[hdrLen:n]
		b = b[min(len(b), (n+3)&^3):]
	}
	return found
}

// text is an attribute's C string.
func text(b []byte) string { return unix.ByteSliceToString(b) }

// number is an attribute of one or four bytes; 0 for one that isn't there.
func number(b []byte) uint32 {
	switch len(b) {
	case 1:
		return uint32(b[0])
	case 4:
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}
