package e2e

import (
	"fmt"
	"testing"
)

// With --ipv6 route containers have IPv6 as it is, both ways: the server sees
// their own addresses and reaches them unasked, nothing is tracked, and IPv4 is
// translated as ever. (The router has a route to the containers' subnet.)
//
//	container tap1, 2001:db8::1 ── swd ── uplink ── router, 2001:db8::/64 via the uplink ── server
func TestNATRoutesIPv6(t *testing.T) {
	for _, mode := range []string{shared, own} {
		t.Run(mode, func(t *testing.T) {
			w := newRoutedWorld(t)
			w.uplink(mode)
			w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan", "--ipv6", "route")
			w.Run(w.router, "ip", "route", "add", "2001:db8::/64", "via", w.ext6)
			c := w.container()
			server := &station{name: "server", ns: w.server}
			w.webServer(w.server, "server", 80)
			w.webServer(c.ns, "c", 80)
			w.udpEcho(w.server, 53)
			w.udpEcho(c.ns, 53)
			w.publish("8080/tcp", c.name+":80")
			w.reach(c, server6)
			w.reach(server, c.ip6)
			w.reach(c, server6, "-s", "4000")

			w.asksFrom(c.ns, server6, 80, "server", c.ip6)
			w.asksFrom(w.server, c.ip6, 80, "c", server6)
			for _, a := range []struct {
				from *station
				to   string
				seen string
			}{{c, server6, c.ip6}, {server, c.ip6, server6}} {
				if seen, err := w.dialUDP(a.from.ns, a.to, 53).ask(patience); err != nil || seen.Addr().String() != a.seen {
					t.Errorf("UDP from %s is seen as %s, want %s: %v", a.from.name, seen, a.seen, err)
				}
			}
			if got := w.conns("--dst", server6); len(got) > 0 {
				t.Errorf("what is routed is tracked: %+v", got)
			}
			w.Eventually(patience, "traceroute from the server", func() error {
				if got := hops(w.Run(w.server, "traceroute", "-6", "-n", "-q", "2", "-w", "2", "-m", "6", c.ip6)); len(got) != 3 || got[2] != c.ip6 {
					return fmt.Errorf("it went by %v", got)
				}
				return nil
			})
			// Too big for the network: the sender outside is told, and goes on.
			w.tcp(server, c, c.ip6, some)
			w.tcp(c, server, server6, some)
			w.NoError(w.router.SetMTU("web0", 1300))
			w.NoError(w.server.SetMTU("web0", 1300))
			w.tcp(c, server, server6, some)

			w.asksFrom(c.ns, server4, 80, "server", w.ext4)
			w.asksFrom(w.server, w.ext4, 8080, "c", server4)
			w.asksFrom(w.server, w.ext6, 8080, "c", server6)
		})
	}
}
