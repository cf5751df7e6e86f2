package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/load"
)

// Two pairs that have nothing in common, each flooded by its own sender, on one
// worker and on two. On a machine with two cores the senders want as much of
// them as the workers do, so that two can't have twice as much as one; they must
// not have less than one either, for want of something that they share, and each
// pair has its share.
//
//	container: flood ──┐     ┌── container, or the router behind NAT
//	container: flood ──┴ swd ┴── container, or the router behind NAT
func TestWorkersShareTwoPairs(t *testing.T) {
	for _, path := range []struct {
		name  string
		rates func(t *testing.T) (rate, least float64)
	}{{"switch", switchedPairs}, {"NAT", translatedPairs}} {
		t.Run(path.name, func(t *testing.T) {
			// What else runs on the machine may take from one and not from the other,
			// so they are tried again.
			const tries = 6
			var one, two, least float64
			for try := range tries {
				t.Run(fmt.Sprintf("one worker, try %d", try+1), func(t *testing.T) {
					t.Setenv("SWD_WORKERS", "1")
					one, least = path.rates(t)
				})
				t.Run(fmt.Sprintf("two workers, try %d", try+1), func(t *testing.T) {
					t.Setenv("SWD_WORKERS", "2")
					var share float64
					two, share = path.rates(t)
					least = min(least, share)
				})
				t.Logf("%.0f frames/s by one worker, %.0f by two", one, two)
				if t.Failed() || two >= one*2/3 && least >= 0.25 {
					return
				}
			}
			t.Errorf("two workers take %.0f frames/s, one %.0f; one of two pairs had %.0f%% of what was taken", two, one, 100*least)
		})
	}
}

// switchedPairs measures two pairs of containers on a network.
func switchedPairs(t *testing.T) (rate, least float64) {
	t.Helper()
	w := newWorld(t)
	w.favour()
	var from []*station
	var frames [][]byte
	for range 2 {
		s, to := w.add(onTAP), w.add(onTAP)
		w.reach(s, to.ip4)
		from, frames = append(from, s), append(frames, w.udpFlood(s, w.hardware(to)))
	}
	return w.pairs(from, frames)
}

// translatedPairs measures two containers that send by NAT.
func translatedPairs(t *testing.T) (rate, least float64) {
	t.Helper()
	w := newNATWorld(t, own)
	w.favour()
	w.Run(w.router, "ip", "route", "add", "blackhole", nowhere)
	var from []*station
	var frames [][]byte
	for range 2 {
		s := w.container()
		w.reach(s, server4)
		gate := w.neighbour(s.ns, s.ifname, gate4)
		from, frames = append(from, s), append(frames, w.udpFlood(s, gate))
	}
	return w.pairs(from, frames)
}

// udpFlood is a datagram of a container to a MAC that has no use for it, without
// a checksum, as manyFlows needs it.
func (w *world) udpFlood(s *station, to net.HardwareAddr) []byte {
	w.Helper()
	frame := w.build(
		&layers.Ethernet{SrcMAC: w.hardware(s), DstMAC: to, EthernetType: layers.EthernetTypeIPv4},
		w.ip(layers.IPProtocolUDP, s.ip4, "203.0.113.1"),
		&layers.UDP{SrcPort: 40000, DstPort: 9000},
		gopacket.Payload(make([]byte, 18)))
	frame[etherLen+20+6], frame[etherLen+20+7] = 0, 0
	return frame
}

// manyFlows makes frame number n of 64 flows: of one, the kernel would give all
// to one queue, and so to one worker.
func manyFlows(frame []byte, n uint64) {
	binary.BigEndian.PutUint16(frame[etherLen+20:], uint16(40_000+n%64))
}

// pairs floods from two stations at once and returns how many frames a second
// swd took from both, and which share the one had that had less, each at its best:
// in some of several measurements the machine may have given its time to others.
func (w *world) pairs(from []*station, frames [][]byte) (rate, least float64) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	ended := make(chan error, len(from))
	for i, s := range from {
		go func() {
			ended <- s.ns.Do(func() error {
				_, err := load.Flood(ctx, s.ifname, frames[i], manyFlows, drowning)
				return err
			})
		}()
	}
	<-time.After(calm / 4)
	count := func() (sum float64, each [2]float64) {
		for i, s := range from {
			each[i] = float64(w.port(s).RxFrames)
			sum += each[i]
		}
		return sum, each
	}
	for range 5 {
		begun := time.Now()
		sum, each := count()
		<-time.After(calm / 2)
		total, now := count()
		took := time.Since(begun).Seconds()
		share := (now[0] - each[0]) / max(1, total-sum)
		w.Logf("%.0f frames/s, %.0f%% of them from %s", (total-sum)/took, 100*share, from[0].name)
		rate, least = max(rate, (total-sum)/took), max(least, min(share, 1-share))
	}
	cancel()
	for range from {
		w.NoError(<-ended)
	}
	return rate, least
}
