package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// sniffer looks at every frame that comes in at a station and checks its
// checksums, also partial ones. It has no code in common with swd.
type sniffer struct {
	fd     int
	mtu    int
	done   chan struct{}
	cancel context.CancelFunc

	// Counts of what was looked at.
	frames, partial, super, bytes atomic.Int64
	err                           error // The first fault; valid after stop.
}

// sniff starts to look at what comes in at a station.
func (w *world) sniff(s *station, mtu int) *sniffer {
	w.Helper()
	sn := &sniffer{mtu: mtu, done: make(chan struct{})}
	w.NoError(s.ns.Do(func() (err error) {
		sn.fd, err = openSniffer(s.ifname)
		return err
	}))
	ctx, cancel := context.WithCancel(w.Context())
	sn.cancel = cancel
	go func() {
		defer close(sn.done)
		sn.err = sn.loop(ctx)
	}()
	return sn
}

func openSniffer(ifname string) (int, error) {
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, err
	}
	const all = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, option := range []struct{ name, value int }{
		{unix.PACKET_VNET_HDR, 1}, {unix.PACKET_IGNORE_OUTGOING, 1}, {unix.PACKET_AUXDATA, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option.name, option.value); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: iface.Index, Protocol: all<<8&0xff00 | all>>8}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// loop looks at frames until the context has ended and none is left.
func (s *sniffer) loop(ctx context.Context) error {
	buf := make([]byte, 1<<19) // The kernel's longest packet.
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && ctx.Err() == nil:
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		}
		if err := s.check(buf[:n]); err != nil {
			return fmt.Errorf("%w\nvirtio-net header and frame: %x", err, buf[:min(n, 140)])
		}
	}
}

// stop ends the sniffer, after what has come in, and returns the first fault.
func (s *sniffer) stop() error {
	s.cancel()
	<-s.done
	return errors.Join(s.err, unix.Close(s.fd))
}

const (
	vnetLen       = 10
	etherLen      = 14
	needsChecksum = 1
	gsoTCP4       = 1
	gsoECN        = 0x80
)

// vnet is what the sniffer reads of struct virtio_net_hdr.
type vnet struct {
	partial              bool
	gso                  byte
	size, start, through int
}

// check checks one frame behind its virtio-net header.
func (s *sniffer) check(b []byte) error {
	if len(b) < vnetLen+etherLen {
		return fmt.Errorf("a frame of %d bytes", len(b))
	}
	h := vnet{
		partial: b[0]&needsChecksum != 0, gso: b[1] &^ gsoECN,
		size:    int(binary.LittleEndian.Uint16(b[4:])),
		start:   int(binary.LittleEndian.Uint16(b[6:])),
		through: int(binary.LittleEndian.Uint16(b[8:])),
	}
	frame := b[vnetLen:]
	ip := frame[etherLen:]
	s.frames.Add(1)
	s.bytes.Add(int64(len(ip)))
	if h.gso == 0 && len(ip) > s.mtu {
		return fmt.Errorf("%d bytes of L3, the MTU is %d", len(ip), s.mtu)
	}
	if h.gso != 0 && !h.partial {
		return errors.New("a GSO frame without partial checksum")
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return s.checkIPv4(h, ip)
	case 0x86dd:
		return s.checkIPv6(h, ip)
	}
	return nil
}

func (s *sniffer) checkIPv4(h vnet, ip []byte) error {
	headerLen, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if total == 0 && h.gso == gsoTCP4 && len(ip) > 0xffff { // BIG TCP.
		total = len(ip)
	}
	if total > len(ip) || headerLen > total {
		return fmt.Errorf("IPv4 of %d bytes in %d", total, len(ip))
	}
	if sum(0, ip[:headerLen]) != 0xffff {
		return errors.New("IPv4 header checksum wrong")
	}
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return nil // A fragment.
	}
	proto, l4 := ip[9], ip[headerLen:total]
	return s.checkL4(h, proto, etherLen+headerLen, pseudo(proto, len(l4), ip[12:20]), l4)
}

func (s *sniffer) checkIPv6(h vnet, ip []byte) error {
	payload := int(binary.BigEndian.Uint16(ip[4:]))
	if 40+payload > len(ip) {
		return fmt.Errorf("IPv6 of 40+%d bytes in %d", payload, len(ip))
	}
	proto, l4 := ip[6], ip[40:40+payload]
	if proto == 0 { // Hop-by-hop options, as MLD has: the L4 header comes after.
		proto, l4 = l4[0], l4[8+int(l4[1])*8:]
	}
	return s.checkL4(h, proto, len(ip)+etherLen-len(l4), pseudo(proto, len(l4), ip[8:40]), l4)
}

// pseudo sums the pseudo-header of RFC 9293 section 3.1 and RFC 8200 section
// 8.1: in ones' complement, both are the same sum.
func pseudo(proto byte, length int, addresses []byte) uint32 {
	return uint32(sum(uint32(proto)+uint32(length), addresses))
}

func (s *sniffer) checkL4(h vnet, proto byte, at int, pseudo uint32, l4 []byte) error {
	var name string
	var field int
	switch proto {
	case 6:
		name, field = "TCP", 16
	case 17:
		name, field = "UDP", 6
		if binary.BigEndian.Uint16(l4[6:]) == 0 {
			return errors.New("UDP without checksum, though one was sent")
		}
	case 58:
		name, field = "ICMPv6", 2
	case 1:
		name, field, pseudo = "ICMP", 2, 0
	default:
		return nil
	}
	if h.gso != 0 {
		s.super.Add(1)
		if longest := at - etherLen + headerOf(proto, l4) + h.size; longest > s.mtu {
			return fmt.Errorf("%s in segments of %d bytes of L3, the MTU is %d", name, longest, s.mtu)
		}
	}
	if !h.partial {
		if sum(pseudo, l4) != 0xffff {
			return fmt.Errorf("%s checksum wrong", name)
		}
		return nil
	}
	s.partial.Add(1)
	if h.start != at || h.through != field {
		return fmt.Errorf("%s partial checksum from %d at %d, must be from %d at %d", name, h.start, h.through, at, field)
	}
	if got := binary.BigEndian.Uint16(l4[field:]); uint32(got) != pseudo {
		return fmt.Errorf("%s partial checksum is %#x, the pseudo-header's sum is %#x", name, got, pseudo)
	}
	return nil
}

// headerOf returns the length of an L4 header.
func headerOf(proto byte, l4 []byte) int {
	if proto == 6 {
		return int(l4[12]>>4) * 4
	}
	return 8
}

// sum is the ones' complement sum of RFC 1071, not inverted.
func sum(acc uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		acc += word
		acc = acc&0xffff + acc>>16
	}
	acc = acc&0xffff + acc>>16
	return uint16(acc)
}
