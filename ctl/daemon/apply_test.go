package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// TestApply: what is missing is made, what differs is changed, the rest stays.
func TestApply(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	b := d.h.device(linkB)
	var done api.Applied
	d.must("POST", api.PathConfig, `{
		"networks":[{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.1"],"ageing":"10s"},{"name":"more"}],
		"ports":[{"name":"a","network":"net","netns":"/run/netns/a","ips":["198.18.0.9/24"]},
			{"name":"b","network":"net","netns":"/run/netns/b","ips":["auto"]},
			{"name":"c","network":"more","netns":"/run/netns/c"}],
		"fdb":[{"mac":"02:00:00:00:00:09","network":"net","port":"b"}]}`, &done)
	want := api.Applied{
		Created:   []string{"network more", "port c", "fdb 02:00:00:00:00:09"},
		Changed:   []string{"network net", "port a"},
		Unchanged: []string{"port b"},
	}
	if fmt.Sprint(done) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", done, want)
	}
	if d.h.device(linkB) != b {
		t.Error("port b was made anew")
	}
	if p := d.port("a"); !slices.Equal(p.IPs, []string{"198.18.0.9/24"}) {
		t.Errorf("%+v", p)
	}
	// What is exported, applied again, changes nothing.
	var c config.Config
	d.must("GET", api.PathConfig, nil, &c)
	d.must("POST", api.PathConfig, c, &done)
	if len(done.Created)+len(done.Changed) != 0 || len(done.Unchanged) != 6 {
		t.Errorf("again: %+v", done)
	}
	// An MTU goes through to the interfaces.
	d.must("POST", api.PathConfig, `{"networks":[{"name":"more","mtu":9000}]}`, &done)
	if p := d.port("c"); p.MTU != 9000 || p.State != api.StateUp {
		t.Errorf("%+v", p)
	}
	d.must("POST", api.PathConfig, `{"networks":[{"name":"more","mtu":9000,"vni":77}]}`, &done)
	if p := d.port("c"); p.State != api.StateUp {
		t.Errorf("%+v", p)
	}
}

// TestApplyIsAtomic: a step that fails takes the earlier ones back.
func TestApplyIsAtomic(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	before := d.Export()
	status, err := d.call("POST", api.PathConfig, `{
		"networks":[{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.1"],"ageing":"10s","mtu":1400},{"name":"more"}],
		"ports":[{"name":"a","network":"net","netns":"/run/netns/a","ips":["198.18.0.9/24"]},
			{"name":"c","network":"more","netns":"/run/netns/c"},
			{"name":"d","network":"more","netns":"/run/netns/none"}]}`, nil)
	if status != 422 || !strings.Contains(err.Why, "no such namespace") || err.What != "apply port d" {
		t.Errorf("%d %+v", status, err)
	}
	if after := d.Export(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v, was %v", after, before)
	}
	if len(d.h.links) != 2 || d.h.opened != 2 {
		t.Errorf("links %v", d.h.links)
	}
	for _, name := range []string{"a", "b"} {
		if p := d.port(name); p.State != api.StateUp || p.MTU != 1500 {
			t.Errorf("%+v", p)
		}
	}
}
