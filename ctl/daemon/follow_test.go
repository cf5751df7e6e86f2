package daemon

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// sharedNIC is a daemon with port lan on up0, which the host keeps 192.0.2.1
// on, and port a; x, at 192.0.2.2, is on the other end of up0's wire.
func sharedNIC(t *testing.T) (d *testDaemon, dir, host, a, x string) {
	t.Helper()
	host, a, x = newNS(t, "host"), newNS(t, "a"), newNS(t, "x")
	ip(t, host, "link", "add", "up0", "address", "02:00:00:00:05:01", "type", "veth", "peer", "name", "eth0", "netns", x)
	ip(t, host, "addr", "add", "192.0.2.1/24", "dev", "up0")
	ip(t, host, "link", "set", "up0", "up")
	ip(t, x, "addr", "add", "192.0.2.2/24", "dev", "eth0")
	ip(t, x, "link", "set", "eth0", "up")
	dir = t.TempDir()
	d, _ = startIn(t, dir, host)
	d.addNet()
	d.must("POST", api.PathPorts, config.Port{Name: "lan", Network: "net", Kind: config.KindPacket, Interface: "up0"}, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "a", Network: "net", NetNS: netns(a), IPs: []string{"198.18.0.2/24"}}, nil)
	return d, dir, host, a, x
}

func (d *testDaemon) entry(mac string) (e api.Entry, ok bool) {
	d.t.Helper()
	var all []api.Entry
	d.must("GET", api.PathFDB, nil, &all)
	for _, e := range all {
		if e.MAC == mac {
			return e, true
		}
	}
	return e, false
}

// TestSharedNIC: what comes from the wire for the host itself is flooded to
// nobody, whichever address its NIC has.
func TestSharedNIC(t *testing.T) {
	d, dir, host, _, x := sharedNIC(t)
	const mac, next = "02:00:00:00:05:01", "02:00:00:00:05:02"
	static := func(mac string) {
		t.Helper()
		await(t, mac+" is an entry", func() bool {
			e, ok := d.entry(mac)
			return ok && e.Static && e.Port == "lan" && e.Network == "net"
		})
	}
	static(mac)
	quiet := func() {
		t.Helper()
		ping(t, x, "192.0.2.1")
		before, drops := d.port("a").TxFrames, d.port("lan").Drops["same-port"]
		out, err := exec.Command("ip", "netns", "exec", x, "ping", "-n", "-c", "20", "-i", "0.01", "192.0.2.1").CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		await(t, "20 frames came in", func() bool { return d.port("lan").Drops["same-port"] >= drops+20 })
		if more := d.port("a").TxFrames - before; more >= 20 {
			t.Errorf("%d frames went to a container", more)
		}
	}
	quiet()
	status, err := d.call("DELETE", api.PathFDB+"?network=net&mac="+mac, nil, nil)
	if status != 409 || !strings.Contains(err.Why, "up0") {
		t.Errorf("fdb rm: %d %v", status, err)
	}
	status, err = d.call("POST", api.PathFDB, config.Static{MAC: mac, Network: "net", Port: "a"}, nil)
	if status != 409 || !strings.Contains(err.Why, "port lan") {
		t.Errorf("fdb add: %d %v", status, err)
	}
	// An entry of one's own for the same comes and goes, and the NIC's stays.
	d.must("POST", api.PathFDB, config.Static{MAC: mac, Network: "net", Port: "lan"}, nil)
	d.must("DELETE", api.PathFDB+"?network=net&mac="+mac, nil, nil)
	static(mac)
	if c := d.Export(); len(c.FDB) != 0 {
		t.Errorf("exported: %v", c.FDB)
	}
	ip(t, host, "link", "set", "up0", "address", next)
	static(next)
	if _, ok := d.entry(mac); ok {
		t.Errorf("%s is still there", mac)
	}
	if p := d.port("lan"); p.MAC != next {
		t.Errorf("%+v", p)
	}
	ip(t, x, "neigh", "flush", "all")
	quiet()

	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d, _ = startIn(t, dir, host)
	d.allUp()
	static(next)
	d.must("DELETE", api.PathPorts+"/lan", nil, nil)
	if _, ok := d.entry(next); ok {
		t.Error("the entry outlived the port")
	}
	// One that was asked for has been there first: it stays.
	d.must("POST", api.PathFDB, config.Static{MAC: next, Network: "net", Port: "a"}, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "lan", Network: "net", Kind: config.KindPacket, Interface: "up0"}, nil)
	if e, _ := d.entry(next); e.Port != "a" || d.port("lan").State != api.StateUp {
		t.Errorf("%+v %+v", e, d.port("lan"))
	}
	d.must("DELETE", api.PathFDB+"?network=net&mac="+next, nil, nil)
	static(next)
}

