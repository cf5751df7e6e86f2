package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A container that takes all it can get leaves others what they need, and is
// told so: its next connection ends with "no route to host", which is what Linux
// makes of ICMP 3/13, not with a timeout. What it has goes on.
//
//	container tap1: as many connections as it gets ─┐
//	container tap2: a few ──────────────────────────┴ swd ── uplink ── router ── server
func TestNATExhaustion(t *testing.T) {
	for _, c := range []struct {
		name     string
		ports    string // Of the uplink.
		settings string
		most     [2]int // What the first container gets, from and to.
	}{
		// Three quarters of what there is, and of the rest for the next.
		{"ports of the uplink", "62000-62199", "", [2]int{145, 150}},
		{"ports of a container", "61000-65535", "max_container_ports: 100", [2]int{100, 100}},
		{"connections of a container", "61000-65535", "max_container_conns: 120", [2]int{120, 120}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRoutedWorld(t)
			w.ctl("uplink", "add", "wan", "--interface", wanPort, "--ports", c.ports)
			w.ext4, w.ext6 = host4, host6
			w.awaitUplink("up")
			w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan")
			if c.settings != "" {
				w.settings(c.settings)
			}
			greedy, other := w.container(), w.container()
			w.udpEcho(w.server, 53)
			w.webServer(w.server, "server", 80)
			w.reach(greedy, server4)
			w.reach(other, server4)
			w.ctl("conn", "flush")

			var has []udpClient
			var refused error
			for refused == nil {
				client := w.dialUDP(greedy.ns, server4, 53)
				// What gets lost is asked for again; a refusal comes each time.
				for range 3 {
					if _, refused = client.ask(time.Second); !errors.Is(refused, os.ErrDeadlineExceeded) {
						break
					}
				}
				if refused == nil {
					has = append(has, client)
				}
				if len(has) > 1000 {
					t.Fatal("it gets whatever it asks for")
				}
			}
			if n := len(has); n < c.most[0] || n > c.most[1] || !errors.Is(refused, syscall.EHOSTUNREACH) {
				t.Errorf("it got %d, want %v, and then %v", n, c.most, refused)
			}
			w.awaitDropped("host-limit", 1, 0)
			// TCP has ports of its own, but a container's cap is for all.
			if c.settings != "" {
				w.curlFails(greedy.ns, server4, 80, curlRefused)
			}
			for range 20 {
				if _, err := w.dialUDP(other.ns, server4, 53).ask(patience); err != nil {
					t.Fatalf("the other container: %v", err)
				}
			}
			w.asks(other.ns, server4, 80, "server")
			w.reach(other, server4)
			for i, client := range has {
				if _, err := client.ask(patience); err != nil {
					t.Fatalf("its connection %d: %v", i, err)
				}
			}
			w.ctl("conn", "flush", "--src", greedy.ip4)
			w.asks(greedy.ns, server4, 80, "server")
		})
	}
}

// settings applies nat_settings.
func (w *natWorld) settings(lines ...string) {
	w.Helper()
	file := w.Dir() + "/settings.yaml"
	w.writeFile(file, fmt.Sprintf("nat_settings:\n  %s\n", strings.Join(lines, "\n  ")))
	w.ctl("apply", "-f", file)
}
