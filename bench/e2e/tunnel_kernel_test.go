package e2e

import (
	"context"
	"fmt"
	"net"
	"testing"

	"heddle/bench/lab"
)

// A node and the kernel's vxlan device are peers: over IPv4 and over IPv6, with
// offloads and without any, small packets and long ones, both ways.
//
//	station tap11 ─┐
//	station veth12 ┤ swd, host1 ── wire ── host2, vx0 in br0 ── station kernel21
func TestTunnelKernelVXLAN(t *testing.T) {
	for _, family := range []struct {
		name    string
		address func(i int) string
	}{{"IPv4", v4}, {"IPv6", v6}} {
		t.Run(family.name, func(t *testing.T) {
			c := newCluster(t)
			h := c.node(1)
			k := c.kernelHost(2, family.address(1))
			h.peer("kernel", family.address(2))
			tap, veth, far := h.add(onTAP), h.add(onVeth), k.add()
			for _, on := range []bool{true, false} {
				t.Run(fmt.Sprintf("offloads=%t", on), func(t *testing.T) {
					c := c.in(t)
					c.offloads(on, map[*lab.NetNS]string{h.host: "u0", k.ns: "u0", tap.ns: "eth0", veth.ns: "eth0", far.ns: "eth0"})
					c.nodes[0].across(k.mtu, tap, far)
					c.nodes[0].across(k.mtu, veth, far)
				})
			}
			if p, err := h.peerState("kernel"); err != nil || p.MTU != mtu || p.RxFrames == 0 || p.TxFrames == 0 {
				t.Errorf("the peer is %+v, %v", p, err)
			}
			if e := h.fdb(network)[h.mac(far)]; e.Port != "kernel" || e.Static {
				t.Errorf("the far station's entry is %+v", e)
			}
		})
	}
}

// across tests traffic between stations on two hosts, with a path between that
// takes mtu bytes of L3, and looks at each frame that comes.
func (w *world) across(mtu int, a, b *station) {
	w.Helper()
	w.reach(a, b.ip4)
	w.reach(b, a.ip6)
	// A sender that doesn't know the path's MTU yet is told.
	w.reach(a, b.ip4, "-s", "4000")
	w.reach(b, a.ip6, "-s", "4000")
	for _, way := range [][2]*station{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		sniffer := w.sniff(to, mtu)
		for _, address := range []string{to.ip4, to.ip6} {
			w.tcp(from, to, address, some)
			w.udp(from, to, address, mtu)
		}
		if err := sniffer.stop(); err != nil {
			w.Errorf("from %s to %s: %v", from.name, to.name, err)
		}
		w.tcp(from, to, to.ip4, bulky)
	}
}

// Programs that people use, between two hosts: curl and iperf3, TCP and UDP,
// both ways.
//
//	station tap11 ── swd, host1 ── wire ── host2, swd ── station tap21
func TestTunnelPrograms(t *testing.T) {
	c := newCluster(t)
	one, two := c.node(1), c.node(2)
	one.peer("host2", two.v4())
	two.peer("host1", one.v4())
	a, b := one.add(onTAP), two.add(onTAP)
	one.across(mtu-50, a, b)

	one.webServer(b.ns, "b", 80)
	for _, address := range []string{b.ip4, b.ip6} {
		one.asks(a.ns, address, 80, "b")
		if got, err := one.curl(a.ns, "http://"+net.JoinHostPort(address, "80")+"/big", "-o", "/dev/null", "-w", "%{size_download}"); err != nil || got != itoa(bigLength) {
			t.Errorf("curl got %q of %d bytes, %v", got, bigLength, err)
		}
	}
	for _, how := range [][]string{{"-n", "50M"}, {"-R", "-n", "50M"}, {"-u", "-b", "20M", "-l", "1400", "-t", "1"}} {
		server, err := b.ns.Start("iperf3", "-s", "-1", "-B", b.ip4)
		c.NoError(err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		c.NoError(b.ns.WaitListening(ctx, "tcp", 5201))
		c.Run(a.ns, append([]string{"iperf3", "-c", b.ip4, "-P", "2"}, how...)...)
		_, err = server.Wait(ctx)
		cancel()
		c.NoError(err)
	}
}
