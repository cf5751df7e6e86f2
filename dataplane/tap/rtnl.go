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
	n.seq++
	if err := unix.Send(n.fd, getLinkRequest(n.seq, name), 0); err != nil {
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
		switch binary.NativeEndian.Uint16(msg[4:]) {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, unix.EBADMSG
			}
			return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case unix.RTM_NEWLINK:
			if len(body) < unix.SizeofIfInfomsg {
				return nil, unix.EBADMSG
			}
			return attributes(body[unix.SizeofIfInfomsg:]), nil
		}
	}
}

// getLinkRequest is the message RTM_GETLINK with a name: struct nlmsghdr,
// struct ifinfomsg, and the attribute IFLA_IFNAME.
func getLinkRequest(seq uint32, name string) []byte {
	value := append([]byte(name), 0)
	attrLen := unix.SizeofNlAttr + len(value)
	total := unix.SizeofNlMsghdr + unix.SizeofIfInfomsg + (attrLen+3)&^3
	b := make([]byte, total)
	binary.NativeEndian.PutUint32(b, uint32(total))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], seq)
	attr := b[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	binary.NativeEndian.PutUint16(attr, uint16(attrLen))
	binary.NativeEndian.PutUint16(attr[2:], unix.IFLA_IFNAME)
	copy(attr[unix.SizeofNlAttr:], value)
	return b
}
