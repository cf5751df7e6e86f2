package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
)

// Ping by every way, and traceroute by UDP, ICMP and TCP, whose hops are the
// gateway, the router and the server.
//
//	container tap1 ── swd, gateway .254 ── router ── server
func TestNATPath(t *testing.T) {
	modes(t, func(w *natWorld) {
		c, other := w.container(), w.container()
		w.webServer(w.server, "server", 80)
		for _, address := range []string{gate4, gate6, router4, router6, server4, server6, other.ip4} {
			w.reach(c, address)
		}
		for _, long := range []string{server4, server6} {
			w.reach(c, long, "-s", "4000") // In fragments, both ways.
		}
		for _, a := range []struct {
			to    string
			hops  []string
			flags []string
		}{
			{server4, []string{gate4, router4, server4}, []string{"-4"}},
			{server6, []string{gate6, router6, server6}, []string{"-6"}},
		} {
			for _, by := range []string{"-U", "-I", "-T"} {
				args := append([]string{"traceroute", "-n", "-q", "2", "-w", "2", "-m", "5", by}, a.flags...)
				// Now and then it doesn't read its socket, where the kernel shows
				// the replies to wait (rx_queue in /proc/net/raw6).
				w.Eventually(30*time.Second, "traceroute goes by every hop", func() error {
					out := w.Run(c.ns, append(args, a.to)...)
					if got := hops(out); !slices.Equal(got, a.hops) {
						return fmt.Errorf("%v went by %v, want %v:\n%s", args, got, a.hops, out)
					}
					return nil
				})
			}
		}
		// The outside sees the gateway's side of an uplink of its own.
		w.publish("8080/tcp", c.name+":80")
		w.webServer(c.ns, "c", 80)
		w.Eventually(patience, "traceroute from outside", func() error {
			out := w.Run(w.server, "traceroute", "-n", "-q", "2", "-w", "2", "-m", "5", "-T", "-p", "8080", w.ext4)
			if got := hops(out); len(got) == 0 || got[0] != "198.51.100.1" || got[len(got)-1] != w.ext4 {
				return fmt.Errorf("it went by %v:\n%s", got, out)
			}
			return nil
		})
	})
}

// hops are the addresses that traceroute -n has printed.
func hops(out string) []string {
	var all []string
	for _, line := range strings.Split(out, "\n")[1:] {
		if words := strings.Fields(line); len(words) > 1 {
			all = append(all, words[1])
		}
	}
	return all
}

// A hop that takes 1,300 bytes is found out by TCP, which goes on, and by
// tracepath, which names it.
//
//	container tap1, 1,500 ── swd ── 1,500 ── router ── 1,300 ── server, 1,500
func TestNATPathMTU(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.webServer(w.server, "server", 80)
		w.NoError(w.router.SetMTU("web0", 1300))
		upload := filepath.Join(w.Dir(), "upload")
		w.NoError(os.WriteFile(upload, make([]byte, bigLength), 0o600))
		for _, a := range []struct{ server, tracepath string }{{server4, "-4"}, {server6, "-6"}} {
			w.reach(c, a.server)
			if got, err := w.curl(c.ns, "http://"+bracketed(a.server)+"/", "--data-binary", "@"+upload); err != nil || got != "server 1048576 <nil>" {
				w.Errorf("upload to %s: %q, %v", a.server, got, err)
			}
			if route := w.Run(c.ns, "ip", "route", "get", a.server); !strings.Contains(route, "mtu 1300") {
				w.Errorf("the container has not learnt the path's MTU:\n%s", route)
			}
			w.tracepath(c.ns, a.server, a.tracepath)
		}
	})
}

// tracepath waits until tracepath gets to an address and finds that the way there
// takes 1,300 bytes. Which hop it counts depends on when its second probe is
// answered.
func (w *natWorld) tracepath(from *lab.NetNS, to, family string, flags ...string) {
	w.Helper()
	w.Eventually(patience, "tracepath to "+to, func() error {
		w.Run(from, "ip", family, "route", "flush", "cache")
		out := w.Run(from, append(append([]string{"tracepath", family, "-n", "-m", "5"}, flags...), to)...)
		if !strings.Contains(out, "Resume: pmtu 1300 ") || !strings.Contains(out, "reached") {
			return errors.New(out)
		}
		return nil
	})
}