// TestFollowsInterface: the MTU and the name of a packet port's interface are
// what they are now, and frames may be as long as the lesser MTU.
func TestFollowsInterface(t *testing.T) {
	d, _, host, _, _ := sharedNIC(t)
	for _, tt := range []struct{ set, want int }{{1400, 1400}, {9000, 1500}, {1300, 1300}, {1500, 1500}} {
		ip(t, host, "link", "set", "up0", "mtu", fmt.Sprint(tt.set))
		await(t, fmt.Sprintf("MTU %d", tt.want), func() bool { return d.port("lan").MTU == tt.want })
	}
	ip(t, host, "link", "set", "up0", "down")
	ip(t, host, "link", "set", "up0", "name", "wan0")
	ip(t, host, "link", "set", "wan0", "up")
	await(t, "wan0 is up", func() bool { p := d.port("lan"); return p.IfName == "wan0" && p.State == api.StateUp })
}

// TestKernelDrops: what the kernel dropped before swd could read it shows
// wherever drops do, and stays when the device and the port go.
func TestKernelDrops(t *testing.T) {
	h := newTestHost()
	d := start(t, t.TempDir(), h, func(o *Options) { o.Metrics = "127.0.0.1:0" })
	d.setUpQuiet() // What a gateway says of itself to nobody is a drop too.
	const key = "/run/netns/a|eth0"
	count := func(want uint64) {
		t.Helper()
		if got := d.port("a").Drops["rx-kernel"]; got != want {
			t.Errorf("port show: %d, want %d", got, want)
		}
		if got := d.Ports()[0].Drops["rx-kernel"]; got != want {
			t.Errorf("port ls: %d, want %d", got, want)
		}
		if got, err := d.Drops("a"); err != nil || len(got) != 1 || got[0].Count != want {
			t.Errorf("drops --port: %v %v, want %d", got, err, want)
		}
	}
	total := func(want uint64) {
		t.Helper()
		if got := d.Status().Drops; got != want {
			t.Errorf("status: %d, want %d", got, want)
		}
		res, err := http.Get("http://" + d.metrics.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if line := fmt.Sprintf("heddle_drops_total{reason=\"rx-kernel\"} %d\n", want); err != nil || !strings.Contains(string(text), line) {
			t.Errorf("metrics lack %q: %v", line, err)
		}
	}
	h.device(key).lost.Store(7)
	count(7)
	total(7)
	h.device(key).lost.Store(8) // A tick may find the namespace gone at any time.
	h.set(func() { h.namespaces["/run/netns/a"] = false })
	h.poke()
	await(t, "a is down", func() bool { return d.port("a").State == api.StateDown })
	count(8)
	h.set(func() { h.namespaces["/run/netns/a"] = true })
	await(t, "a is up", func() bool { return d.port("a").State == api.StateUp })
	h.device(key).lost.Store(1)
	count(9)
	h.device(key).lost.Store(2)
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	total(10)
}

// TestLinkDownAndUp: what the kernel takes from an interface whose link is set
// down is there again when it is up, also if it was down for a moment only.
func TestLinkDownAndUp(t *testing.T) {
	host, a := newNS(t, "host"), newNS(t, "a")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	for _, kind := range []string{config.KindTAP, config.KindVeth} {
		d.must("POST", api.PathPorts, config.Port{
			Name: "a", Network: "net", Kind: kind, NetNS: netns(a),
			IPs: []string{"198.18.0.2/24", "2001:db8::2/64"}, DefaultRoute: true,
		}, nil)
		whole := func(when string) {
			t.Helper()
			await(t, kind+" has all again "+when, func() bool {
				return strings.Contains(ip(t, a, "addr", "show", "eth0"), "2001:db8::2/64") &&
					strings.Contains(ip(t, a, "route", "show", "default"), "via 198.18.0.1") && d.port("a").State == api.StateUp
			})
		}
		whole("at first")
		ip(t, a, "link", "set", "eth0", "down")
		await(t, "down", func() bool { return d.port("a").State == api.StateDown })
		ip(t, a, "link", "set", "eth0", "up")
		whole("after a while")
		ip(t, a, "link", "set", "eth0", "down")
		ip(t, a, "link", "set", "eth0", "up")
		whole("after a moment")
		d.must("DELETE", api.PathPorts+"/a", nil, nil)
	}
}

// TestDefaultMACsAreTaken: an address that another port has by default is
// refused as one that it was given.
func TestDefaultMACsAreTaken(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	mac := d.port("a").MAC
	want := func(status int, err *api.Error) {
		t.Helper()
		if status != 409 || !strings.Contains(err.Why, mac+" is the address of port \"a\"") {
			t.Errorf("%d %v", status, err)
		}
	}
	want(d.call("POST", api.PathPorts, config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c", MAC: mac}, nil))
	want(d.call("POST", api.PathConfig, config.Config{Ports: []config.Port{
		{Name: "b", Network: "net", NetNS: "/run/netns/b", IPs: []string{"auto"}, MAC: mac},
	}}, nil))
	d.must("POST", api.PathNetworks, `{"name":"other"}`, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "c", Network: "other", NetNS: "/run/netns/c", MAC: mac}, nil)
}

// TestIsolatedGateway: in an isolated network ports reach the port that has the
// gateway's address, and nobody else.
func TestIsolatedGateway(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	d, _ := startIn(t, t.TempDir(), host)
	d.must("POST", api.PathNetworks, `{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.1"],"isolated":true}`, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "host", Network: "net", IfName: "host0", IPs: []string{"198.18.0.1/24"}}, nil)
	for _, ns := range []string{a, b} {
		d.must("POST", api.PathPorts, config.Port{Name: ns, Network: "net", NetNS: netns(ns), IPs: []string{"auto"}}, nil)
	}
	for _, ns := range []string{a, b} {
		ping(t, ns, "198.18.0.1")
	}
	ping(t, host, "198.18.0.2")
	if out, err := exec.Command("ip", "netns", "exec", a, "ping", "-n", "-c", "1", "-W", "1", "198.18.0.3").CombinedOutput(); err == nil {
		t.Errorf("ordinary ports reach each other: %s", out)
	}
}

// TestProcessEnds: a port that a process's end takes down leaves nothing in a
// namespace that lives on.
func TestProcessEnds(t *testing.T) {
	host, a := newNS(t, "host"), newNS(t, "a")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	for _, kind := range []string{config.KindTAP, config.KindVeth} {
		p := exec.Command("ip", "netns", "exec", a, "sleep", "60")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "sleep runs", func() bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Process.Pid))
			return err == nil && string(b) == "sleep\n"
		})
		d.must("POST", api.PathPorts, config.Port{Name: "p", Network: "net", Kind: kind, PID: p.Process.Pid, IPs: []string{"auto"}}, nil)
		_ = p.Process.Kill()
		_ = p.Wait()
		await(t, kind+" is down", func() bool { return d.port("p").State == api.StateDown })
		d.must("DELETE", api.PathPorts+"/p", nil, nil)
		if links := ip(t, a, "-o", "link") + ip(t, host, "-o", "link"); strings.Contains(links, "eth0") || strings.Contains(links, "hd-p") {
			t.Errorf("%s left\n%s", kind, links)
		}
	}
}

