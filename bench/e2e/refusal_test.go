package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
)

// What can't be done is refused with a clear error and the exit code that it
// has by contract, and leaves nothing behind.
//
//	container tap1 ── swd        namespace bare: eth0, a dummy end of a veth
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.add(onTAP)
	bare, elsewhere := w.NewNetNS("bare"), w.NewNetNS("elsewhere")
	w.Veth(bare, "eth0", elsewhere, "eth0")
	ended := exec.CommandContext(t.Context(), "true")
	w.NoError(ended.Run())
	pid := strconv.Itoa(ended.Process.Pid)
	in := []string{"--network", network, "--netns", bare.Path()}
	before := w.inventory(bare)

	for _, c := range []struct {
		code  int
		says  string // What stderr must have, beside "error:".
		words []string
	}{
		{1, "nosuch", []string{"port", "add", "x", "--network", "nosuch", "--netns", bare.Path()}},
		{1, "/run/netns/no-such-namespace", []string{"port", "add", "x", "--network", network, "--netns", "/run/netns/no-such-namespace"}},
		{1, "/etc/hostname", []string{"port", "add", "x", "--network", network, "--netns", "/etc/hostname"}},
		{1, pid, []string{"port", "add", "x", "--network", network, "--pid", pid}},
		{1, "no-such-container", []string{"port", "add", "x", "--network", network, "--container", "no-such-container"}},
		{1, "eth0", slices.Concat([]string{"port", "add", "x"}, in)},
		{1, "eth0", slices.Concat([]string{"port", "add", "x", "--kind", "veth"}, in)},
		{1, "no-such-if", []string{"port", "add", "x", "--network", network, "--kind", "packet", "--interface", "no-such-if"}},
		{1, "tap1", slices.Concat([]string{"port", "add", "tap1", "--ifname", "eth9"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "eth9", "--mac", "01:00:5e:00:00:01"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "eth9", "--mac", "nonsense"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "eth9", "--ip", "198.18.0.300/24"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "eth9", "--ip", "198.18.0.9"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "eth9", "--ip", "auto"}, in)}, // The network has no subnet.
		{1, "", slices.Concat([]string{"port", "add", "x", "--ifname", "a-name-too-long-for-linux"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "UPPER", "--ifname", "eth9"}, in)},
		{1, "", slices.Concat([]string{"port", "add", "../etc", "--ifname", "eth9"}, in)},
		{1, network, []string{"network", "add", network}},
		{1, network, []string{"network", "rm", network}}, // It has a port.
		{1, "", []string{"network", "add", "y", "--mtu", "67"}},
		{1, "", []string{"network", "add", "y", "--vni", "16777216"}},
		{1, "", []string{"network", "add", "y", "--subnet", "198.18.0.0/33"}},
		{1, "", []string{"fdb", "add", "01:00:5e:00:00:01", "--network", network, "--port", a.name}},
		{1, "nosuch", []string{"fdb", "add", roamer, "--network", network, "--port", "nosuch"}},
		{1, roamer, []string{"fdb", "rm", roamer, "--network", network}},
		{1, "nosuch", []string{"port", "rm", "nosuch"}},
		{1, "nosuch", []string{"port", "show", "nosuch"}},
		{1, "nosuch", []string{"network", "rm", "nosuch"}},
		{0, "", []string{"port", "rm", "nosuch", "--if-exists"}},
		{0, "", []string{"network", "rm", "nosuch", "--if-exists"}},
		{2, "", []string{"port", "add"}},
		{2, "", []string{"port", "juggle"}},
		{2, "", []string{"port", "ls", "--no-such-flag"}},
		{2, "", []string{"-o", "xml", "port", "ls"}},
		{2, "", []string{"no-such-noun"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := w.swd.Swctl(ctx, c.words...)
		cancel()
		name := strings.Join(c.words, " ")
		if err != nil || out.Code != c.code {
			t.Errorf("%s: exit code %d, want %d: %v\n%s", name, out.Code, c.code, err, out.Stderr)
			continue
		}
		if c.code == 1 && (!strings.HasPrefix(out.Stderr, "error: ") || !strings.Contains(out.Stderr, c.says)) {
			t.Errorf("%s: stderr is %q, want an error that names %q", name, out.Stderr, c.says)
		}
	}
	if after := w.inventory(bare); after != before {
		t.Errorf("what there is changed from\n%s\nto\n%s", before, after)
	}
	w.reach(a, a.ip4)
}

// inventory tells what links there are and what swd knows.
func (w *world) inventory(n *lab.NetNS) string {
	w.Helper()
	var all []string
	for _, n := range []*lab.NetNS{w.host, n} {
		w.NoError(n.Do(func() error {
			ifs, err := net.Interfaces()
			for _, i := range ifs {
				all = append(all, n.Name+" "+i.Name)
			}
			return err
		}))
	}
	return fmt.Sprintf("%v\n%s%s", all, w.ctl("export"), w.ctl("fdb", "ls", "-o", "json")[:1])
}

// A second swd on the same socket is refused and harms nothing; without swd,
// swctl says so.
func TestOneDaemonPerSocket(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(onTAP), w.add(onVeth)
	w.reach(a, b.ip4)
	bin, err := lab.Build()
	w.NoError(err)
	for _, state := range []string{w.swd.StateDir, filepath.Join(w.Dir(), "other-state")} {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		out, err := w.host.Run(ctx, bin.Swd, "--socket", w.swd.Socket, "--state-dir", state)
		cancel()
		if err == nil || out.Code <= 0 || !strings.Contains(out.Stderr, w.swd.Socket) && !strings.Contains(out.Stderr, state) {
			t.Errorf("a second swd: code %d, %v, stderr %q", out.Code, err, out.Stderr)
		}
		w.reach(a, b.ip4)
	}
	w.NoError(w.swd.Stop())
	out, err := w.swd.Swctl(t.Context(), "status")
	if err != nil || out.Code != 3 || !strings.HasPrefix(out.Stderr, "error: ") {
		t.Errorf("without swd: code %d, %v, stderr %q", out.Code, err, out.Stderr)
	}
}

// What was added can be exported, removed, applied anew and works as before;
// removal leaves nothing on the host.
func TestExportApply(t *testing.T) {
	w := newWorld(t, "--subnet", "198.18.0.0/24", "--subnet", "2001:db8::/64")
	a, b, c := w.add(onTAP), w.add(onVeth), w.add(onPacket)
	w.reach(a, b.ip4)
	file := filepath.Join(w.Dir(), "config.yaml")
	exported := w.ctl("export")
	w.writeFile(file, exported)
	for _, s := range []*station{a, b, c} {
		w.ctl("port", "rm", s.name)
		if s.kind != onPacket && s.ns.HasLink(s.ifname) {
			t.Errorf("%s has its interface after port rm", s.name)
		}
	}
	w.ctl("network", "rm", network)
	w.ctl("apply", "-f", file)
	if again := w.ctl("export"); again != exported {
		t.Errorf("exported\n%s\nand after apply\n%s", exported, again)
	}
	w.reach(a, b.ip4)
	w.reach(c, a.ip6)
	// Applying what is there already changes nothing.
	w.ctl("apply", "-f", file)
	w.writeFile(file, strings.Replace(exported, "kind:", "kidn:", 1))
	out, err := w.swd.Swctl(t.Context(), "apply", "-f", file)
	if err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "line ") && !strings.Contains(out.Stderr, file+":") {
		t.Errorf("a misspelt key: code %d, %v, stderr %q", out.Code, err, out.Stderr)
	}
}
