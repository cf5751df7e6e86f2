package e2e

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is for all comes to each station of three hosts exactly once, from
// whichever it comes; the MACs are known afterwards, and what is for one goes to
// its host alone.
//
//	station tap11 ── swd, host1 ─┐
//	station tap21 ── swd, host2 ─┤ wire
//	station kernel31 ──── host3 ─┘ vx0 in br0
func TestTunnelFlooding(t *testing.T) {
	c := newCluster(t)
	one, two := c.node(1), c.node(2)
	k := c.kernelHost(3, v4(1), v4(2))
	one.peer("host2", v4(2))
	one.peer("host3", v4(3))
	two.peer("host1", v4(1))
	two.peer("host3", v4(3))
	stations := []*station{one.add(onTAP), two.add(onTAP), k.add()}
	ends := make([]*raw, len(stations))
	for i, s := range stations {
		ends[i] = one.openRaw(s)
	}
	const each = 50
	number := func(from *station, n int) string { return fmt.Sprintf("%s frame %03d.", from.name, n) }
	for i, s := range stations {
		mac := one.mac(s)
		for n := range each {
			c.NoError(ends[i].send(etherFrame("ff:ff:ff:ff:ff:ff", mac, number(s, n))))
		}
		for j, r := range stations {
			if i == j {
				continue
			}
			// In any order: the kernel's queues are one for each CPU, and a sender may
			// change it.
			wanted := map[string]bool{}
			for n := range each {
				wanted[number(s, n)] = true
			}
			_, _, err := ends[j].await(patience, func(frame []byte) bool {
				text, ok := experimentalText(frame)
				if !ok {
					return false
				}
				text, _, _ = strings.Cut(text, "\x00")
				if !wanted[text] {
					t.Errorf("%s got %q, which isn't from %s, or once more", r.name, text, s.name)
				}
				delete(wanted, text)
				return len(wanted) == 0
			})
			if err != nil {
				t.Fatalf("%s lacks %d frames of %d from %s: %v", r.name, len(wanted), each, s.name, err)
			}
		}
	}
	// Everything that was under way has come by the time this is answered.
	for _, s := range stations {
		for _, r := range stations {
			if s != r {
				one.reach(s, r.ip4)
			}
		}
	}
	for i, r := range stations {
		_, frame, err := ends[i].await(100*time.Millisecond, func(frame []byte) bool {
			_, ok := experimentalText(frame)
			return ok
		})
		if err == nil {
			t.Errorf("%s got another copy: %x", r.name, frame)
		}
	}
	for from, to := range map[*node]map[*station]string{
		one: {stations[1]: "host2", stations[2]: "host3"},
		two: {stations[0]: "host1", stations[2]: "host3"},
	} {
		for s, peer := range to {
			if e := from.fdb(network)[one.mac(s)]; e.Port != peer {
				t.Errorf("%s has %+v for %s, want port %s", from.name(), e, s.name, peer)
			}
		}
	}
	c.nft(one.host, fmt.Sprintf(`table inet seen {
		counter elsewhere { }
		chain out {
			type filter hook output priority 0
			ip daddr %s udp dport 4789 @th,128,48 0x%s counter name elsewhere
		}
	}`, v4(3), strings.ReplaceAll(one.mac(stations[1]), ":", "")))
	one.tcp(stations[0], stations[1], stations[1].ip4, some)
	if n := c.counted(one.host, "elsewhere"); n > 0 {
		t.Errorf("%d datagrams of what was for host2 went to host3", n)
	}
}

// experimentalText is the payload of an etherFrame.
func experimentalText(frame []byte) (string, bool) {
	if len(frame) < etherLen || binary.BigEndian.Uint16(frame[12:]) != experimental {
		return "", false
	}
	return string(frame[etherLen:]), true
}