// A narrow hop farther away is found out in either direction, by the container
// and by who is outside, whoever began.
//
//	container tap1, 1,500 ── swd ── router ── server ── 1,300 ── far ── 1,500, beyond
func TestNATPathMTUBothWays(t *testing.T) {
	modes(t, func(w *natWorld) {
		const beyond4, beyond6 = "203.0.113.130", "2001:db8:82::2"
		c := w.container()
		far, beyond := w.NewNetNS("far"), w.NewNetNS("beyond")
		w.Veth(w.server, "far0", far, "far0")
		w.Veth(far, "end0", beyond, "end0")
		w.NoError(w.server.AddAddress("far0", "203.0.113.1/25", "2001:db8:81::1/64"))
		w.NoError(far.AddAddress("far0", "203.0.113.2/25", "2001:db8:81::2/64"))
		w.NoError(far.AddAddress("end0", "203.0.113.129/25", "2001:db8:82::1/64"))
		w.NoError(beyond.AddAddress("end0", beyond4+"/25", beyond6+"/64"))
		for _, r := range []struct {
			n       *lab.NetNS
			to, via string
		}{
			{w.router, nowhere, server4},
			{w.router, "2001:db8:81::/64", server6},
			{w.router, "2001:db8:82::/64", server6},
			{w.server, "203.0.113.128/25", "203.0.113.2"},
			{w.server, "2001:db8:82::/64", "2001:db8:81::2"},
			{far, "default", "203.0.113.1"},
			{far, "default", "2001:db8:81::1"},
			{beyond, "default", "203.0.113.129"},
			{beyond, "default", "2001:db8:82::1"},
		} {
			w.Run(r.n, "ip", "route", "add", r.to, "via", r.via)
		}
		for _, n := range []*lab.NetNS{w.server, far} {
			w.NoError(n.SetMTU("far0", 1300))
			w.NoError(n.Sysctl("net/ipv4/ip_forward", "1"))
			w.NoError(n.Sysctl("net/ipv6/conf/all/forwarding", "1"))
		}
		w.webServer(c.ns, "c", 80)
		w.webServer(beyond, "beyond", 80)
		w.publish("8080/tcp", c.name+":80")
		upload := filepath.Join(w.Dir(), "upload")
		w.NoError(os.WriteFile(upload, make([]byte, bigLength), 0o600))
		for _, a := range []struct{ beyond, ext string }{{beyond4, w.ext4}, {beyond6, w.ext6}} {
			w.reach(c, a.beyond)
			for _, x := range []struct {
				what    string
				from    *lab.NetNS
				url     string
				upload  bool
				learns  *lab.NetNS // That the way to an address is narrow.
				narrows string
			}{
				{"upload by the container", c.ns, "http://" + bracketed(a.beyond), true, c.ns, a.beyond},
				{"download by the container", c.ns, "http://" + bracketed(a.beyond), false, beyond, a.ext},
				{"upload to the container", beyond, "http://" + bracketed(a.ext) + ":8080", true, beyond, a.ext},
				{"download from the container", beyond, "http://" + bracketed(a.ext) + ":8080", false, c.ns, a.beyond},
			} {
				for _, n := range []*lab.NetNS{c.ns, beyond} {
					w.Run(n, "ip", "-4", "route", "flush", "cache")
					w.Run(n, "ip", "-6", "route", "flush", "cache")
				}
				var length int
				var err error
				if x.upload {
					var text string
					text, err = w.curl(x.from, x.url+"/", "--data-binary", "@"+upload)
					_, _ = fmt.Sscanf(text, "%s %d", new(string), &length)
				} else {
					var text string
					text, err = w.curl(x.from, x.url+"/big")
					length = len(text)
				}
				if err != nil || length != bigLength {
					w.Errorf("%s, %s: %d bytes, %v", x.what, x.url, length, err)
				}
				if route := w.Run(x.learns, "ip", "route", "get", x.narrows); !strings.Contains(route, "mtu 1300") {
					w.Errorf("%s: who sent has not learnt the path's MTU: %s", x.what, route)
				}
			}
		}
	})
}

// The network's MTU and the uplink's may differ either way. Senders are told by
// swd itself, and TCP is by its MSS before it sends.
//
//	container tap1, 1,300 ── swd ── uplink, 1,500 ── router ── server
//	container tap1, 1,500 ── swd ── uplink, 1,300 ── router ── server
func TestNATNarrowLinks(t *testing.T) {
	for _, mode := range []string{shared, own} {
		for _, narrow := range []string{"network", "uplink"} {
			t.Run(mode+" "+narrow, func(t *testing.T) {
				var flags []string
				if narrow == "network" {
					flags = []string{"--mtu", "1300"}
				}
				w := newRoutedWorld(t, flags...)
				if narrow == "uplink" {
					w.NoError(w.host.SetMTU(wanPort, 1300))
					w.NoError(w.router.SetMTU("isp0", 1300))
				}
				w.uplink(mode)
				w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan")
				c := w.container()
				server := &station{name: "server", ns: w.server}
				w.publish("33434-33534/udp", c.name+":33434-33534")
				for _, a := range []struct{ family, server, ext string }{
					{"-4", server4, w.ext4}, {"-6", server6, w.ext6},
				} {
					w.reach(c, a.server)
					sniffer := w.sniff(c, 1500)
					w.tcp(c, server, a.server, some)
					if err := sniffer.stop(); err != nil {
						t.Error(err)
					}
					from, to := c.ns, a.server
					if narrow == "network" {
						from, to = w.server, a.ext
					}
					w.tracepath(from, to, a.family, "-p", "33434")
				}
			})
		}
	}
}
