package daemon

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane/mem"
	vswitch "heddle/switch"
)

const (
	linkA = "/run/netns/a|eth0"
	linkB = "/run/netns/b|eth0"
)

func newTestHost() *fakeHost { return newFakeHost("/run/netns/a", "/run/netns/b", "/run/netns/c") }

// TestFramesPass: what one port gives, the other sends, and everybody counts.
func TestFramesPass(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	a, b := d.h.device(linkA).mem, d.h.device(linkB).mem
	if n := a.Inject(0, mem.Frame{Data: frame(0xff, 1)}); n != 1 {
		t.Fatalf("injected %d", n)
	}
	await(t, "a frame at b", func() bool { return len(b.Sent(0)) == 1 })
	b.Inject(0, mem.Frame{Data: frame(1, 2)})
	await(t, "a frame at a", func() bool { return len(a.Sent(0)) == 1 })

	await(t, "both counted", func() bool { p := d.port("a"); return p.TxFrames == 1 && p.TxBytes == 60 })
	if p := d.port("a"); p.RxFrames != 1 || p.RxBytes != 60 {
		t.Errorf("%+v", p)
	}
	var fdb []api.Entry
	d.must("GET", api.PathFDB+"?network=net", nil, &fdb)
	slices.SortFunc(fdb, func(x, y api.Entry) int { return strings.Compare(x.MAC, y.MAC) })
	if len(fdb) != 2 || fdb[0].MAC != "02:00:00:00:00:01" || fdb[0].Port != "a" || fdb[1].Port != "b" || fdb[0].Network != "net" {
		t.Errorf("fdb %+v", fdb)
	}
	a.Inject(0, mem.Frame{Data: frame(1, 1)})
	var drops []api.DropCount
	await(t, "a drop", func() bool {
		d.must("GET", api.PathDrops+"?port=a", nil, &drops)
		return len(drops) == 1
	})
	if drops[0] != (api.DropCount{Reason: "src-is-dst", Count: 1, Port: "a"}) {
		t.Errorf("drops %+v", drops)
	}
	// A port that is removed leaves its counts in the totals.
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	drops = nil
	d.must("GET", api.PathDrops, nil, &drops)
	if len(drops) != 1 || drops[0].Count != 1 || drops[0].Port != "" {
		t.Errorf("drops of a removed port: %+v", drops)
	}
	var s api.Status
	d.must("GET", api.PathStatus, nil, &s)
	if s.Ports != 1 || s.RxFrames != 3 || s.Drops != 1 || s.MACs != 1 || s.Version != "test" || s.MaxMACs != 1000 {
		t.Errorf("status %+v", s)
	}
}

// TestAddresses: automatic ones are the lowest that are free, and the gateway's
// is not.
func TestAddresses(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	if p := d.port("a"); !slices.Equal(p.IPs, []string{"198.18.0.2/24"}) || p.MAC != attach.StableMAC("node", "a").String() {
		t.Errorf("%+v", p)
	}
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c", IPs: []string{"198.18.0.2/24", "auto"}}, nil)
	if p := d.port("c"); !slices.Equal(p.IPs, []string{"198.18.0.2/24", "198.18.0.4/24"}) {
		t.Errorf("%+v", p)
	}
	d.must("POST", api.PathNetworks, `{"name":"tiny","subnets":["198.18.1.0/30"],"gateways":["198.18.1.1"]}`, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "x", Network: "tiny", NetNS: "/run/netns/a", IPs: []string{"auto"}}, nil)
	status, err := d.call("POST", api.PathPorts, config.Port{Name: "y", Network: "tiny", NetNS: "/run/netns/a", IfName: "eth1", IPs: []string{"auto"}}, nil)
	if status != http.StatusConflict || !strings.Contains(err.Why, "no address is free") {
		t.Errorf("full subnet: %d %v", status, err)
	}
}

