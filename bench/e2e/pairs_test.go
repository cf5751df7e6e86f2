package e2e

import (
	"fmt"
	"testing"
)

// Traffic between every pair of kinds of port, both ways, with the stations'
// offloads on and off:
//
//	container tap1 ─── tap ───┐     ┌─── tap ─── container tap2
//	container veth3 ── veth ──┤     ├── veth ─── container veth4
//	container packet5  packet ┤ swd ├ packet ─── container packet6
//	host, heddle7 ──── tap ───┘     │
//
// Two host ports would be in one namespace, whose stack takes the short way.
func TestPairs(t *testing.T) {
	w := newWorld(t)
	var stations []*station
	for _, kind := range []string{onTAP, onTAP, onVeth, onVeth, onPacket, onPacket, onHost} {
		stations = append(stations, w.add(kind))
	}
	tested := map[string]bool{}
	for i, a := range stations {
		for _, b := range stations[i+1:] {
			if pair := a.kind + " and " + b.kind; !tested[pair] {
				tested[pair] = true
				t.Run(pair, func(t *testing.T) { w.within(t).pair(a, b) })
			}
		}
	}
	if len(tested) != 9 {
		t.Errorf("tested %d pairs, there are 9", len(tested))
	}
	for _, s := range stations {
		p := w.port(s)
		for _, reason := range []string{"rx-bad-offload", "rx-truncated", "tx-refused", "tx-offload", "exceeds-mtu"} {
			if n := p.Drops[reason]; n > 0 {
				t.Errorf("port %s: %d frames dropped, %s", s.name, n, reason)
			}
		}
	}
}

// within returns the world for a subtest, which fails in its own name.
func (w *world) within(t *testing.T) *world {
	inner, l := *w, *w.T
	l.TB = t
	inner.T = &l
	return &inner
}

// pair tests all traffic between two stations.
func (w *world) pair(a, b *station) {
	w.reach(a, b.ip4)
	w.reach(a, b.ip6)
	for _, offloads := range [][2]bool{{true, true}, {false, false}, {true, false}, {false, true}} {
		w.NoError(a.ns.SetOffloads(w.Context(), a.ifname, offloads[0]))
		w.NoError(b.ns.SetOffloads(w.Context(), b.ifname, offloads[1]))
		what := fmt.Sprintf("offloads %v and %v", offloads[0], offloads[1])
		w.direction(a, b, what)
		w.direction(b, a, what)
		if offloads[0] == offloads[1] {
			for _, address := range []string{b.ip4, b.ip6} {
				w.tcp(a, b, address, bulky)
			}
			w.tcp(b, a, a.ip4, bulky)
		}
	}
	w.NoError(a.ns.SetOffloads(w.Context(), a.ifname, true))
	w.NoError(b.ns.SetOffloads(w.Context(), b.ifname, true))
}

const (
	mtu   = 1500
	some  = 2 << 20  // Bytes, while every frame is looked at.
	bulky = 24 << 20 // Bytes, at full speed.
)

// direction sends from one station to the other.
func (w *world) direction(from, to *station, what string) {
	w.Helper()
	sniffer := w.sniff(to, mtu)
	for _, address := range []string{to.ip4, to.ip6} {
		w.tcp(from, to, address, some)
		w.udp(from, to, address, mtu)
	}
	if err := sniffer.stop(); err != nil {
		w.Errorf("%s to %s, %s: %v", from.name, to.name, what, err)
	}
	frames, partial, super := sniffer.frames.Load(), sniffer.partial.Load(), sniffer.super.Load()
	if n := sniffer.bytes.Load(); n < 2*some {
		w.Errorf("%s to %s, %s: only %d bytes were looked at", from.name, to.name, what, n)
	}
	w.Logf("%s to %s, %s: %d frames looked at, %d with partial checksums, %d GSO", from.name, to.name, what, frames, partial, super)
}

// A veth end that can't segment or complete checksums has the kernel do it,
// from what swd says of the frame: nothing unfinished reaches the container.
//
//	container tap1 ─── tap ── swd ── packet on pk-packet2, offloads off ─── container packet2
func TestEgressWithoutOffloads(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(onTAP), w.add(onPacket)
	w.reach(a, b.ip4)
	w.reach(a, b.ip6)
	w.NoError(w.host.SetOffloads(t.Context(), b.hostEnd(), false))
	sniffer := w.sniff(b, mtu)
	for _, address := range []string{b.ip4, b.ip6} {
		w.tcp(a, b, address, some)
		w.udp(a, b, address, mtu)
	}
	if err := sniffer.stop(); err != nil {
		t.Error(err)
	}
	if n := sniffer.frames.Load(); n < int64(2*some/mtu) {
		t.Errorf("only %d frames were looked at", n)
	}
	if n := sniffer.partial.Load() + sniffer.super.Load(); n > 0 {
		t.Errorf("%d frames came unfinished", n)
	}
}
