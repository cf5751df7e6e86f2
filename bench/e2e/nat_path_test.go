package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
				out := w.Run(c.ns, append(args, a.to)...)
				if got := hops(out); !slices.Equal(got, a.hops) {
					w.Errorf("%v went by %v, want %v:\n%s", args, got, a.hops, out)
				}
			}
		}
		// The outside sees the gateway's side of an uplink of its own.
		w.publish("8080/tcp", c.name+":80")
		w.webServer(c.ns, "c", 80)
		out := w.Run(w.server, "traceroute", "-n", "-q", "2", "-w", "2", "-m", "5", "-T", "-p", "8080", w.ext4)
		if got := hops(out); len(got) == 0 || got[0] != "198.51.100.1" || got[len(got)-1] != w.ext4 {
			w.Errorf("traceroute from outside went by %v:\n%s", got, out)
		}
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
			w.Run(c.ns, "ip", a.tracepath, "route", "flush", "cache")
			out := w.Run(c.ns, "tracepath", a.tracepath, "-n", "-m", "5", a.server)
			if !strings.Contains(out, "Resume: pmtu 1300 hops 3") {
				w.Errorf("tracepath to %s says\n%s", a.server, out)
			}
		}
	})
}
