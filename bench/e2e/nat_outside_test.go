package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// nmap from outside finds what is published and nothing else. What is swd's and
// not published gives no sign; on a shared uplink the host answers for its own.
//
//	nmap on server ── router ── uplink ── swd ── container tap1, web server on 80
func TestNATScan(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.webServer(c.ns, "c", 80)
		w.webServer(c.ns, "hidden", 81)
		w.webServer(w.server, "server", 80)
		w.webServer(w.host, "host", 2222)
		w.udpEcho(c.ns, 53)
		w.publish("8080/tcp", c.name+":80")
		w.publish("5353/udp", c.name+":53")
		w.asks(c.ns, server4, 80, "server") // A connection from inside opens nothing.
		want, elsewhere := []string{"8080/open"}, "filtered"
		if w.ext4 == host4 {
			want, elsewhere = []string{"2222/open", "8080/open"}, "closed"
		}
		for _, a := range []struct{ family, ext string }{{"-4", w.ext4}, {"-6", w.ext6}} {
			args := []string{"nmap", "-n", "-Pn", "--max-retries", "1", "--min-rate", "1000", "--host-timeout", "25s", "-oG", "-"}
			if a.family == "-6" {
				args = append(args, a.family)
			}
			// An answer that comes late is none to it.
			w.Eventually(2*patience, "nmap finds what is open", func() error {
				out := w.Run(w.server, append(args, "-sS", "-p", "1-200,2222,8080", a.ext)...)
				if got := openPorts(out); !slices.Equal(got, want) {
					return fmt.Errorf("it found %v open, want %v:\n%s", got, want, out)
				}
				if !strings.Contains(out, "Ignored State: "+elsewhere) {
					return fmt.Errorf("it found others not %s:\n%s", elsewhere, out)
				}
				return nil
			})
			// Nothing answers these, so that they take as long as nmap waits.
			args = append(args, "--initial-rtt-timeout", "300ms", "--max-rtt-timeout", "300ms")
			out := w.Run(w.server, append(args, "-sS", "-p", "61000-61199", a.ext)...)
			if strings.Contains(out, "/open/") || strings.Contains(out, "closed") || !strings.Contains(out, "filtered (200)") {
				w.Errorf("swd's range is not silent:\n%s", out)
			}
			// An ACK, FIN or Xmas scan finds no more.
			for _, kind := range []string{"-sA", "-sF", "-sX"} {
				out = w.Run(w.server, append(args, kind, "-p", "61000-61099", a.ext)...)
				if !strings.Contains(out, "filtered (100)") {
					w.Errorf("%s:\n%s", kind, out)
				}
			}
		}
		if hidden := w.conns("--dst", w.ext4); len(hidden) > 2 {
			w.Errorf("the scan left %d connections", len(hidden))
		}
	})
}

// openPorts are the open ports of nmap's greppable output, as PORT/open.
func openPorts(out string) []string {
	return regexp.MustCompile(`\d+/open\b`).FindAllString(out, -1)
}

// natTools is where bench/install/debian.sh puts coturn.
const natTools = "../../.tools/coturn/usr/bin"

// coturn's behaviour discovery (RFC 5780) finds endpoint-independent mapping and
// the filtering that was asked for. It finds hairpinning where filtering lets
// it: it asks its mapped port from another one, which hasn't been spoken to.
//
//	turnutils_natdiscovery in container tap1 ── swd ── router ── server: turnserver on .80 and .81
func TestNATDiscovery(t *testing.T) {
	const hairpinning = "successful hairpinning"
	for _, c := range []struct {
		mode, filtering string
		says            []string
	}{
		{shared, "endpoint-independent", []string{"NAT with Endpoint Independent Filtering!", hairpinning}},
		{own, "endpoint-independent", []string{"NAT with Endpoint Independent Filtering!", hairpinning}},
		{own, "address-and-port-dependent", []string{"NAT with Address and Port Dependent Filtering!"}},
	} {
		t.Run(c.mode+" "+c.filtering, func(t *testing.T) {
			w := newRoutedWorld(t)
			w.uplink(c.mode)
			w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan", "--filtering", c.filtering)
			inside := w.container()
			_, err := w.server.Start(tool(t, "turnserver"), "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls",
				"-L", server4, "-L", second4, "--log-file", "stdout",
				"--pidfile", filepath.Join(w.Dir(), "turn.pid"), "--userdb", filepath.Join(w.Dir(), "turn.db"))
			w.NoError(err)
			w.Eventually(patience, "the server listens", func() error {
				listeners := w.Run(w.server, "ss", "-Hlnu")
				for _, address := range []string{server4, second4} {
					for _, port := range []string{"3478", "3479"} {
						if at := address + ":" + port + " "; !strings.Contains(listeners, at) {
							return fmt.Errorf("nobody is bound to %s:\n%s", at, listeners)
						}
					}
				}
				return nil
			})
			w.reach(inside, server4)
			// An answer that comes late is none to it. What one try has sent opens the
			// port for the next, which therefore has another.
			port := 40_000
			w.Eventually(2*patience, "it finds what there is", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				out, err := inside.ns.Run(ctx, tool(t, "turnutils_natdiscovery"), "-m", "-f", "-H", "-L", inside.ip4, "-l", itoa(port), server4)
				port += 10
				for _, says := range append(c.says, "UDP reflexive addr: "+w.ext4+":", "NAT with Endpoint Independent Mapping!") {
					if !strings.Contains(out.Stdout, says) {
						err = errors.Join(err, fmt.Errorf("it doesn't say %q:\n%s", says, out.Stdout))
					}
				}
				return err
			})
		})
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(natTools, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A capture of an uplink shows what is on the wire: the uplink's address, not
// the container's.
func TestNATCapture(t *testing.T) {
	modes(t, func(w *natWorld) {
		a := w.container()
		w.reach(a, server4)
		packets := w.capture(func() { w.pingOnce(a, server4) }, "--uplink", "wan", "-c", "2", "icmp")
		if len(packets) != 2 {
			w.Fatalf("captured %d packets, want a request and its reply", len(packets))
		}
		for _, p := range packets {
			ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if !ok || ip.SrcIP.String() != w.ext4 && ip.DstIP.String() != w.ext4 {
				w.Errorf("captured %v", p)
			}
		}
	})
}
