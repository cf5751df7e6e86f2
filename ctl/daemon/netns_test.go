package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	ebpflink "github.com/cilium/ebpf/link"

	"heddle/ctl/api"
	"heddle/ctl/attach"
)

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
		m, err = openMachine(testLog(t))
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

// ping sends one request: none may be lost, and its answer may take as long as a
// machine that is busy elsewhere.
func ping(t *testing.T, ns, dst string) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "ping", "-n", "-c", "1", "-W", "20", dst).CombinedOutput()
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

// ownAccord is what the kernel makes of a carrier, up to a second after the link
// was set up.
var ownAccord = regexp.MustCompile(` state [A-Z]+| linkdown|NO-CARRIER,|,LOWER_UP`)

// stable takes out what changes by itself.
func stable(s string) string {
	var keep []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
			keep = append(keep, ownAccord.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(keep, "")
}
