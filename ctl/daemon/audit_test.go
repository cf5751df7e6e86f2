package daemon

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"heddle/ctl/api"
)

// TestAudit: each change is logged once, with its object, who asked and what
// came of it; what only reads isn't.
func TestAudit(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	d := start(t, t.TempDir(), newTestHost(), func(o *Options) { o.Log = zap.New(core) })
	for _, tt := range []struct{ method, path, body, message, what string }{
		{"POST", api.PathNetworks, `{"name":"net"}`, "change done", "network add net"},
		{"POST", api.PathNetworks, `{"name":"net"}`, "change refused", "network add net"},
		{"POST", api.PathPorts, `{"name":"a","network":"net","netns":"/run/netns/a"}`, "change done", "port add a"},
		{"DELETE", api.PathPorts + "/a", "", "change done", "port rm a"},
		{"DELETE", api.PathPorts + "/a", "", "change refused", "port rm a"},
		{"GET", api.PathPorts, "", "", ""},
	} {
		_, _ = d.call(tt.method, tt.path, tt.body, nil)
		var got []observer.LoggedEntry
		for _, e := range logs.TakeAll() {
			if strings.HasPrefix(e.Message, "change ") {
				got = append(got, e)
			}
		}
		if tt.message == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Message != tt.message || got[0].ContextMap()["what"] != tt.what || got[0].ContextMap()["pid"] == int32(0) {
			t.Errorf("%s %s: %v", tt.method, tt.path, got)
		}
	}
}

// TestUnknownParameters: no path takes a parameter that it doesn't know.
func TestUnknownParameters(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	for _, p := range []struct{ method, path string }{
		{"GET", api.PathStatus}, {"GET", api.PathConfig}, {"POST", api.PathConfig}, {"GET", api.PathNetworks},
		{"POST", api.PathNetworks}, {"GET", api.PathNetworks + "/net"}, {"DELETE", api.PathNetworks + "/net"},
		{"GET", api.PathPorts}, {"POST", api.PathPorts}, {"GET", api.PathPorts + "/a"}, {"DELETE", api.PathPorts + "/a"},
		{"GET", api.PathFDB}, {"POST", api.PathFDB}, {"DELETE", api.PathFDB}, {"GET", api.PathDrops},
		{"GET", api.PathEvents}, {"GET", api.PathCapture},
	} {
		if status, err := d.call(p.method, p.path+"?colour=red", nil, nil); status != 400 || !strings.Contains(err.Why, "parameter") {
			t.Errorf("%s %s: %d %v", p.method, p.path, status, err)
		}
	}
}
