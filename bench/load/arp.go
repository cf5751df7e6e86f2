package load

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// responder answers ARP requests (RFC 826) for an address that no stack has.
type responder struct {
	fd    int // Of ARP frames; it never blocks.
	reply [arpFrameLen]byte
}

// An ARP frame of Ethernet and IPv4.
const (
	arpFrameLen = 14 + 28
	offARP      = 14
	offSender   = offARP + 8  // Its MAC and address.
	offTarget   = offARP + 18 // Its MAC and address.
	arpRequest  = 1
	arpReply    = 2
)

// openResponder opens a responder on an interface of the calling thread's
// namespace.
func openResponder(ifname string, addr netip.Addr, mac net.HardwareAddr) (*responder, error) {
	fd, err := openSocket(ifname, unix.ETH_P_ARP)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("answering ARP on %s: %w", ifname, err), unix.Close(fd))
	}
	r := &responder{fd: fd}
	copy(r.reply[6:], mac)
	copy(r.reply[12:], []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, arpReply})
	copy(r.reply[offSender:], mac)
	copy(r.reply[offSender+6:], addr.AsSlice())
	return r, nil
}

// answer answers the requests that have come, 64 at most.
func (r *responder) answer() error {
	var request [arpFrameLen]byte
	for range 64 {
		n, _, err := unix.Recvfrom(r.fd, request[:], 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return nil
		}
		if err == nil && n == arpFrameLen && r.asked(request[:]) {
			copy(r.reply[:6], request[offSender:])
			copy(r.reply[offTarget:], request[offSender:offSender+10])
			err = unix.Send(r.fd, r.reply[:], 0)
		}
		if err != nil {
			return fmt.Errorf("answering ARP: %w", err)
		}
	}
	return nil
}

// asked tells whether a frame is a request for our address.
func (r *responder) asked(frame []byte) bool {
	return bytes.Equal(frame[offARP:offARP+7], r.reply[offARP:offARP+7]) && frame[offARP+7] == arpRequest &&
		bytes.Equal(frame[offTarget+6:offTarget+10], r.reply[offSender+6:offSender+10])
}
