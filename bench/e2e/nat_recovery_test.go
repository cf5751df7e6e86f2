package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"heddle/ctl/api"
)

// swd leaves nothing of an uplink on the host: no program, filter, route,
// address, offload, promiscuity or port, when it is asked to stop and when it is
// killed. The next swd has the same rules and goes on.
//
//	server ── router ── wan0, uplink ── swd ── container tap1
func TestNATLeavesNothing(t *testing.T) {
	for _, mode := range []string{shared, own} {
		for _, end := range []struct {
			name string
			by   func(w *natWorld) error
		}{
			{"SIGTERM", func(w *natWorld) error { return w.swd.Stop() }},
			{"SIGKILL", func(w *natWorld) error { w.swd.Kill(); return nil }},
		} {
			t.Run(mode+" "+end.name, func(t *testing.T) {
				w := newRoutedWorld(t)
				c := w.container()
				w.webServer(w.server, "server", 80)
				w.webServer(c.ns, "c", 80)
				before := w.hostState()
				w.uplink(mode)
				w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan")
				w.publish("8080/tcp", c.name+":80")
				rules := w.ctl("export")
				works := func() {
					t.Helper()
					w.reach(c, server4)
					w.reach(c, server6)
					w.asksFrom(c.ns, server4, 80, "server", w.ext4)
					w.asksFrom(w.server, w.ext4, 8080, "c", server4)
					w.asksFrom(w.server, w.ext6, 8080, "c", server6)
					w.asks(w.host, "127.0.0.1", 8080, "c")
				}
				works()
				w.NoError(end.by(w))
				// The kernel takes away what a process had a moment after its end.
				nothing := func() {
					t.Helper()
					w.Eventually(patience, "nothing is left", func() error { return changed(before, w.hostState()) })
				}
				nothing()
				// The host's stack answers again for all its ports.
				w.refuses(8080)
				w.refuses(61234)
				w.NoError(w.swd.Start(t.Context()))
				w.awaitUplink(api.StateUp)
				if again := w.ctl("export"); again != rules {
					t.Errorf("exported\n%s\nand after the restart\n%s", rules, again)
				}
				works()
				if end.name == "SIGKILL" {
					// What the killed one had left, if anything, isn't taken for
					// somebody else's.
					w.NoError(w.swd.Stop())
					nothing()
					return
				}
				w.ctl("nat", "rm", w.natID("publish"))
				w.ctl("nat", "rm", w.natID("masquerade"))
				w.ctl("uplink", "rm", "wan")
				nothing()
			})
		}
	}
}

// hostState tells what of the host's configuration an uplink could change: the
// interface, its addresses, the routes, filters, firewall and listeners.
func (w *natWorld) hostState() string {
	w.Helper()
	l, err := w.host.Link(wanPort)
	w.NoError(err)
	a := l.Attrs()
	state := fmt.Sprintln(a.Name, a.HardwareAddr, "mtu", a.MTU, a.Flags, "promiscuity", a.Promisc, "alias", a.Alias)
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		err := w.host.Do(func() error {
			programs, err := link.QueryPrograms(link.QueryOptions{Target: a.Index, Attach: at})
			if errors.Is(err, ebpf.ErrNotSupported) {
				return nil // A kernel before 6.6.
			}
			if err == nil {
				state += fmt.Sprintln(at, len(programs.Programs))
			}
			return err
		})
		w.NoError(err)
	}
	for _, command := range []string{
		"ip -o addr show dev " + wanPort, "ip route show table all dev " + wanPort, "ip -6 route show table all dev " + wanPort,
		"ip rule", "tc qdisc show dev " + wanPort, "tc filter show dev " + wanPort + " ingress",
		"nft list ruleset", "ethtool -k " + wanPort, "ss -Hlntu",
	} {
		state += command + "\n" + w.Run(w.host, strings.Fields(command)...)
	}
	return state
}

// changed tells which lines came and went.
func changed(before, after string) error {
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	var errs []error
	for _, line := range was {
		if !slices.Contains(is, line) {
			errs = append(errs, fmt.Errorf("gone: %s", line))
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			errs = append(errs, fmt.Errorf("new: %s", line))
		}
	}
	return errors.Join(errs...)
}

// An interface that goes down, up, or gets another address takes the uplink
// along; what was open goes on where its address is still there.
func TestNATUplinkFollowsItsInterface(t *testing.T) {
	w := newNATWorld(t, shared)
	c := w.container()
	w.udpEcho(w.server, 53)
	w.webServer(w.server, "server", 80)
	flow := w.dialUDP(c.ns, server4, 53)
	was, err := flow.ask(patience)
	w.NoError(err)

	w.NoError(w.host.SetUp(wanPort, false))
	w.awaitUplink(api.StateDown)
	if _, err := w.curl(c.ns, "http://"+server4+"/", "--max-time", "2"); err == nil {
		t.Error("the server answers without an uplink")
	}
	w.NoError(w.host.SetUp(wanPort, true))
	w.Run(w.host, "ip", "route", "replace", "default", "via", router4)
	w.awaitUplink(api.StateUp)
	w.reach(c, server4)
	if now, err := flow.ask(patience); err != nil || now != was {
		t.Errorf("the flow was seen as %s, now %s: %v", was, now, err)
	}

	w.NoError(w.host.AddAddress(wanPort, "192.0.2.19/24"))
	w.Run(w.host, "ip", "addr", "del", host4+"/24", "dev", wanPort)
	w.Run(w.host, "ip", "addr", "replace", "192.0.2.19/24", "dev", wanPort)
	w.Run(w.host, "ip", "route", "replace", "default", "via", router4)
	w.Eventually(patience, "the uplink has the new address", func() error {
		if seen, err := flow.ask(time.Second); err != nil || seen.Addr().String() != "192.0.2.19" {
			return fmt.Errorf("the flow is seen as %s: %w", seen, errors.Join(err, errNotYet))
		}
		return nil
	})
	w.asksFrom(c.ns, server4, 80, "server", "192.0.2.19")
}

