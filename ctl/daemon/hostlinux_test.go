package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

//	      namespace host: the daemon under test
//	      ┌───────────────────────────────────────┐
//	 ┌────┤tap a   veth hd-b┐  tap c   packet up0 │
//	 │    └─────────────────┼─────────────────┬───┘
//	┌┴───────┐  ┌───────────┴┐  ┌────────┐  ┌─┴──────┐
//	│a: eth0 │  │b: eth0     │  │c: eth0 │  │d: eth0 │
//	│ .2     │  │ .3         │  │ .4     │  │ .5     │
//	└────────┘  └────────────┘  └────────┘  └────────┘

// TestKinds: every kind of port reaches every other, with IPv4 and IPv6.
func TestKinds(t *testing.T) {
	host, a, b, c, x := newNS(t, "host"), newNS(t, "a"), newNS(t, "b"), newNS(t, "c"), newNS(t, "d")
	ip(t, host, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", x)
	ip(t, host, "link", "set", "up0", "up")
	ip(t, x, "addr", "add", "198.18.0.5/24", "dev", "eth0")
	ip(t, x, "addr", "add", "2001:db8::5/64", "dev", "eth0", "nodad")
	ip(t, x, "link", "set", "eth0", "up")
	before := snapshot(t, host)
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	for i, p := range []config.Port{
		{Name: "a", NetNS: netns(a)},
		{Name: "b", NetNS: netns(b), Kind: config.KindVeth, DefaultRoute: true},
		{Name: "c", NetNS: netns(c)},
		{Name: "d", Kind: config.KindPacket, Interface: "up0"},
		{Name: "h", IfName: "host0"},
	} {
		p.Network = "net"
		if p.Kind != config.KindPacket {
			p.IPs = []string{fmt.Sprintf("198.18.0.%d/24", i+2), fmt.Sprintf("2001:db8::%d/64", i+2)}
		}
		var got api.Port
		d.must("POST", api.PathPorts, p, &got)
		if got.State != api.StateUp || got.MTU != 1500 || got.MAC == "" {
			t.Errorf("%+v", got)
		}
	}
	if r := ip(t, b, "route", "show", "default"); !strings.Contains(r, "via 198.18.0.1") {
		t.Errorf("default route: %q", r)
	}
	for i, from := range []string{a, b, c, x, host} {
		for j := 2; j <= 6; j++ {
			if j != i+2 {
				ping(t, from, fmt.Sprintf("198.18.0.%d", j))
				ping(t, from, fmt.Sprintf("2001:db8::%d", j))
			}
		}
	}
	for _, p := range []string{"a", "b", "c", "d", "h"} {
		d.must("DELETE", api.PathPorts+"/"+p, nil, nil)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if after := snapshot(t, host); stable(after) != stable(before) {
		t.Errorf("left in host:\n%s\nwas:\n%s", after, before)
	}
	for _, ns := range []string{a, b, c} {
		if l := ip(t, ns, "-o", "link"); strings.Contains(l, "eth0") {
			t.Errorf("left in %s: %s", ns, l)
		}
	}
}

// TestStepsAreUndone: whichever step of making a port fails, the namespaces
// are as before; then it works, and they are as before when the port goes.
func TestStepsAreUndone(t *testing.T) {
	host, a := newNS(t, "host"), newNS(t, "a")
	ip(t, host, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
	ip(t, host, "link", "set", "up0", "up")
	// An offload that a packet port switches off.
	if out, err := exec.Command("ip", "netns", "exec", host, "ethtool", "-K", "up0", "rx-gro-list", "on").CombinedOutput(); err != nil {
		t.Fatalf("ethtool: %v: %s", err, out)
	}
	d, m := startIn(t, t.TempDir(), host)
	d.addNet()
	for _, tt := range []struct {
		spec  config.Port
		steps []string
	}{
		{config.Port{NetNS: netns(a), IPs: []string{"auto"}, DefaultRoute: true}, []string{"tap", "claim", "configure", "follow"}},
		{config.Port{NetNS: netns(a), IPs: []string{"auto"}, Kind: config.KindVeth}, []string{"veth", "silence", "socket", "configure", "follow"}},
		{config.Port{Kind: config.KindPacket, Interface: "up0"}, []string{"silence", "offloads", "socket", "follow"}},
	} {
		tt.spec.Name, tt.spec.Network = "p", "net"
		var seen []string
		before := snapshot(t, host) + snapshot(t, a)
		unchanged := func(what string) {
			t.Helper()
			if after := snapshot(t, host) + snapshot(t, a); stable(after) != stable(before) {
				t.Errorf("%s, %s left\n%s\nwas\n%s", tt.spec.Kind, what, after, before)
			}
		}
		for _, step := range append(tt.steps, "") {
			seen = nil
			m.before = func(s string) error {
				seen = append(seen, s)
				if s == step {
					return errors.New("injected")
				}
				return nil
			}
			status, err := d.call("POST", api.PathPorts, tt.spec, nil)
			if step == "" {
				if err != nil {
					t.Errorf("%s: after the failures: %v", tt.spec.Kind, err)
				}
				break
			}
			if err == nil || status != 422 || !strings.Contains(err.Why, "injected") {
				t.Fatalf("%s, %s: %d %v", tt.spec.Kind, step, status, err)
			}
			unchanged(step)
		}
		if !slices.Equal(seen, tt.steps) {
			t.Errorf("%s has steps %v, tested are %v", tt.spec.Kind, seen, tt.steps)
		}
		d.must("DELETE", api.PathPorts+"/p", nil, nil)
		unchanged("rm")
	}
}

// TestHostRefuses: what the host lacks or has already is a clear error, and
// nothing is left.
func TestHostRefuses(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	ip(t, a, "link", "add", "eth0", "type", "bridge")
	ip(t, host, "link", "add", "br0", "type", "bridge")
	ip(t, host, "link", "add", "member", "type", "veth", "peer", "name", "other")
	ip(t, host, "link", "set", "member", "master", "br0")
	ip(t, b, "link", "add", "up2", "type", "bridge")
	ip(t, b, "link", "set", "up2", "up")
	ip(t, b, "route", "add", "default", "dev", "up2")
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	before := snapshot(t, host) + snapshot(t, a) + snapshot(t, b)
	for _, tt := range []struct {
		spec config.Port
		why  string
	}{
		{config.Port{NetNS: netns("hddmn-none")}, "no such namespace"},
		{config.Port{NetNS: "/etc/passwd"}, "not a network namespace"},
		{config.Port{PID: gone.Process.Pid}, "no such namespace"},
		{config.Port{NetNS: netns(a)}, "eth0"},
		{config.Port{NetNS: netns(a), Kind: config.KindVeth}, "interface already exists"},
		{config.Port{NetNS: netns(b), IPs: []string{"auto"}, DefaultRoute: true}, "default route"},
		{config.Port{NetNS: netns(b), Kind: config.KindVeth, IPs: []string{"auto"}, DefaultRoute: true}, "default route"},
		{config.Port{Kind: config.KindPacket, Interface: "member"}, "interface already taken"},
		{config.Port{Kind: config.KindPacket, Interface: "none0"}, "no such interface"},
		{config.Port{Kind: config.KindPacket, Interface: "lo"}, "lo"},
	} {
		tt.spec.Name, tt.spec.Network = "p", "net"
		status, err := d.call("POST", api.PathPorts, tt.spec, nil)
		if err == nil || status != http.StatusUnprocessableEntity || !strings.Contains(err.Why, tt.why) {
			t.Errorf("%+v: %d %v, want 422 %q", tt.spec, status, err, tt.why)
		}
	}
	if after := snapshot(t, host) + snapshot(t, a) + snapshot(t, b); stable(after) != stable(before) {
		t.Errorf("left\n%s\nwas\n%s", after, before)
	}
}

// TestDescriptors: adding and removing ports leaks none.
func TestDescriptors(t *testing.T) {
	host, a := newNS(t, "host"), newNS(t, "a")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	open := func() int {
		all, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	round := func() {
		for _, kind := range []string{config.KindTAP, config.KindVeth} {
			spec := config.Port{Name: "p", Network: "net", Kind: kind, NetNS: netns(a), IPs: []string{"auto"}}
			if err := d.AddPort(context.Background(), spec); err != nil {
				t.Fatal(err)
			}
			if err := d.RemovePort("p"); err != nil {
				t.Fatal(err)
			}
		}
	}
	round()
	before := open()
	for range 5 {
		round()
	}
	// The daemon's own goroutines open some for moments.
	await(t, "no more descriptors than before", func() bool { return open() <= before })
}

// TestOwnNamespace: whatever names the namespace of a container, it must not be
// swd's own.
func TestOwnNamespace(t *testing.T) {
	host := newNS(t, "host")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	p := exec.Command("ip", "netns", "exec", host, "sleep", "60")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Process.Kill(); _ = p.Wait() }()
	// ip(8) is in the test's namespace until it has become sleep.
	await(t, "sleep runs", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Process.Pid))
		return err == nil && string(b) == "sleep\n"
	})
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"Id":"c","State":{"Running":true,"Pid":%d}}`, p.Process.Pid)
	})}
	socket := filepath.Join(t.TempDir(), "engine")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = engine.Serve(l) }()
	defer func() { _ = engine.Close() }()
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	before := snapshot(t, host)
	for _, spec := range []config.Port{
		{PID: p.Process.Pid}, {NetNS: netns(host)}, {NetNS: fmt.Sprintf("/proc/%d/ns/net", p.Process.Pid)}, {Container: "c"},
	} {
		spec.Name, spec.Network = "p", "net"
		status, err := d.call("POST", api.PathPorts, spec, nil)
		if status != 422 || !strings.Contains(err.Why, "swd's own namespace") {
			t.Errorf("%+v: %d %v", spec, status, err)
		}
	}
	if after := snapshot(t, host); stable(after) != stable(before) {
		t.Errorf("left\n%s\nwas\n%s", after, before)
	}
}