// TestAutomaticFamilies: one "auto" is an address of each family, none that
// another port of the same file asks for, and what is chosen can be read back.
func TestAutomaticFamilies(t *testing.T) {
	dir := t.TempDir()
	h := newTestHost()
	d := start(t, dir, h)
	d.must("POST", api.PathConfig, `{
		"networks": [{"name": "net", "subnets": ["198.18.7.0/30", "198.18.0.0/24", "2001:db8::/64"], "gateways": ["198.18.0.1"]}],
		"ports": [
			{"name": "a", "network": "net", "netns": "/run/netns/a", "ips": ["auto"], "default_route": true},
			{"name": "b", "network": "net", "netns": "/run/netns/b", "ips": ["198.18.0.2/24", "2001:db8::1/64"]}]}`, nil)
	want := []string{"198.18.0.3/24", "2001:db8::2/64"}
	if p := d.port("a"); !slices.Equal(p.IPs, want) {
		t.Errorf("%v, want %v", p.IPs, want)
	}
	// It keeps them.
	d.must("POST", api.PathPorts, config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c", IPs: []string{"auto"}}, nil)
	var done api.Applied
	d.must("POST", api.PathConfig, `{"ports": [{"name": "a", "network": "net", "netns": "/run/netns/a", "ips": ["auto"], "default_route": true}]}`, &done)
	if p := d.port("a"); !slices.Equal(p.IPs, want) || len(done.Unchanged) != 1 {
		t.Errorf("%v, want %v; %+v", p.IPs, want, done)
	}
	many := []string{"auto"}
	for i := range config.MaxIPs - 1 {
		many = append(many, fmt.Sprintf("198.18.0.%d/24", 100+i))
	}
	status, err := d.call("POST", api.PathPorts, config.Port{Name: "m", Network: "net", NetNS: "/run/netns/a", IfName: "m", IPs: many}, nil)
	if status != http.StatusConflict || !strings.Contains(err.Why, "at most 64") {
		t.Errorf("one too many: %d %v", status, err)
	}
	// A gateway whose subnet is full is reached from no other.
	d.must("POST", api.PathNetworks, `{"name":"full","subnets":["198.18.1.0/31","198.18.2.0/24"],"gateways":["198.18.1.1"]}`, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "f", Network: "full", NetNS: "/run/netns/a", IfName: "f", IPs: []string{"auto"}}, nil)
	spec := config.Port{Name: "g", Network: "full", NetNS: "/run/netns/a", IfName: "g", IPs: []string{"auto"}, DefaultRoute: true}
	if status, err := d.call("POST", api.PathPorts, spec, nil); status != http.StatusBadRequest || !strings.Contains(err.Why, "reaches a gateway") {
		t.Errorf("no address beside the gateway: %d %v", status, err)
	}
	before := d.Export()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if after := start(t, dir, newTestHost()).Export(); !reflect.DeepEqual(before, after) {
		t.Errorf("%v, was %v", after, before)
	}
}

// TestDefaultRoute: the gateways that the port's addresses reach.
func TestDefaultRoute(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.must("POST", api.PathNetworks, `{"name":"net","subnets":["198.18.0.0/24","2001:db8::/64"],"gateways":["198.18.0.1","2001:db8::1"]}`, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "a", Network: "net", NetNS: "/run/netns/a", IPs: []string{"auto"}, DefaultRoute: true}, nil)
	if r := d.h.device(linkA).o.routes; len(r) != 2 || r[0].String() != "198.18.0.1" || r[1].String() != "2001:db8::1" {
		t.Errorf("routes %v", r)
	}
	d.must("POST", api.PathPorts, config.Port{Name: "b", Network: "net", NetNS: "/run/netns/b", IPs: []string{"198.18.0.9/24"}, DefaultRoute: true}, nil)
	if r := d.h.device(linkB).o.routes; len(r) != 1 || r[0].String() != "198.18.0.1" {
		t.Errorf("routes %v", r)
	}
}

// TestAddIsAtomic: whichever step fails, nothing is there afterwards, and the
// same add works next.
func TestAddIsAtomic(t *testing.T) {
	spec := config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c"}
	for name, sabotage := range map[string]func(d *testDaemon) (repair func()){
		"host refuses": func(d *testDaemon) func() {
			d.h.set(func() { d.h.failOpen = errors.New("no more TAPs") })
			return func() { d.h.set(func() { d.h.failOpen = nil }) }
		},
		"network refuses": func(d *testDaemon) func() {
			p := mem.New(mem.Config{Workers: 1})
			if err := d.networks["net"].live.Attach(4, p, vswitch.PortConfig{MTU: 1500}); err != nil {
				t.Fatal(err)
			}
			return func() { _ = d.networks["net"].live.Detach(4) }
		},
		"engine refuses": func(d *testDaemon) func() {
			if err := d.engine.Attach(4, mem.New(mem.Config{Workers: 1}), nil); err != nil {
				t.Fatal(err)
			}
			return func() { d.engine.Detach(4) }
		},
		"state can't be saved": func(d *testDaemon) func() {
			path := d.state.path
			d.state.path = filepath.Join(d.dir, "missing", stateFile)
			return func() { d.state.path = path }
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, t.TempDir(), newTestHost())
			d.setUp()
			saved, _ := os.ReadFile(d.state.path)
			repair := sabotage(d)
			if status, err := d.call("POST", api.PathPorts, spec, nil); err == nil {
				t.Fatalf("the add worked: %d", status)
			}
			if len(d.h.links) != 2 || d.h.opened != 2 || len(d.Ports()) != 2 {
				t.Errorf("left behind: links %v, %d devices, ports %v", d.h.links, d.h.opened, d.Ports())
			}
			repair()
			if now, _ := os.ReadFile(d.state.path); string(now) != string(saved) {
				t.Errorf("state changed to %s", now)
			}
			d.must("POST", api.PathPorts, spec, nil)
			d.must("DELETE", api.PathPorts+"/c", nil, nil)
			if len(d.h.links) != 2 || d.h.opened != 2 {
				t.Errorf("after rm: links %v, %d devices", d.h.links, d.h.opened)
			}
		})
	}
}

