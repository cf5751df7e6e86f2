package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Endpoints of the connections that Fill begins: fillHosts addresses with
// fillPorts UDP ports each, which no two of them share, so that a NAT can keep
// them, and as many destinations as it takes.
const (
	fillHosts     = 64
	fillPorts     = 256
	fillFirstPort = 1024
	fillTick      = time.Millisecond
	// FillEndpoints is how many inside endpoints Fill uses at most, and so how
	// many external ports.
	FillEndpoints = fillHosts * fillPorts
	// MaxFill is the most connections that Fill can begin: the last byte of
	// the destinations counts up to 254.
	MaxFill = FillEndpoints * 254
)

// Fill is connections by UDP that a NAT is to track, without answers.
type Fill struct {
	Src, Dst net.HardwareAddr // A container's and the gateway's.
	// SrcIP is the first of 64 addresses of containers, and DstIP that of 254
	// destinations; IPv4, and their last bytes count up.
	SrcIP, DstIP netip.Addr
	Conns        int // 1 to MaxFill.
}

// Send sends one frame for each connection out of an interface of the calling
// thread's namespace, at rate frames a second at most.
func (f Fill) Send(ctx context.Context, ifname string, rate float64) (Sent, error) {
	write, first, err := f.frames()
	if err != nil {
		return Sent{}, err
	}
	fd, err := openSocket(ifname, 0)
	if err != nil {
		return Sent{}, err
	}
	sent, err := f.sendOn(ctx, fd, newSlab(first, write), rate)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return Sent{}, fmt.Errorf("filling by %s: %w", ifname, err)
	}
	return sent, nil
}

func (f Fill) sendOn(ctx context.Context, fd int, s *slab, rate float64) (Sent, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer runtime.KeepAlive(s)
	// What the path was too busy to take isn't made up for in a burst, which it
	// could take still less.
	tick := time.NewTicker(fillTick)
	defer tick.Stop()
	share := max(1, int(rate*fillTick.Seconds()))
	began := time.Now()
	for s.sent < uint64(f.Conns) {
		for left := min(share, f.Conns-int(s.sent)); left > 0; {
			n := min(left, sendBatch)
			if err := s.send(fd, n); err != nil {
				return Sent{}, err
			}
			left -= n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Sent{}, context.Cause(ctx)
		}
	}
	return Sent{Frames: s.sent, Seconds: time.Since(began).Seconds()}, nil
}

// frames returns the first frame, and what makes frame number 0, 1, 2… of any.
func (f Fill) frames() (write func(frame []byte, number uint64), first []byte, err error) {
	if f.Conns < 1 || f.Conns > MaxFill {
		return nil, nil, fmt.Errorf("connections: %d is not 1 to %d", f.Conns, MaxFill)
	}
	templates, err := Frames{Src: f.Src, Dst: f.Dst, SrcIP: f.SrcIP, DstIP: f.DstIP, Flows: 1, Size: MinSize}.templates()
	if err != nil {
		return nil, nil, err
	}
	src, dst := f.SrcIP.As4(), f.DstIP.As4()
	if int(src[3])+fillHosts > 256 || int(dst[3])+(f.Conns-1)/FillEndpoints > 255 {
		return nil, nil, fmt.Errorf("%d connections from %v to %v: the last bytes of the addresses don't count so far", f.Conns, f.SrcIP, f.DstIP)
	}
	const offSrcIP, offDstIP = 14 + 12, 14 + 16
	return func(frame []byte, number uint64) {
		host := number % fillHosts
		port := fillFirstPort + host*fillPorts + number/fillHosts%fillPorts
		frame[offSrcIP+3] = src[3] + byte(host)
		frame[offDstIP+3] = dst[3] + byte(number/FillEndpoints)
		binary.BigEndian.PutUint16(frame[offSrcPort:], uint16(port))
		sumHeader(frame[14 : 14+20])
	}, templates[0], nil
}

// sumHeader writes the checksum of an IPv4 header without options (RFC 1071).
func sumHeader(h []byte) {
	h[10], h[11] = 0, 0
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
}