// TestApplyInPlace: addresses, routes, MTU and gateways change without another
// device; an apply that the host would refuse touches none.
func TestApplyInPlace(t *testing.T) {
	h := newTestHost()
	d := start(t, t.TempDir(), h)
	d.setUp()
	const key = "/run/netns/a|eth0"
	dev := h.device(key)
	same := func() order {
		t.Helper()
		if h.device(key) != dev || d.port("a").State != api.StateUp {
			t.Errorf("another device, or down: %+v", d.port("a"))
		}
		var o order
		h.set(func() { o = dev.o })
		return o
	}
	apply := func(text string) (int, *api.Error) { return d.call("POST", api.PathConfig, text, nil) }
	if _, err := apply(`{"ports":[{"name":"a","network":"net","netns":"/run/netns/a","ips":["198.18.0.9/24"],"default_route":true}]}`); err != nil {
		t.Fatal(err)
	}
	if o := same(); fmt.Sprint(o.ips, o.routes) != "[198.18.0.9/24] [198.18.0.1]" {
		t.Errorf("%v %v", o.ips, o.routes)
	}
	if _, err := apply(`{"networks":[{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.254"],"mtu":1400}]}`); err != nil {
		t.Fatal(err)
	}
	if o := same(); o.mtu != 1400 || fmt.Sprint(o.routes) != "[198.18.0.254]" || d.port("a").MTU != 1400 {
		t.Errorf("%+v", o)
	}
	h.set(func() { h.failConfigure = errors.New("injected") })
	if status, err := apply(`{"networks":[{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.254"],"mtu":1300}]}`); err == nil {
		t.Errorf("%d: b refused", status)
	}
	if o := same(); o.mtu != 1400 || d.port("a").MTU != 1400 {
		t.Errorf("after a refusal: %+v", o)
	}
	h.set(func() { h.failConfigure = nil })
	// a would be remade, c is refused: a is left alone.
	status, err := apply(`{"ports":[{"name":"a","network":"net","netns":"/run/netns/a","ifname":"eth7","ips":["198.18.0.9/24"]},
		{"name":"c","network":"net","netns":"/run/netns/none","ips":["198.18.0.10/24"]}]}`)
	if status != 422 || !strings.Contains(err.Error(), "no such namespace") {
		t.Errorf("%d %v", status, err)
	}
	same()
}