// The next hop changes its MAC and says so, as a router does that stands in for
// another.
func TestNATNextHopMoves(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.webServer(w.server, "server", 80)
		w.asks(c.ns, server4, 80, "server")
		mac, err := net.ParseMAC(roamer)
		w.NoError(err)
		w.NoError(w.router.Sysctl("net/ipv4/conf/isp0/arp_notify", "1"))
		w.NoError(w.router.Sysctl("net/ipv6/conf/isp0/ndisc_notify", "1"))
		w.NoError(w.router.SetUp("isp0", false))
		w.NoError(w.router.SetMAC("isp0", mac))
		w.NoError(w.router.SetUp("isp0", true))
		w.Run(w.router, "ip", "addr", "replace", router6+"/64", "dev", "isp0", "nodad")
		w.reach(c, server4)
		w.asks(c.ns, server4, 80, "server")
		w.reach(c, server6)
	})
}

// The next hop changes its MAC and says nothing, as after a change of hardware:
// it is asked, found again within 36 s, and what was open goes on.
//
//	container tap1 ── swd ── uplink ── router, another MAC without notice ── server
func TestNATNextHopMovesSilently(t *testing.T) {
	w := newNATWorld(t, own)
	c := w.container()
	w.udpEcho(w.server, 53)
	flows := map[string]udpClient{}
	seen := map[string]netip.AddrPort{}
	for _, server := range []string{server4, server6} {
		var err error
		flows[server] = w.dialUDP(c.ns, server, 53)
		seen[server], err = flows[server].ask(patience)
		w.NoError(err)
	}
	mac, err := net.ParseMAC(roamer)
	w.NoError(err)
	for _, sysctl := range []string{"net/ipv4/conf/isp0/arp_notify", "net/ipv6/conf/isp0/ndisc_notify"} {
		w.NoError(w.router.Sysctl(sysctl, "0"))
	}
	w.NoError(w.router.SetMAC("isp0", mac))
	for server, flow := range flows {
		if _, err := flow.ask(200 * time.Millisecond); err == nil {
			t.Errorf("%s answers at once: the router's MAC was announced", server)
		}
	}
	for server, flow := range flows {
		w.Eventually(50*time.Second, server+" answers again", func() error {
			now, err := flow.ask(200 * time.Millisecond)
			if err == nil && now != seen[server] {
				err = fmt.Errorf("the flow was seen as %s, now %s", seen[server], now)
			}
			return err
		})
	}
}

// The uplink's interface is deleted in the middle of a flow, and comes back.
//
//	container tap1 ── swd ── wan0, gone and there again ── router ── server
func TestNATUplinkGone(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.udpEcho(w.server, 53)
		w.webServer(w.server, "server", 80)
		w.webServer(c.ns, "c", 80)
		w.publish("8080/tcp", c.name+":80")
		flow := w.dialUDP(c.ns, server4, 53)
		was, err := flow.ask(patience)
		w.NoError(err)
		stream := w.startBulk(c.ns, w.server, server4)

		w.NoError(w.host.DeleteLink(wanPort))
		w.awaitUplink(api.StateDown)
		if _, err := flow.ask(200 * time.Millisecond); err == nil {
			w.Error("the server answers without an uplink")
		}
		w.reach(c, gate4)
		if w.ext4 == host4 {
			// Its address has gone with it, and with that its connections.
			_ = stream.out.Close()
		}

		w.Veth(w.host, wanPort, w.router, "isp0")
		w.NoError(w.router.AddAddress("isp0", router4+"/24", router6+"/64"))
		w.NoError(w.host.AddAddress(wanPort, host4+"/24", host6+"/64"))
		w.Run(w.host, "ip", "route", "add", "default", "via", router4)
		w.Run(w.host, "ip", "route", "add", "default", "via", router6)
		w.awaitUplink(api.StateUp)
		w.reach(c, server4)
		w.reach(c, server6)
		w.asksFrom(c.ns, server4, 80, "server", w.ext4)
		w.asksFrom(w.server, w.ext4, 8080, "c", server4)
		w.asksFrom(w.server, w.ext6, 8080, "c", server6)
		w.asks(w.host, "127.0.0.1", 8080, "c")
		now, err := flow.ask(patience)
		if err != nil {
			w.Errorf("the flow doesn't go on: %v", err)
		}
		if w.ext4 != host4 {
			if now != was {
				w.Errorf("the flow was seen as %s, now %s", was, now)
			}
			w.Eventually(patience, "the stream goes on", func() error {
				if stream.rate(100*time.Millisecond) == 0 {
					return errNotYet
				}
				return nil
			})
			w.NoError(stream.finish())
		}
	})
}
