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

	"github.com/cilium/ebpf"
	ebpflink "github.com/cilium/ebpf/link"
	"go.uber.org/zap/zaptest"

	"heddle/ctl/api"
	"heddle/ctl/attach"
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

// ip runs iproute2 in a namespace.
func ip(t *testing.T, ns string, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", ns}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip -n %s %s: %v: %s", ns, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newNS makes a namespace of its own and returns its name.
func newNS(t *testing.T, name string) string {
	t.Helper()
	full := fmt.Sprintf("hdfix-%d-%s", os.Getpid(), name)
	addNS(t, full)
	ip(t, full, "link", "set", "lo", "up")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", full).Run() })
	return full
}

func addNS(t *testing.T, full string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "add", full).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add %s: %v: %s (root is needed)", full, err, out)
	}
}

func delNS(t *testing.T, full string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "del", full).CombinedOutput(); err != nil {
		t.Fatalf("ip netns del %s: %v: %s", full, err, out)
	}
}

// machineIn is the machine as a swd inside the namespace sees it.
func machineIn(t *testing.T, ns string) *machine {
	t.Helper()
	host, err := attach.ByPath("/run/netns/" + ns)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	var m *machine
	err = host.Do(func() (err error) {
		m, err = openMachine(zaptest.NewLogger(t))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// startIn starts a daemon in a namespace.
func startIn(t *testing.T, dir, ns string) (*testDaemon, *machine) {
	t.Helper()
	m := machineIn(t, ns)
	return startOn(t, dir, m, func(o *Options) { o.Workers = 2 }), m
}

// netns is a path for a spec.
func netns(ns string) string { return "/run/netns/" + ns }

func (d *testDaemon) addNet() {
	d.t.Helper()
	d.must("POST", api.PathNetworks, `{"name":"net","subnets":["198.18.0.0/24","2001:db8::/64"],"gateways":["198.18.0.1"]}`, nil)
}

func ping(t *testing.T, ns, dst string) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "ping", "-n", "-c", "1", "-W", "2", dst).CombinedOutput()
	if err != nil {
		t.Errorf("%s: ping %s: %v\n%s", ns, dst, err, out)
	}
}

// snapshot is what a namespace's links, addresses, routes, offloads and tcx
// programs are.
func snapshot(t *testing.T, ns string) string {
	t.Helper()
	s := ip(t, ns, "-o", "link") + ip(t, ns, "-o", "addr") + ip(t, ns, "route", "show", "table", "all") + ip(t, ns, "-6", "route", "show", "table", "all")
	n, err := attach.ByPath(netns(ns))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	err = n.Do(func() error {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range all {
			features, err := exec.Command("ethtool", "-k", i.Name).Output()
			if err != nil {
				return fmt.Errorf("ethtool -k %s: %w", i.Name, err)
			}
			s += string(features)
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				tcx, err := ebpflink.QueryPrograms(ebpflink.QueryOptions{Target: i.Index, Attach: at})
				if errors.Is(err, ebpf.ErrNotSupported) {
					continue // A kernel before 6.6.
				}
				if err != nil {
					return fmt.Errorf("tcx programs of %s: %w", i.Name, err)
				}
				s += fmt.Sprintln(i.Name, "tcx", at, len(tcx.Programs))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

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

// stable takes out what changes by itself.
func stable(s string) string {
	var keep []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
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

// TestComesBack: a link that is set down, deleted, or dies with its namespace.
func TestComesBack(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	d, _ := startIn(t, t.TempDir(), host)
	d.addNet()
	d.must("POST", api.PathPorts, config.Port{Name: "b", Network: "net", NetNS: netns(b), IPs: []string{"198.18.0.3/24"}}, nil)
	for _, kind := range []string{config.KindTAP, config.KindVeth} {
		d.must("POST", api.PathPorts, config.Port{Name: "a", Network: "net", Kind: kind, NetNS: netns(a), IPs: []string{"198.18.0.2/24"}}, nil)
		ping(t, b, "198.18.0.2")
		state := func(want string) {
			t.Helper()
			await(t, kind+" "+want, func() bool { return d.port("a").State == want })
		}
		ip(t, a, "link", "set", "eth0", "down")
		state(api.StateDown)
		if p := d.port("a"); !strings.Contains(p.Reason, "down") {
			t.Errorf("%s: %+v", kind, p)
		}
		ip(t, a, "link", "set", "eth0", "up")
		state(api.StateUp)
		ping(t, b, "198.18.0.2")

		old := strings.TrimSpace(ip(t, a, "-o", "link", "show", "eth0"))
		ip(t, a, "link", "del", "eth0")
		await(t, kind+" is made anew", func() bool {
			now, err := exec.Command("ip", "-n", a, "-o", "link", "show", "eth0").Output()
			return err == nil && strings.TrimSpace(string(now)) != old && d.port("a").State == api.StateUp
		})
		ping(t, b, "198.18.0.2")

		delNS(t, a)
		state(api.StateDown)
		if p := d.port("a"); !strings.Contains(p.Reason, "no such namespace") {
			t.Errorf("%s: %+v", kind, p)
		}
		if p := d.port("b"); p.State != api.StateUp {
			t.Errorf("b noticed: %+v", p)
		}
		addNS(t, a)
		state(api.StateUp)
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
	if now := index(a) + index(b); now != was {
		t.Errorf("interfaces %q, were %q", now, was)
	}
	ping(t, a, "198.18.0.3")
	for _, p := range d2.Ports() {
		if p.State != api.StateUp {
			t.Errorf("%+v", p)
		}
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
	if after := open(); after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
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
	has(a, "eth0", "eth9")
	has(b, "eth0", "v0")
	d.must("POST", api.PathPorts, config.Port{Name: "new", Network: "net", NetNS: netns(b), IfName: "new0"}, nil)
	has(b, "new0", "eth0")
	for _, p := range d.Ports() {
		if p.State != api.StateUp {
			t.Errorf("%+v", p)
		}
	}
}
