package e2e

import (
	"testing"
	"time"

	"heddle/bench/lab"
)

// A gigabyte goes from host to host, each byte of which is held against what was
// sent, to a node and to the kernel's vxlan device.
//
//	station tap11 ── swd, host1 ─┐
//	station tap21 ── swd, host2 ─┤ wire
//	station kernel31 ──── host3 ─┘ vx0 in br0
func TestTunnelGigabyte(t *testing.T) {
	c := newCluster(t)
	one, two := c.node(1), c.node(2)
	k := c.kernelHost(3, v4(1), v4(2))
	one.peer("host2", v4(2))
	one.peer("host3", v4(3))
	two.peer("host1", v4(1))
	a := one.add(onTAP)
	for _, far := range []*station{two.add(onTAP), k.add()} {
		one.reach(a, far.ip4)
		began := time.Now()
		one.tcp(a, far, far.ip4, 1<<30)
		t.Logf("to %s: %.2f Gb/s", far.name, gbits(1<<30)/time.Since(began).Seconds())
	}
}

// One datagram of ten is lost each way, of those with many segments too: what is
// sent arrives, slowly.
//
//	station tap11 ── swd, host1 ── wire ── host2, swd ── station tap21
func TestTunnelLoss(t *testing.T) {
	c := newCluster(t)
	one, two := c.node(1), c.node(2)
	one.peer("host2", v4(2))
	two.peer("host1", v4(1))
	a, b := one.add(onTAP), two.add(onTAP)
	one.reach(a, b.ip4)
	c.offloads(false, map[*lab.NetNS]string{one.host: "u0", two.host: "u0"})
	for _, n := range c.nodes {
		c.nft(n.host, `table inet lossy {
			counter came { }
			counter lost { }
			chain in {
				type filter hook input priority 0
				udp dport 4789 counter name came
				udp dport 4789 numgen random mod 10 0 counter name lost drop
			}
		}`)
	}
	one.tcp(a, b, b.ip4, some)
	one.tcp(b, a, a.ip6, some)
	for _, n := range c.nodes {
		came, lost := c.counted(n.host, "came"), c.counted(n.host, "lost")
		t.Logf("%s lost %d datagrams of %d", n.name(), lost, came)
		if share := float64(lost) / float64(came); came < some/mtu || share < 0.05 || share > 0.2 {
			t.Errorf("%s lost %d datagrams of %d", n.name(), lost, came)
		}
	}
}
