package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"heddle/ctl/api"
)

// A port whose device goes away says so and comes back by itself, while others
// go on:
//
//	container tap1 ────┐     ┌──── container packet3
//	container veth2 ───┤ swd ┤
//	container tap4 ────┘     └──── container tap5, which only look on
func TestDeviceGoesAway(t *testing.T) {
	w := newWorld(t)
	stations := []*station{w.add(onTAP), w.add(onVeth), w.add(onPacket)}
	x, y := w.add(onTAP), w.add(onTAP)
	for _, s := range stations {
		t.Run(s.kind, func(t *testing.T) {
			w := w.within(t)
			w.reach(s, x.ip4)
			mac, old := w.mac(s), w.index(s)
			w.NoError(s.ns.DeleteLink(s.ifname))
			w.tcp(x, y, y.ip4, some)
			if s.kind == onPacket {
				w.awaitState(s, api.StateDown)
				w.forgets(mac)
				w.NoError(w.Lab.Veth(w.host, s.hostEnd(), s.ns, s.ifname))
				w.NoError(s.ns.AddAddress(s.ifname, s.ip4+"/24", s.ip6+"/64"))
			}
			w.awaitState(s, api.StateUp)
			w.reach(s, x.ip4)
			w.reach(x, s.ip6)
			if got := w.mac(s); s.kind != onPacket && got != mac {
				t.Errorf("the MAC was %s and is %s", mac, got)
			}
			if w.index(s) == old {
				t.Error("it is the same interface as before: none was deleted")
			}
			w.tcp(s, x, x.ip4, some)
		})
	}
	for _, s := range []*station{x, y} {
		if n := w.port(s).Drops["tx-down"]; n > 0 {
			t.Errorf("port %s: %d frames dropped because others were down", s.name, n)
		}
	}
}

// A frame that struct virtio_net_hdr has no words for, such as a virtual machine's
// UFO, may stop the packet socket that it comes to for good (packet.ErrStuck). The
// port is opened anew.
//
//	virtual machine ── its TAP, port vm ── swd ── container tap1
func TestFrameWithoutWords(t *testing.T) {
	w := newWorld(t)
	s := w.add(onTAP)
	at := w.openRaw(s)
	vm, err := w.host.TAP("vm0")
	w.NoError(err)
	w.Cleanup(func() { w.NoError(unix.Close(vm)) })
	w.NoError(w.host.SetUp("vm0", true))
	write := func(header, frame []byte) {
		_, err := unix.Writev(vm, [][]byte{header, frame})
		w.NoError(err)
	}
	n := 0
	passes := func() error {
		n++
		text := fmt.Sprint("frame ", n)
		write(owesNothing, etherFrame(broadcast, roamer, text))
		_, _, err := at.await(200*time.Millisecond, carries(text))
		return err
	}
	w.ctl("port", "add", "vm", "--network", network, "--kind", "packet", "--interface", "vm0")
	w.Eventually(patience, "a frame of the machine's", passes)
	const needsCsum, ufo = 1, 3 // linux/virtio_net.h
	header := []byte{needsCsum, ufo, 42, 0, 0xe8, 3, 34, 0, 6, 0}
	write(header, w.build(
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}, DstMAC: w.hardware(s), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(198, 18, 0, 1), DstIP: net.IPv4(198, 18, 0, 2)},
		&layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload(make([]byte, 8000))))
	w.Eventually(patience, "frames of the machine's again", passes)
}

// forgets waits until the FDB doesn't have a MAC any more.
func (w *world) forgets(mac string) {
	w.Helper()
	w.Eventually(patience, mac+" forgotten", func() error {
		if e, known := w.fdb(network)[mac]; known {
			return fmt.Errorf("the FDB knows %+v", e)
		}
		return nil
	})
}

// index returns the number of a station's interface.
func (w *world) index(s *station) int {
	w.Helper()
	link, err := s.ns.Link(s.ifname)
	w.NoError(err)
	return link.Attrs().Index
}

// An interface that a container sets down and up again carries on.
func TestInterfaceDownAndUp(t *testing.T) {
	w := newWorld(t)
	stations := []*station{w.add(onTAP), w.add(onVeth), w.add(onPacket)}
	other := w.add(onTAP)
	for _, s := range stations {
		w.reach(other, s.ip4)
		w.NoError(s.ns.SetUp(s.ifname, false))
		w.noReach(other, s.ip4)
		w.NoError(s.ns.SetUp(s.ifname, true))
		w.reach(other, s.ip4)
	}
	w.tcp(stations[0], stations[1], stations[1].ip4, some)
}

// A container that ends takes its port down, with the reason; the port can be
// removed, and its name used again.
func TestContainerEnds(t *testing.T) {
	w := newWorld(t)
	other := w.add(onTAP)
	for _, kind := range []string{onTAP, onVeth} {
		s := w.add(kind)
		w.reach(other, s.ip4)
		mac := w.mac(s)
		w.NoError(s.ns.Remove())
		w.awaitState(s, api.StateDown)
		w.forgets(mac)
		w.ctl("port", "rm", s.name)
		w.ctl("port", "add", s.name, "--network", network, "--kind", "tap", "--ifname", "again"+kind)
		w.ctl("port", "rm", s.name)
		if w.host.HasLink("again" + kind) {
			t.Errorf("%s is left after port rm", "again"+kind)
		}
	}
	w.ctl("status")
}

// Restarts, by SIGTERM and as after a crash, in the middle of transfers: the
// next swd takes over the ports, and the connections complete.
//
//	container tap1 ────┐     ┌──── container veth2
//	container packet3 ─┘ swd └──── heddle4, host
func TestRestartKeepsConnections(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *world) error
	}{
		{"SIGTERM", func(w *world) error { return w.swd.Stop() }},
		{"SIGKILL", func(w *world) error { w.swd.Kill(); return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			tap, veth, packet, host := w.add(onTAP), w.add(onVeth), w.add(onPacket), w.add(onHost)
			stations := []*station{tap, veth, packet, host}
			var macs []string
			for i, s := range stations {
				w.reach(s, stations[(i+1)%4].ip4)
				macs = append(macs, w.mac(s))
			}
			w.ctl("fdb", "add", "02:00:00:00:00:cc", "--network", network, "--port", tap.name)
			var transfers []*stream
			for _, way := range [][2]*station{{tap, veth}, {packet, host}, {veth, packet}} {
				s, err := w.start(way[0], way[1], way[1].ip4, 4*some)
				w.NoError(err)
				<-s.half
				transfers = append(transfers, s)
			}
			w.NoError(c.end(w))
			w.noReach(tap, veth.ip4)
			w.NoError(w.swd.Start(t.Context()))
			for i, s := range stations {
				w.awaitState(s, api.StateUp)
				if mac := w.mac(s); mac != macs[i] {
					t.Errorf("the MAC of %s was %s and is %s", s.name, macs[i], mac)
				}
			}
			var errs []error
			for _, s := range transfers {
				errs = append(errs, s.finish())
			}
			w.NoError(errors.Join(errs...))
			if e := w.fdb(network)["02:00:00:00:00:cc"]; !e.Static || e.Port != tap.name {
				t.Errorf("the static entry is %+v after the restart", e)
			}
			for i, s := range stations {
				w.reach(s, stations[(i+1)%4].ip6)
			}
		})
	}
}
