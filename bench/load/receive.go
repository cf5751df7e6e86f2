package load

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The receiver's ring: 64 blocks of 256 KB, about 100,000 small frames or 0.1 s
// at a million a second. A block goes to the reader when it is full or 5 ms
// old.
const (
	blockSize    = 256 << 10
	blockCount   = 64
	blockTimeout = 5 // ms
	ringSize     = blockSize * blockCount
)

// Receiver takes in the frames of one run.
type Receiver struct {
	fd      int
	arp     *responder // Nil unless the frames are routed.
	ring    []byte
	checker *Checker
	first   int64 // Kernel's time of the first frame delivered, ns; 0 if none.
	last    int64
}

// OpenReceiver opens a ring on an interface of the calling thread's namespace
// and announces the frames' destination by a broadcast, from which the path
// learns the way to it. To one that routes, Run answers when it asks for DstIP.
func OpenReceiver(ifname string, f Frames) (*Receiver, error) {
	checker, err := NewChecker(f)
	if err != nil {
		return nil, err
	}
	fd, err := openSocket(ifname, unix.ETH_P_IP)
	if err != nil {
		return nil, err
	}
	r := &Receiver{fd: fd, checker: checker}
	if err := r.mapRing(); err != nil {
		return nil, errors.Join(fmt.Errorf("receiving on %s: %w", ifname, err), r.Close())
	}
	if err := r.announce(f); err != nil {
		return nil, errors.Join(fmt.Errorf("announcing on %s: %w", ifname, err), r.Close())
	}
	if f.Routed {
		if r.arp, err = openResponder(ifname, f.DstIP, f.Dst); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

func (r *Receiver) mapRing() error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("TPACKET_V3: %w", err)
	}
	req := &unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blockCount,
		Frame_size: 2048, Frame_nr: ringSize / 2048,
		Retire_blk_tov: blockTimeout,
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, req); err != nil {
		return fmt.Errorf("PACKET_RX_RING: %w", err)
	}
	ring, err := unix.Mmap(r.fd, 0, ringSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the ring: %w", err)
	}
	r.ring = ring
	return nil
}

// announce broadcasts an empty frame of the local experimental Ethernet type
// (IEEE 802, 88-B5) from the destination of the run.
func (r *Receiver) announce(f Frames) error {
	frame := make([]byte, MinSize)
	copy(frame, "\xff\xff\xff\xff\xff\xff")
	copy(frame[6:], f.Dst)
	frame[12], frame[13] = 0x88, 0xb5
	return unix.Send(r.fd, frame, 0)
}

// Run takes in frames until none has come for idle after the first, or until
// the context ends.
func (r *Receiver) Run(ctx context.Context, idle time.Duration) (Received, error) {
	const pollMillis = 20
	lastSeen := time.Time{}
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
	if r.arp != nil {
		fds = append(fds, unix.PollFd{Fd: int32(r.arp.fd), Events: unix.POLLIN})
	}
	for block := 0; ctx.Err() == nil; {
		if r.arp != nil {
			if err := r.arp.answer(); err != nil {
				return Received{}, err
			}
		}
		before := r.checker.received.Delivered
		if r.drain(block) {
			block = (block + 1) % blockCount
			if r.checker.received.Delivered != before {
				lastSeen = time.Now()
			}
			continue
		}
		if !lastSeen.IsZero() && time.Since(lastSeen) > idle {
			break
		}
		if _, err := unix.Poll(fds, pollMillis); err != nil && !errors.Is(err, unix.EINTR) {
			return Received{}, fmt.Errorf("waiting for frames: %w", err)
		}
	}
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return Received{}, fmt.Errorf("PACKET_STATISTICS: %w", err)
	}
	received := r.checker.Received()
	received.RingDropped = uint64(stats.Drops)
	received.Seconds = float64(r.last-r.first) / 1e9
	return received, nil
}

// drain checks the frames of a block and gives it back to the kernel. It
// returns false if the kernel still fills it.
func (r *Receiver) drain(block int) bool {
	b := r.ring[block*blockSize : (block+1)*blockSize]
	// struct tpacket_block_desc: version, offset_to_priv, then tpacket_hdr_v1.
	header := (*unix.TpacketHdrV1)(unsafe.Pointer(&b[8]))
	if atomic.LoadUint32(&header.Block_status)&unix.TP_STATUS_USER == 0 {
		return false
	}
	off := int(header.Offset_to_first_pkt)
	for range header.Num_pkts {
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[off]))
		start := off + int(h.Mac)
		if r.checker.Check(b[start : start+int(h.Snaplen)]) {
			r.last = int64(h.Sec)*1e9 + int64(h.Nsec)
			if r.first == 0 {
				r.first = r.last
			}
		}
		off += int(h.Next_offset)
	}
	atomic.StoreUint32(&header.Block_status, unix.TP_STATUS_KERNEL)
	return true
}

// Close gives back the ring and the socket.
func (r *Receiver) Close() error {
	var errs []error
	if r.ring != nil {
		errs = append(errs, unix.Munmap(r.ring))
		r.ring = nil
	}
	errs = append(errs, unix.Close(r.fd))
	if r.arp != nil {
		errs = append(errs, unix.Close(r.arp.fd))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the receiver: %w", err)
	}
	return nil
}
