package e2e

import (
	"fmt"
	"testing"
	"time"
)

const (
	broadcast = "ff:ff:ff:ff:ff:ff"
	roamer    = "02:00:00:00:00:aa" // A station that lives only in frames.
)

// What the switch learns, seen by swctl and by who gets which frame:
//
//	container tap1 ── swd ── container veth2
//	                   └──── container packet3
func TestLearning(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.add(onTAP), w.add(onVeth), w.add(onPacket)
	atA, atB, atC := w.openRaw(a), w.openRaw(b), w.openRaw(c)

	// An unknown destination gets to all but the sender.
	w.NoError(atA.send(etherFrame(roamer, w.mac(a), "unknown")))
	w.arrives(atB, "unknown")
	w.arrives(atC, "unknown")

	// Once it has sent, to it alone.
	w.NoError(atB.send(etherFrame(broadcast, roamer, "here I am")))
	w.arrives(atA, "here I am")
	w.behind(roamer, b)
	w.NoError(atA.send(etherFrame(roamer, w.mac(a), "known")))
	w.arrives(atB, "known")
	w.keepsOut(atC, "known")

	// A move takes effect with the next frame.
	w.NoError(atC.send(etherFrame(broadcast, roamer, "I moved")))
	w.arrives(atA, "I moved")
	w.behind(roamer, c)
	w.NoError(atA.send(etherFrame(roamer, w.mac(a), "moved")))
	w.arrives(atC, "moved")
	w.keepsOut(atB, "moved")

	// A static one doesn't move.
	const fixed = "02:00:00:00:00:bb"
	w.ctl("fdb", "add", fixed, "--network", network, "--port", b.name)
	w.NoError(atC.send(etherFrame(broadcast, fixed, "not from here")))
	w.NoError(atC.send(etherFrame(broadcast, w.mac(c), "after it")))
	w.arrives(atA, "after it")
	if e := w.fdb(network)[fixed]; e.Port != b.name || !e.Static {
		t.Errorf("the static entry is %+v", e)
	}
	w.ctl("fdb", "rm", fixed, "--network", network)
	if _, known := w.fdb(network)[fixed]; known {
		t.Error("the static entry is there after rm")
	}
	w.ctl("fdb", "flush", "--network", network)
}

// A silent MAC is forgotten after the network's time, one that sends and a
// static one are not.
func TestAgeing(t *testing.T) {
	const quick, fixed = "quick", "02:00:00:00:00:bb"
	w := newWorld(t)
	w.addNetwork(quick, "--ageing", "3s")
	a, b := w.addOn(quick, onTAP), w.addOn(quick, onVeth)
	atA := w.openRaw(a)
	w.ctl("fdb", "add", fixed, "--network", quick, "--port", b.name)
	// One that hasn't been seen yet isn't there either.
	w.Eventually(patience, "a MAC is learnt", func() error {
		if err := atA.send(etherFrame(broadcast, roamer, "here I am")); err != nil {
			return err
		}
		if e := w.fdb(quick)[roamer]; e.Port != a.name {
			return fmt.Errorf("the FDB has %+v", e)
		}
		return nil
	})
	w.Eventually(patience, "a silent MAC aged out", func() error {
		if err := atA.send(etherFrame(broadcast, w.mac(a), "still here")); err != nil {
			return err
		}
		entries := w.fdb(quick)
		if _, known := entries[roamer]; known {
			return errNotYet
		}
		if e := entries[w.mac(a)]; e.Port != a.name {
			return fmt.Errorf("who sends is %+v", e)
		}
		return nil
	})
	if e := w.fdb(quick)[fixed]; e.Port != b.name || !e.Static {
		t.Errorf("the static entry is %+v", e)
	}
}

// arrives waits for a frame with the text.
func (w *world) arrives(at *raw, text string) {
	w.Helper()
	if _, _, err := at.await(patience, carries(text)); err != nil {
		w.Errorf("frame %q: %v", text, err)
	}
}

// keepsOut fails the test if a frame with the text comes. What was sent before
// has been seen elsewhere, so it needs no long wait.
func (w *world) keepsOut(at *raw, text string) {
	w.Helper()
	if _, _, err := at.await(100*time.Millisecond, carries(text)); err == nil {
		w.Errorf("frame %q came to a station it isn't for", text)
	}
}

// behind waits until the FDB has a MAC behind a station's port, and before
// each look does what may lead to it.
func (w *world) behind(mac string, s *station, before ...func()) {
	w.Helper()
	w.Eventually(patience, mac+" behind "+s.name, func() error {
		for _, f := range before {
			f()
		}
		if e := w.fdb(network)[mac]; e.Port != s.name {
			return fmt.Errorf("the FDB has %+v", e)
		}
		return nil
	})
}

// A container that takes over another's MAC and address is reached at once:
// what a failover does.
//
//	container tap1 ── swd ── container veth2, then container tap3 with its address
func TestStationMoves(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.add(onTAP), w.add(onVeth), w.add(onTAP)
	w.reach(a, b.ip4)
	mac := w.hardware(b)
	w.NoError(b.ns.SetUp(b.ifname, false))
	w.NoError(c.ns.SetMAC(c.ifname, mac))
	w.NoError(c.ns.AddAddress(c.ifname, b.ip4+"/24"))
	w.reach(c, a.ip4)
	w.behind(mac.String(), c)
	w.reach(a, b.ip4)
	w.tcp(a, c, b.ip4, some)
}

