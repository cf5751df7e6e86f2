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
	for _, on := range []bool{true, false} {
		for _, s := range []*station{a, b} {
			w.NoError(s.ns.SetOffloads(w.Context(), s.ifname, on))
		}
		for _, way := range [][2]*station{{a, b}, {b, a}} {
			w.direction(way[0], way[1], fmt.Sprintf("offloads %v", on))
		}
	}
	for _, s := range []*station{a, b} {
		w.NoError(s.ns.SetOffloads(w.Context(), s.ifname, true))
	}
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
	if frames < 50 {
		w.Errorf("%s to %s, %s: only %d frames were looked at", from.name, to.name, what, frames)
	}
	w.Logf("%s to %s, %s: %d frames looked at, %d with partial checksums, %d GSO", from.name, to.name, what, frames, partial, super)
	for _, address := range []string{to.ip4, to.ip6} {
		w.tcp(from, to, address, bulky)
	}
}