// TestRefusals: each bad request has its status and says what is wrong.
func TestRefusals(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	for _, tt := range []struct {
		method, path, body string
		status             int
		what, why          string
	}{
		{"POST", api.PathNetworks, `{"name":"net"}`, 409, "network add net", "it exists"},
		{"POST", api.PathNetworks, `{"name":"N!"}`, 400, `network add N!`, "name"},
		{"POST", api.PathNetworks, `{"name":"x","vni":` + fmt.Sprint(config.VNIOf("net")) + `}`, 409, "network add x", "VNI"},
		{"POST", api.PathNetworks, `{"name":"x","color":"red"}`, 400, "network add", "color"},
		{"POST", api.PathNetworks, `{"name":"x"} {}`, 400, "network add", ""},
		{"POST", api.PathNetworks, `nonsense`, 400, "network add", ""},
		{"POST", api.PathNetworks, ``, 400, "network add", ""},
		{"POST", api.PathNetworks, `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, "network add", "longer than"},
		{"POST", api.PathConfig, `{"networks":[{"name":"` + strings.Repeat("x", config.MaxFile) + `"}]}`, 413, "apply", "longer than"},
		{"POST", api.PathPorts, `{"name":"c","network":"none","netns":"/run/netns/c"}`, 404, "port add c", "no network none"},
		{"POST", api.PathPorts, `{"name":"a","network":"net","netns":"/run/netns/c"}`, 409, "port add a", "it exists"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/none"}`, 422, "port add c", "no such namespace"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/a"}`, 409, "port add c", "eth0"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/c","ips":["198.18.0.2/24"]}`, 409, "port add c", "198.18.0.2"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/c","ips":["203.0.113.1/24"]}`, 400, "port add c", "203.0.113.1"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/c","mac":"01:00:00:00:00:00"}`, 400, "port add c", "multicast"},
		{"POST", api.PathPorts, `{"name":"c","network":"net","netns":"/run/netns/c","pid":1}`, 400, "port add c", ""},
		{"DELETE", api.PathPorts + "/none", ``, 404, "port rm none", "no port none"},
		{"GET", api.PathPorts + "/none", ``, 404, "port show none", "no port none"},
		{"GET", api.PathPorts + "/%22%0a", ``, 404, "", "no port"},
		{"DELETE", api.PathNetworks + "/net", ``, 409, "network rm net", "2 ports are on it"},
		{"DELETE", api.PathNetworks + "/none", ``, 404, "network rm none", "no network none"},
		{"GET", api.PathNetworks + "/none", ``, 404, "network show none", "no network none"},
		{"GET", api.PathFDB + "?network=none", ``, 404, "fdb ls", "no network none"},
		{"GET", api.PathFDB + "?color=red", ``, 400, "fdb ls", "no parameter color: want network"},
		{"DELETE", api.PathFDB + "?color=red", ``, 400, "fdb flush", "no parameter color: want network or port"},
		{"DELETE", api.PathFDB + "?network=none", ``, 404, "fdb flush", "no network none"},
		{"GET", api.PathFDB + "?network=a&network=b", ``, 400, "fdb ls", "2 times"},
		{"POST", api.PathFDB, `{"mac":"02:00:00:00:00:09","network":"net","port":"none"}`, 404, "", "no port none"},
		{"DELETE", api.PathFDB + "?network=net&mac=02:00:00:00:00:09", ``, 404, "", "no entry"},
		{"DELETE", api.PathFDB + "?network=net&mac=fish", ``, 400, "fdb rm fish", "MAC"},
		{"DELETE", api.PathFDB + "?port=none", ``, 404, "fdb flush", "no port none"},
		{"GET", api.PathDrops + "?port=none", ``, 404, "drops", "no port none"},
		{"GET", api.PathEvents + "?follow=maybe", ``, 400, "events", "follow"},
		{"GET", "/v1/nothing", ``, 404, "", "no such path"},
		{"PUT", api.PathPorts, ``, 405, "", "no such method"},
		{"POST", api.PathConfig, `{"ports":[{"name":"z","network":"none","netns":"/x"}]}`, 409, "apply", "no network"},
	} {
		status, err := d.call(tt.method, tt.path, tt.body, nil)
		if err == nil || status != tt.status || !strings.Contains(err.Why, tt.why) || !strings.Contains(err.What, tt.what) {
			t.Errorf("%s %s %.60s: %d %+v, want %d %q %q", tt.method, tt.path, tt.body, status, err, tt.status, tt.what, tt.why)
		}
	}
	if len(d.h.links) != 2 || d.h.opened != 2 {
		t.Errorf("left behind: links %v, %d devices", d.h.links, d.h.opened)
	}
}

