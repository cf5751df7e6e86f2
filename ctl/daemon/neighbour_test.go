package daemon

import (
	"net/http"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// TestDaemonsBesideEachOther: another swd in the same namespace takes nothing
// from the first, whatever becomes of its own ports, whose names may be the
// first's.
func TestDaemonsBesideEachOther(t *testing.T) {
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
	// A third has ports of its own in the containers, and knows nothing of the
	// first's there.
	third, _ := startIn(t, t.TempDir(), host)
	third.addNet()
	for _, p := range []config.Port{
		{Name: "x", Network: "net", NetNS: netns(a), IfName: "eth1"},
		{Name: "y", Network: "net", NetNS: netns(b), IfName: "eth1", Kind: config.KindVeth},
	} {
		third.must("POST", api.PathPorts, p, nil)
		third.must("DELETE", api.PathPorts+"/"+p.Name, nil, nil)
	}
	if after := snapshot(t, host) + snapshot(t, a) + snapshot(t, b); stable(after) != stable(before) {
		t.Errorf("after\n%s\nwas\n%s", after, before)
	}
	ping(t, a, "198.18.0.3")
	ping(t, b, "198.18.0.2")
}
