package tap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxReply is more than the kernel's answer for one link takes, in bytes.
const maxReply = 64 << 10

// rtnl is an rtnetlink(7) socket. It stays in the network namespace that it
// was opened in, wherever its user's thread is.
type rtnl struct {
	fd  int
	seq uint32
}

// openRTNL opens a socket in the thread's namespace.
func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	// The kernel answers within the call of send; this is for what should not be.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("setsockopt SO_RCVTIMEO: %w", err)
	}
	return &rtnl{fd: fd}, nil
}

func (n *rtnl) close() error { return unix.Close(n.fd) }

// link returns the attributes (IFLA_*, linux/if_link.h) of the interface of
// that name, nil if there is none.
func (n *rtnl) link(name string) (map[uint16][]byte, error) {
	attrs, err := n.getLink(name)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for interface %s: %w", name, err)
	}
	return attrs, nil
}

func (n *rtnl) getLink(name string) (map[uint16][]byte, error) {
	body, err := n.ask(getLinkRequest(name), unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	if len(body) < unix.SizeofIfInfomsg {
		return nil, unix.EBADMSG
	}
	return attributes(body[unix.SizeofIfInfomsg:]), nil
}

// noQueue takes the queueing discipline from the interface of that name: what
// is sent goes straight to the driver, as by tc(8)'s `qdisc replace dev NAME
// root noqueue`. On a kernel without traffic control it does nothing.
func (n *rtnl) noQueue(name string) error {
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(n.fd, unix.SIOCGIFINDEX, ifr)
	}
	if err == nil {
		_, err = n.ask(noQueueRequest(ifr.Uint32()), unix.NLMSG_ERROR)
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("set the queueing discipline noqueue: %w", err)
	}
	return nil
}

// setGROMax sets the gro_ipv4_max_size (ip-link(8)) of the interface of that
// name, in bytes. A kernel that has none, before Linux 6.3, or wants it shorter
// leaves it as it is.
func (n *rtnl) setGROMax(name string, size int) error {
	_, err := n.ask(groMaxRequest(name, uint32(size)), unix.NLMSG_ERROR)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("set gro_ipv4_max_size %d: %w", size, err)
	}
	return nil
}

// ask numbers a request, sends it and returns what follows the header of the
// answer of the type that is wanted. NLMSG_ERROR stands for an
// acknowledgement, an error of the kernel's for itself.
func (n *rtnl) ask(request []byte, want uint16) ([]byte, error) {
	n.seq++
	binary.NativeEndian.PutUint32(request[8:], n.seq)
	if err := unix.Send(n.fd, request, 0); err != nil {
		return nil, err
	}
	reply := make([]byte, maxReply)
	for {
		got, _, err := unix.Recvfrom(n.fd, reply, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		msg := reply[:got]
		if got < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(msg[8:]) != n.seq {
			continue // The answer to a question that was given up.
		}
		body := msg[unix.SizeofNlMsghdr:]
		switch kind := binary.NativeEndian.Uint16(msg[4:]); kind {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, unix.EBADMSG
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 || want != kind {
				return nil, errno
			}
			return body, nil
		case want:
			return body, nil
		}
	}
}

// getLinkRequest is the message RTM_GETLINK with a name: struct ifinfomsg, and
// the attribute IFLA_IFNAME.
func getLinkRequest(name string) []byte {
	return request(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, cString(name)))
}

// groMaxRequest is the message RTM_SETLINK with a name.
func groMaxRequest(name string, size uint32) []byte {
	return request(unix.RTM_SETLINK, unix.NLM_F_ACK, make([]byte, unix.SizeofIfInfomsg),
		attribute(unix.IFLA_IFNAME, cString(name)),
		attribute(unix.IFLA_GRO_IPV4_MAX_SIZE, binary.NativeEndian.AppendUint32(nil, size)))
}

// noQueueRequest is the message RTM_NEWQDISC: struct tcmsg
// (linux/rtnetlink.h), and the attribute TCA_KIND.
func noQueueRequest(index uint32) []byte {
	const sizeofTcmsg, rootParent, tcaKind = 20, 0xffffffff, 1 // TC_H_ROOT.
	body := make([]byte, sizeofTcmsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	binary.NativeEndian.PutUint32(body[12:], rootParent)
	return request(unix.RTM_NEWQDISC, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body,
		attribute(tcaKind, cString("noqueue")))
}

// request is a message: struct nlmsghdr, a body of a multiple of 4 bytes, and
// attributes. ask numbers it.
func request(kind, flags uint16, body []byte, attributes ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	b = append(b, body...)
	for _, a := range attributes {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// attribute is a struct nlattr and its value, padded to 4 bytes.
func attribute(kind uint16, value []byte) []byte {
	n := unix.SizeofNlAttr + len(value)
	b := make([]byte, (n+3)&^3)
	binary.NativeEndian.PutUint16(b, uint16(n))
	binary.NativeEndian.PutUint16(b[2:], kind)
	copy(b[unix.SizeofNlAttr:], value)
	return b
}

// cString is text as the kernel has it, with a zero at the end.
func cString(text string) []byte { return append([]byte(text), 0) }
