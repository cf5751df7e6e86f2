package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// What NAT can't do is refused, with who or what is in the way, and changes
// nothing.

// web server of the host on 2222 and 192.0.2.9:2223 ── shared uplink wan ── swd ── container tap1
func TestNATRefusals(t *testing.T) {
	w := newNATWorld(t, shared)
	c := w.container()
	w.webServer(w.host, "host", 2222)
	w.udpEcho(w.host, 5300)
	w.addNetwork("bare") // Without a gateway.
	w.addNetwork("red", "--subnet", "198.18.1.0/24", "--gateway", "198.18.1.1")
	id := w.publish("8000-8099/tcp", c.name+":7000-7099")
	masquerade := w.natID("masquerade")
	before := w.ctl("export")
	state := w.hostState()

	publish := func(listen, to string) []string {
		return []string{"nat", "add", "publish", "--uplink", "wan", "--listen", listen, "--to", to}
	}
	for _, r := range []struct {
		code  int
		says  string // What stderr must have, beside "error:".
		words []string
	}{
		{1, id, publish("8000-8099/tcp", c.name+":7000-7099")},
		{1, id, publish("8000-8099/tcp", c.ip4+":1-100")},
		{1, id, publish("8050-8150/tcp", c.name+":50-150")},
		{1, "", publish("9000-9009/tcp", c.name+":7000-7008")},
		{1, "", publish("9009-9000/tcp", c.name+":7000-7009")},
		{1, "", publish("0/tcp", c.name+":80")},
		{1, "", publish("65536/tcp", c.name+":80")},
		{1, "", publish("80/gre", c.name+":80")},
		{1, "", publish("80", c.name+":80")},
		{1, "nobody", publish("80/tcp", "nobody:80")},
		{1, "203.0.113.9", publish("80/tcp", "203.0.113.9:80")},
		{1, "192.0.2.77", publish("192.0.2.77:80/tcp", c.name+":80")},
		{1, "2222", publish("2222/tcp", c.name+":80")},
		{1, "2222", publish("2200-2299/tcp", c.name+":2200-2299")},
		{1, "5300", publish("5300/udp", c.name+":53")},
		{1, "nowhere", []string{"nat", "add", "publish", "--uplink", "nowhere", "--listen", "80/tcp", "--to", c.name + ":80"}},
		{1, masquerade, []string{"nat", "add", "masquerade", "--network", network, "--uplink", "wan"}},
		{1, "nowhere", []string{"nat", "add", "masquerade", "--network", "red", "--uplink", "nowhere"}},
		{1, "nonet", []string{"nat", "add", "masquerade", "--network", "nonet", "--uplink", "wan"}},
		{1, "bare", []string{"nat", "add", "masquerade", "--network", "bare", "--uplink", "wan"}},
		{1, "", []string{"nat", "add", "masquerade", "--network", "red", "--uplink", "wan", "--mapping", "random"}},
		{1, wanPort, []string{"uplink", "add", "second", "--interface", wanPort}},
		{1, "wan", []string{"uplink", "add", "wan", "--interface", "lo"}},
		{1, "", []string{"uplink", "add", "second", "--interface", "no-such-if", "--mode", own}}, // Without an address.
		{1, "", []string{"uplink", "add", "second", "--interface", "no-such-if", "--ports", "100-200"}},
		{1, "", []string{"uplink", "add", "second", "--interface", "no-such-if", "--mode", "borrowed"}},
		{1, "wan", []string{"uplink", "rm", "wan"}},      // It has rules.
		{1, network, []string{"network", "rm", network}}, // It has a port.
		{1, "no-such-id", []string{"nat", "rm", "no-such-id"}},
		{1, "nowhere", []string{"uplink", "show", "nowhere"}},
		{0, "", []string{"nat", "rm", "0123456789ab", "--if-exists"}},
		{0, "", []string{"uplink", "rm", "up", "--if-exists"}},
		{1, "", []string{"conn", "flush", "--src", "nonsense"}},
		{2, "", []string{"nat", "add", "publish"}},
		{2, "", []string{"nat", "add", "nonsense"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := w.swd.Swctl(ctx, r.words...)
		cancel()
		name := strings.Join(r.words, " ")
		if err != nil || out.Code != r.code {
			t.Errorf("%s: exit code %d, want %d: %v\n%s", name, out.Code, r.code, err, out.Stderr)
			continue
		}
		if r.code == 1 && (!strings.HasPrefix(out.Stderr, "error: ") || !strings.Contains(out.Stderr, r.says)) {
			t.Errorf("%s: stderr is %q, want an error that names %q", name, out.Stderr, r.says)
		}
	}
	if err := changed(before, w.ctl("export")); err != nil {
		t.Errorf("what there is changed: %v", err)
	}
	w.Eventually(patience, "the host is as before", func() error { return changed(state, w.hostState()) })
	w.webServer(w.server, "server", 80)
	w.asks(c.ns, server4, 80, "server")
	w.asks(w.server, host4, 2222, "host")
}