// Two ports that send with one MAC: it is held down, and nobody else suffers.
//
//	container tap1 and veth2 send as the roamer; container packet3 ── swd ── container tap4
func TestFlapping(t *testing.T) {
	w := newWorld(t)
	a, b, c, d := w.add(onTAP), w.add(onVeth), w.add(onPacket), w.add(onTAP)
	atA, atB, atC := w.openRaw(a), w.openRaw(b), w.openRaw(c)
	w.reach(c, d.ip4)
	// Six moves within a second are too many; how many come within one is the
	// machine's. swctl takes its time, and is asked only where a frame is missing.
	held := false
	for i := 0; i < 200 && !held; i++ {
		out := []*raw{atA, atB}[i%2]
		text := fmt.Sprintf("flap %03d", i)
		w.NoError(out.send(etherFrame(broadcast, roamer, text)))
		// Each is carried, or refused, before the next is sent.
		w.Eventually(patience, text, func() error {
			if _, _, err := atC.await(25*time.Millisecond, carries(text)); err == nil {
				return nil
			}
			if held = w.dropped("mac-flapping") > 0; !held {
				return errNotYet
			}
			return nil
		})
	}
	if !held {
		t.Error("200 moves in a row were all accepted")
	}
	w.reach(c, d.ip4)
	w.reach(d, c.ip6)
	w.Eventually(patience, "the MAC is accepted again once it keeps still", func() error {
		if err := atA.send(etherFrame(broadcast, roamer, "calm")); err != nil {
			return err
		}
		_, _, err := atC.await(100*time.Millisecond, carries("calm"))
		return err
	})
	w.behind(roamer, a)
}

// Addresses that 802.1D reserves stay on their link; other groups are flooded.
// Malformed sources are dropped.
func TestAddresses(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(onTAP), w.add(onVeth)
	w.reach(a, b.ip4)
	in, out := w.openRaw(b), w.openRaw(a)
	from := w.mac(a)
	for _, c := range []struct{ text, dst, src, reason string }{
		{"STP", "01:80:c2:00:00:00", from, "reserved-mac"},
		{"LLDP", "01:80:c2:00:00:0e", from, "reserved-mac"},
		{"last reserved", "01:80:c2:00:00:0f", from, "reserved-mac"},
		{"from nobody", broadcast, "00:00:00:00:00:00", "src-zero"},
		{"from a group", broadcast, "01:00:5e:00:00:01", "src-multicast"},
		{"from all", broadcast, broadcast, "src-multicast"},
		{"to itself", from, from, "src-is-dst"},
	} {
		before := w.dropped(c.reason)
		w.NoError(out.send(etherFrame(c.dst, c.src, c.text)))
		w.Eventually(patience, c.text+" counted as "+c.reason, func() error {
			if w.dropped(c.reason) == before {
				return errNotYet
			}
			return nil
		})
		w.keepsOut(in, c.text)
	}
	for _, dst := range []string{"01:80:c2:00:00:10", "01:00:5e:00:00:fb", "33:33:00:00:00:01"} {
		w.NoError(out.send(etherFrame(dst, from, "to "+dst)))
		w.arrives(in, "to "+dst)
	}
}

// Networks are apart, also with the same addresses, and the ports of an
// isolated one are apart from each other.
//
//	container tap1 ── network net ─── swd ── network red ── container tap2, veth3
//	                                   └──── network lone, isolated ── container tap4, veth5
func TestIsolation(t *testing.T) {
	w := newWorld(t)
	w.addNetwork("red")
	w.addNetwork("lone", "--isolated")
	a := w.add(onTAP)
	r1, r2 := w.addOn("red", onTAP), w.addOn("red", onVeth)
	l1, l2 := w.addOn("lone", onTAP), w.addOn("lone", onVeth)
	w.reach(r1, r2.ip4)
	atR2, atL2 := w.openRaw(r2), w.openRaw(l2)
	w.noReach(a, r1.ip4)
	w.noReach(r1, a.ip4)
	w.noReach(l1, l2.ip4)
	w.noReach(l1, r1.ip6)
	w.awaitDropped("isolated", 1, 0)
	// Not by broadcast, by a known address, or in a tag either.
	out, outL := w.openRaw(a), w.openRaw(l1)
	for _, dst := range []string{broadcast, w.mac(r2), "33:33:00:00:00:01"} {
		w.NoError(out.send(etherFrame(dst, w.mac(a), "from net")))
		w.NoError(outL.send(etherFrame(dst, w.mac(l1), "from lone")))
	}
	w.NoError(outL.send(etherFrame(w.mac(l2), w.mac(l1), "from lone")))
	w.keepsOut(atR2, "from")
	w.keepsOut(atL2, "from")
	if e := w.fdb("red"); len(e) < 2 || e[w.mac(a)].Port != "" {
		t.Errorf("network red knows %v", e)
	}
}
