package daemon

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
)

// TestComesBack: a link that is set down, deleted, or dies with its namespace.
func TestComesBack(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	d.must("POST", api.PathPorts, config.Port{Name: "b", Network: "net", NetNS: netns(b), IPs: []string{"198.18.0.3/24"}}, nil)
	for _, kind := range []string{config.KindTAP, config.KindVeth} {
		d.must("POST", api.PathPorts, config.Port{Name: "a", Network: "net", Kind: kind, NetNS: netns(a), IPs: []string{"198.18.0.2/24"}}, nil)
		ping(t, b, "198.18.0.2")
		// A namespace that is deleted is for a moment another thing than gone:
		// ip-netns(8) unmounts it before it unlinks the file.
		down := func(why string) {
			t.Helper()
			await(t, kind+" is down: "+why, func() bool {
				p := d.port("a")
				return p.State == api.StateDown && strings.Contains(p.Reason, why)
			})
		}
		up := func() {
			t.Helper()
			await(t, kind+" is up", func() bool { return d.port("a").State == api.StateUp })
		}
		ip(t, a, "link", "set", "eth0", "down")
		down("down")
		ip(t, a, "link", "set", "eth0", "up")
		up()
		ping(t, b, "198.18.0.2")

		old := strings.TrimSpace(ip(t, a, "-o", "link", "show", "eth0"))
		ip(t, a, "link", "del", "eth0")
		await(t, kind+" is made anew", func() bool {
			now, err := exec.Command("ip", "-n", a, "-o", "link", "show", "eth0").Output()
			return err == nil && strings.TrimSpace(string(now)) != old && d.port("a").State == api.StateUp
		})
		ping(t, b, "198.18.0.2")

		delNS(t, a)
		down("no such namespace")
		if p := d.port("b"); p.State != api.StateUp {
			t.Errorf("b noticed: %+v", p)
		}
		addNS(t, a)
		up()
		ping(t, b, "198.18.0.2")
		d.must("DELETE", api.PathPorts+"/a", nil, nil)
	}
}

// TestTakeOver: interfaces outlive a stop, and the next start has the same.
func TestTakeOver(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	dir := t.TempDir()
	d, _ := startIn(t, dir, host)
	d.addNet()
	d.must("POST", api.PathPorts, config.Port{Name: "a", Network: "net", NetNS: netns(a), IPs: []string{"198.18.0.2/24"}}, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "b", Network: "net", Kind: config.KindVeth, NetNS: netns(b), IPs: []string{"198.18.0.3/24"}}, nil)
	index := func(ns string) string {
		b, err := exec.Command("ip", "netns", "exec", ns, "cat", "/sys/class/net/eth0/ifindex").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	was := index(a) + index(b)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if r := ip(t, a, "route"); !strings.Contains(r, "198.18.0.0/24") {
		t.Errorf("the route is gone: %q", r)
	}
	d2, _ := startIn(t, dir, host)
	d2.allUp()
	if now := index(a) + index(b); now != was {
		t.Errorf("interfaces %q, were %q", now, was)
	}
	ping(t, a, "198.18.0.3")
}

// TestSweep: what a killed swd made for ports that it hadn't saved is removed,
// in its own namespace at the start and in others when a port comes there; what
// ports claim, a process holds, or isn't Heddle's stays.
func TestSweep(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	dir := t.TempDir()
	d, _ := startIn(t, dir, host)
	d.addNet()
	d.must("POST", api.PathPorts, config.Port{Name: "kept", Network: "net", NetNS: netns(a), Kind: config.KindVeth}, nil)
	d.must("POST", api.PathPorts, config.Port{Name: "host", Network: "net", IfName: "host0"}, nil)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	// A kill between making and saving.
	killed := machineIn(t, host)
	for _, s := range []config.Port{
		{Name: "v", NetNS: netns(b), Kind: config.KindVeth, IfName: "v0"},
		{Name: "t", NetNS: netns(b)},
		{Name: "h", IfName: "h0"},
		{Name: "kept", NetNS: netns(a), IfName: "eth9"}, // Of an earlier shape of the port.
	} {
		dev, err := killed.open(context.Background(), order{spec: s.WithDefaults(), mac: attach.StableMAC("n", s.Name), mtu: 1500, workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := dev.release(); err != nil {
			t.Fatal(err)
		}
	}
	if err := killed.close(); err != nil {
		t.Fatal(err)
	}
	ip(t, host, "link", "add", "foreign", "type", "bridge")
	has := func(ns, want, not string) {
		t.Helper()
		links := ip(t, ns, "-o", "link")
		for _, name := range strings.Fields(want) {
			if !strings.Contains(links, " "+name+":") && !strings.Contains(links, " "+name+"@") {
				t.Errorf("%s: no %s in\n%s", ns, name, links)
			}
		}
		for _, name := range strings.Fields(not) {
			if strings.Contains(links, " "+name+":") || strings.Contains(links, " "+name+"@") {
				t.Errorf("%s: %s is left in\n%s", ns, name, links)
			}
		}
	}
	has(host, "hd-kept hd-v h0 host0 foreign", "")
	has(b, "v0 eth0", "")
	d, _ = startIn(t, dir, host)
	has(host, "hd-kept host0 foreign", "hd-v h0")
	d.allUp()
	has(a, "eth0", "eth9")
	has(b, "eth0", "v0")
	d.must("POST", api.PathPorts, config.Port{Name: "new", Network: "net", NetNS: netns(b), IfName: "new0"}, nil)
	has(b, "new0", "eth0")
	d.allUp()
}
