package daemon

import (
	"net/http"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// TestTwoDaemons: a second swd in the same namespace, whose ports have the
// names of the first's, takes nothing from it, whatever becomes of its own.
func TestTwoDaemons(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	ports := []config.Port{
		{Name: "web", Network: "net", NetNS: netns(a), Kind: config.KindVeth, IPs: []string{"198.18.0.2/24"}},
		{Name: "db", Network: "net", NetNS: netns(b), IPs: []string{"198.18.0.3/24"}},
	}
	add := func(d *testDaemon) {
		d.addNet()
		for _, p := range ports {
			d.must("POST", api.PathPorts, p, nil)
		}
	}
	// The second has the ports too, and isn't there when the first starts.
	dir := t.TempDir()
	second, _ := startIn(t, dir, host)
	add(second)
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	first, _ := startIn(t, t.TempDir(), host)
	add(first)

	before := snapshot(t, host) + snapshot(t, a) + snapshot(t, b)
	second, _ = startIn(t, dir, host)
	for _, p := range ports {
		if got := second.port(p.Name); got.State == api.StateUp {
			t.Errorf("%+v", got)
		}
		second.must("DELETE", api.PathPorts+"/"+p.Name, nil, nil)
	}
	ports = append(ports, config.Port{Name: "web", Network: "net", NetNS: netns(b), Kind: config.KindVeth, IfName: "eth1"})
	for _, p := range ports {
		status, err := second.call("POST", api.PathPorts, p, nil)
		if err == nil || status != http.StatusUnprocessableEntity || !strings.Contains(err.Why, "taken") && !strings.Contains(err.Why, "open") {
			t.Errorf("%+v: %d %v", p, status, err)
		}
	}
	if after := snapshot(t, host) + snapshot(t, a) + snapshot(t, b); stable(after) != stable(before) {
		t.Errorf("after\n%s\nwas\n%s", after, before)
	}
	ping(t, a, "198.18.0.3")
	ping(t, b, "198.18.0.2")
}