// TestRemoveFails: the port is gone, and the client learns what is left.
func TestRemoveFails(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	d.h.set(func() { d.h.failRemove = errors.New("interface stuck") })
	status, err := d.call("DELETE", api.PathPorts+"/a", nil, nil)
	if status != 422 || !strings.Contains(err.Why, "interface stuck") {
		t.Errorf("%d %v", status, err)
	}
	d.h.set(func() { d.h.failRemove = nil })
	if len(d.Ports()) != 1 {
		t.Errorf("ports %v", d.Ports())
	}
}

// TestStatics: entries are made, saved, survive their port's absence, and go
// with it.
func TestStatics(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	const body = `{"mac":"02:00:00:00:00:09","network":"net","port":"a"}`
	var e api.Entry
	d.must("POST", api.PathFDB, body, &e)
	if e != (api.Entry{MAC: "02:00:00:00:00:09", Network: "net", Port: "a", Static: true}) {
		t.Errorf("%+v", e)
	}
	if status, err := d.call("POST", api.PathFDB, body, nil); status != 409 {
		t.Errorf("twice: %d %v", status, err)
	}
	fdb := func() (all []api.Entry) {
		d.must("GET", api.PathFDB, nil, &all)
		return all
	}
	d.h.breakLink(linkA, errors.New("link down"))
	await(t, "down", func() bool { return d.port("a").State == api.StateDown })
	if got := fdb(); len(got) != 0 {
		t.Errorf("entries of a port that is down: %v", got)
	}
	d.h.breakLink(linkA, nil)
	await(t, "up", func() bool { return d.port("a").State == api.StateUp })
	if got := fdb(); len(got) != 1 || !got[0].Static {
		t.Errorf("after recovery: %v", got)
	}
	d.must("DELETE", api.PathFDB+"?network=net", nil, nil) // Flush leaves it.
	if got := fdb(); len(got) != 1 {
		t.Errorf("after flush: %v", got)
	}
	d.must("DELETE", api.PathFDB+"?network=net&mac=02:00:00:00:00:09", nil, nil)
	if got := fdb(); len(got) != 0 || len(d.Export().FDB) != 0 {
		t.Errorf("after rm: %v", got)
	}
	d.must("POST", api.PathFDB, body, nil)
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	if got := fdb(); len(got) != 0 || len(d.Export().FDB) != 0 {
		t.Errorf("after port rm: %v", got)
	}
}

// TestMetrics: every counter is there, by Prometheus' own format.
func TestMetrics(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost(), func(o *Options) { o.Metrics = "127.0.0.1:0" })
	d.setUp()
	url := "http://" + d.metrics.Addr().String()
	defer http.DefaultClient.CloseIdleConnections()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	for _, want := range []string{
		`heddle_port_up{kind="tap",network="net",port="a"} 1`,
		`heddle_port_receive_frames_total{network="net",port="b"} 0`,
		`heddle_drops_total{reason="runt"} 0`,
		`heddle_network_max_macs{network="net"} 1000`,
		`heddle_workers 1`,
		`heddle_worker_rounds_total`,
		`heddle_clients_refused_total 0`,
		`go_goroutines`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	other, err := http.Get(url + "/debug/pprof/")
	if err != nil {
		t.Fatal(err)
	}
	other.Body.Close()
	if other.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %d", other.StatusCode)
	}
}
