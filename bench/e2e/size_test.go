package e2e

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// Frames up to the MTU pass, whatever it is, and longer ones are dropped and
// counted.
//
//	container tap1 ────┐     ┌──── heddle4, host
//	container veth2 ───┤ swd ┤
//	container packet3 ─┘     └──── (MTU 1,500, then 9,000)
func TestMTU(t *testing.T) {
	for _, c := range []struct {
		name    string
		mtu     int
		network []string
	}{
		{"1500", 1500, nil},
		{"9000", 9000, []string{"--mtu", "9000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.network...)
			w.packetMTU = c.mtu
			stations := []*station{w.add(onTAP), w.add(onVeth), w.add(onPacket), w.add(onHost)}
			for i, a := range stations {
				b := stations[(i+1)%len(stations)]
				w.reach(a, b.ip4)
				w.reach(a, b.ip6)
				w.reach(a, b.ip4, "-M", "do", "-s", itoa(c.mtu-28))
				w.reach(a, b.ip6, "-M", "do", "-s", itoa(c.mtu-48))
				if w.tryPing(a, b.ip4, "-M", "do", "-s", itoa(c.mtu-27)) == nil {
					t.Errorf("%s sends more than its MTU", a.name)
				}
				sniffer := w.sniff(b, c.mtu)
				w.tcp(a, b, b.ip4, some)
				w.udp(a, b, b.ip6, c.mtu)
				if err := sniffer.stop(); err != nil {
					t.Errorf("%s to %s: %v", a.name, b.name, err)
				}
				if n := w.port(a).MTU; n != c.mtu {
					t.Errorf("port %s has MTU %d", a.name, n)
				}
			}
		})
	}
}

// A container that raises its own MTU gets no longer frames through, and none
// in segments that are too long.
//
//	container tap1, MTU 9,000 ── swd, network with MTU 1,500 ── container veth2
func TestLongerThanEgress(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(onTAP), w.add(onVeth)
	w.reach(a, b.ip4)
	w.NoError(a.ns.SetMTU(a.ifname, 9000))
	before := w.dropped("exceeds-mtu")
	if w.tryPing(a, b.ip4, "-M", "do", "-s", "1473") == nil {
		t.Error("1,501 bytes of L3 passed")
	}
	w.awaitDropped("exceeds-mtu", 1, before)
	w.reach(a, b.ip4, "-M", "do", "-s", "1472")

	before = w.dropped("exceeds-mtu")
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, ACK: true, Window: 1024, DataOffset: 5}
	at, frame := partially(w.taggedFrame(a, b, tags["802.1Q"], tcp, make([]byte, 9000)), 16)
	in, out := w.openRaw(b), w.openRaw(a)
	w.NoError(out.sendOwing(owing(1, at+20, 3000, at, 16), frame))
	w.Eventually(patience, "segments of 3,000 bytes dropped and counted", func() error {
		if w.dropped("exceeds-mtu") == before {
			return errNotYet
		}
		return nil
	})
	if _, f, err := in.await(100*time.Millisecond, func(f []byte) bool { return bytes.Equal(f[:12], frame[:12]) && len(f) > 1000 }); err == nil {
		t.Errorf("a frame of %d bytes came", len(f))
	}
}

// Frames that a container may send but no stack would are dropped and counted,
// or carried; the other stations don't notice.
//
//	container tap1, veth2, packet3: random frames ──┐
//	container tap4 ──────── ping ─────────────────── swd ── container veth5
func TestHostileFrames(t *testing.T) {
	w := newWorld(t)
	attackers := []*station{w.add(onTAP), w.add(onVeth), w.add(onPacket)}
	a, b := w.add(onTAP), w.add(onVeth)
	w.reach(a, b.ip4)
	pid := w.swd.Process().PID()
	rng := newRandom(1)
	victim, bystander := w.hardware(b), net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, attacker := range attackers {
		out := w.openRaw(attacker)
		for i := range 3000 {
			frame := make([]byte, etherLen+rng.IntN(1500))
			rng.fill(frame)
			switch i % 4 { // Some get further than the switch's first look.
			case 0:
				copy(frame, victim)
				copy(frame[6:], bystander)
			case 1:
				copy(frame, victim)
				copy(frame[6:], bystander)
				copy(frame[12:], []byte{0x08, 0x00, 0x45})
			case 2:
				copy(frame, victim)
				copy(frame[6:], bystander)
				copy(frame[12:], []byte{0x81, 0x00})
			}
			header := append([]byte(nil), owesNothing...)
			if i%2 == 0 {
				rng.fill(header)
				header[0], header[1] = header[0]&1, []byte{0, 1, 4, 5, 0x81, 3}[rng.IntN(6)]
			}
			_ = out.sendOwing(header, frame) // The kernel itself refuses many.
		}
		w.reach(a, b.ip4)
	}
	w.awaitDropped("src-multicast", 1, 0)
	w.tcp(a, b, b.ip4, some)
	if now := w.swd.Process().PID(); now != pid {
		t.Errorf("swd was %d and is %d", pid, now)
	}
	w.ctl("status")
	for _, s := range append(attackers, a, b) {
		if p := w.port(s); p.State != "up" {
			t.Errorf("port %s is %s: %s", s.name, p.State, p.Reason)
		}
	}
}
