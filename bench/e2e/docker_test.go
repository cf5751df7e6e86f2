package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"heddle/ctl/api"
)

// A container of a real Docker engine, run with --network none, gets a port by
// its name, and keeps it by that name from one start to the next:
//
//	host:  dockerd    swd ─┬─ tap or veth ── eth0 in Docker container web, busybox's httpd
//	                       └─ tap ────────── eth0 in namespace tap1, curl and httpd
func TestDocker(t *testing.T) {
	dir := useEngine(t)
	w := newWorld(t)
	e := w.startEngine(dir)
	d := &dockerWorld{
		world: w, engine: e, plain: w.add(onTAP),
		web:   &station{name: "web", ip4: "198.18.0.100", ip6: "2001:db8::100"},
		files: map[string][]byte{"small": []byte("hello\n"), "big": make([]byte, 4<<20)},
	}
	_, _ = rand.NewChaCha8(seed).Read(d.files["big"]) // It never fails.
	e.importImage(d.files)
	d.serve(d.plain)
	before := d.kept()

	e.docker("run", "--detach", "--name", "web", "--network", "none", image, "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"container", d.container},
		{"pid", d.pid},
		{"stop and start", d.stopAndStart},
		{"restart while swd is down", d.restartWithoutSwd},
		{"no namespace of its own", d.refused},
		{"rm", d.remove},
	} {
		if !t.Run(step.name, step.run) {
			return // Each starts from what the one before leaves.
		}
	}
	d.Eventually(patience, "nothing is left", func() error { return d.kept().beyond(before) })
}

// dockerWorld is a world with an engine, whose container web has port web.
type dockerWorld struct {
	*world
	engine *engine
	plain  *station          // A namespace without an engine.
	web    *station          // The container; its namespace is not the lab's.
	files  map[string][]byte // What the httpd of each serves.
}

// on is the same world for a subtest.
func (d *dockerWorld) on(t *testing.T) *dockerWorld {
	inner := *d
	inner.world = d.within(t)
	e := *d.engine
	e.w = inner.world
	inner.engine = &e
	return &inner
}

// add gives the container its port.
func (d *dockerWorld) add(flags ...string) {
	d.Helper()
	d.ctl(append([]string{"port", "add", "web", "--network", network, "--ip", d.web.ip4 + "/24", "--ip", d.web.ip6 + "/64"}, flags...)...)
}

// The recipe of the README, both kinds. Docker switches IPv6 off in a container
// that has no network; an IPv6 address works all the same.
func (d *dockerWorld) container(t *testing.T) {
	d = d.on(t)
	for _, kind := range []string{onVeth, onTAP} {
		d.add("--container", "web", "--kind", kind)
		if p, err := d.swd.Port(d.Context(), "web"); err != nil || p.State != api.StateUp || p.Container != "web" || p.IfName != "eth0" {
			t.Errorf("%s: the port is %+v, %v", kind, p, err)
		}
		d.transfer()
		if kind == onTAP {
			return // The port that the subtests after this one have.
		}
		d.ctl("port", "rm", "web")
		d.noInterface("eth0")
	}
}

// --pid takes the same container by its process, beside the port that it has.
// It means that process: when another one follows, the port stays down.
func (d *dockerWorld) pid(t *testing.T) {
	d = d.on(t)
	for _, kind := range []string{onVeth, onTAP} {
		d.ctl("port", "rm", "web")
		d.add("--pid", d.engine.inspect("web", "{{.State.Pid}}"), "--kind", kind)
		d.transfer()
		if kind == onTAP {
			d.engine.docker("restart", "--time", "0", "web")
			d.awaitReason("web", "process ")
		}
		d.ctl("port", "rm", "web")
		d.noInterface("eth0")
		d.add("--container", "web")
	}
	d.transfer()
}

// A container that stops takes its port down, and brings it back with the next
// start, or with a restart that leaves swd little time to see it.
func (d *dockerWorld) stopAndStart(t *testing.T) {
	d = d.on(t)
	mac := d.port(d.web).MAC
	d.engine.docker("stop", "--time", "0", "web")
	d.awaitReason("web", "not running")
	d.noReach(d.plain, d.web.ip4)
	d.engine.docker("start", "web")
	d.awaitState(d.web, api.StateUp)
	d.transfer()
	d.engine.docker("restart", "--time", "0", "web")
	d.Eventually(patience, "web answers after docker restart", func() error {
		return d.fetch(d.web.ip4, "small")
	})
	d.transfer()
	if p := d.port(d.web); p.MAC != mac || p.State != api.StateUp {
		t.Errorf("the MAC was %s, and the port is %+v", mac, p)
	}
}

// swd finds the container again that was restarted in its absence.
func (d *dockerWorld) restartWithoutSwd(t *testing.T) {
	d = d.on(t)
	d.NoError(d.swd.Stop())
	d.engine.docker("restart", "--time", "0", "web")
	d.NoError(d.swd.Start(d.Context()))
	d.awaitState(d.web, api.StateUp)
	d.transfer()
}

// Containers that don't run or use another's namespace are refused.
func (d *dockerWorld) refused(t *testing.T) {
	d = d.on(t)
	d.engine.docker("create", "--name", "created", "--network", "none", image, "busybox", "sleep", "600")
	d.engine.docker("run", "--detach", "--name", "host", "--network", "host", image, "busybox", "sleep", "600")
	d.engine.docker("run", "--detach", "--name", "shared", "--network", "container:web", image, "busybox", "sleep", "600")
	advice := []string{"start it first", "run it with --network none", "add the port to that one", "no such container"}
	for i, name := range []string{"created", "host", "shared", "nobody"} {
		out, err := d.swd.Swctl(d.Context(), "port", "add", "refused", "--network", network, "--container", name)
		if err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "container "+name) {
			t.Errorf("%s: code %d, %v, stderr %q", name, out.Code, err, out.Stderr)
		}
		for j, says := range advice {
			if strings.Contains(out.Stderr, says) != (i == j) {
				t.Errorf("%s: of %q, only %q fits: %q", name, advice, advice[i], out.Stderr)
			}
		}
	}
	d.engine.docker("rm", "--force", "created", "host", "shared")
}

// A container that is removed leaves its port down, to be removed too.
func (d *dockerWorld) remove(t *testing.T) {
	d = d.on(t)
	d.engine.docker("rm", "--force", "web")
	d.awaitReason("web", "no such container")
	d.ctl("port", "rm", "web")
}

// serve starts a httpd with the same files in a namespace.
func (d *dockerWorld) serve(s *station) {
	d.Helper()
	dir := filepath.Join(d.Dir(), "www")
	d.NoError(os.Mkdir(dir, 0o700))
	for name, content := range d.files {
		d.NoError(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	_, err := s.ns.Start("busybox", "httpd", "-f", "-p", "80", "-h", dir)
	d.NoError(err)
	d.NoError(s.ns.WaitListening(d.Context(), "tcp", 80))
}

// awaitServer waits until the httpd in the container listens, which docker doesn't
// wait for. It asks in the container, by lo: not by what is tested.
func (d *dockerWorld) awaitServer() {
	d.Helper()
	d.Eventually(patience, "the container's httpd answers", func() error {
		ctx, cancel := context.WithTimeout(d.Context(), patience)
		defer cancel()
		_, err := d.Lab.Run(ctx, "docker", "exec", "web", "busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/small")
		return err
	})
}

// transfer reaches the container and moves files both ways.
func (d *dockerWorld) transfer() {
	d.Helper()
	d.awaitServer()
	for _, address := range []string{d.web.ip4, "[" + d.web.ip6 + "]"} {
		d.NoError(d.fetch(address, "big"))
	}
	for _, address := range []string{d.plain.ip4, "[" + d.plain.ip6 + "]"} {
		got := d.engine.docker("exec", "web", "busybox", "wget", "-q", "-O", "-", "http://"+address+"/big")
		if got != string(d.files["big"]) {
			d.Errorf("the container got %d bytes from %s, and not those that were sent", len(got), address)
		}
	}
}

// fetch gets a file from the container.
func (d *dockerWorld) fetch(address, name string) error {
	ctx, cancel := context.WithTimeout(d.Context(), 2*patience)
	defer cancel()
	out, err := d.plain.ns.Run(ctx, "curl", "--silent", "--show-error", "--fail", "--max-time", "20", "http://"+address+"/"+name)
	if err == nil && out.Stdout != string(d.files[name]) {
		err = fmt.Errorf("%d bytes came from %s, and not those that were sent", len(out.Stdout), address)
	}
	return err
}

// awaitReason waits until a port is down for a reason.
func (d *dockerWorld) awaitReason(port, reason string) {
	d.Helper()
	d.Eventually(patience, "port "+port+" down: "+reason, func() error {
		p, err := d.swd.Port(d.Context(), port)
		if err == nil && (p.State != api.StateDown || !strings.Contains(p.Reason, reason)) {
			err = fmt.Errorf("it is %s (%s)", p.State, p.Reason)
		}
		return err
	})
}

// noInterface fails the test if the container has an interface of a name.
func (d *dockerWorld) noInterface(name string) {
	d.Helper()
	if links := d.engine.docker("exec", "web", "busybox", "ip", "link"); strings.Contains(links, name) {
		d.Errorf("the container still has %s:\n%s", name, links)
	}
}

// kept is what swd has made on the host and keeps open.
type kept struct {
	made string
	open map[string]int // How many descriptors of a kind.
}

// beyond tells what there is that was not there before. A descriptor that was open
// just then for a moment, as for an answer to swctl, needn't be there again.
func (k kept) beyond(before kept) error {
	if k.made != before.made {
		return fmt.Errorf("before\n%s\nand after\n%s", before.made, k.made)
	}
	for kind, n := range k.open {
		if n > before.open[kind] {
			return fmt.Errorf("%d descriptors of %s are open, before %d", n, kind, before.open[kind])
		}
	}
	return nil
}

// kept tells what there is now.
func (d *dockerWorld) kept() kept {
	d.Helper()
	links, err := d.host.Netlink().LinkList()
	d.NoError(err)
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	dir := fmt.Sprintf("/proc/%d/fd", d.swd.Process().PID())
	entries, err := os.ReadDir(dir)
	d.NoError(err)
	open := map[string]int{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // Closed meanwhile.
		}
		d.NoError(err)
		kind, _, _ := strings.Cut(target, ":[") // Without the inode, which is another after a restart.
		open[kind]++
	}
	return kept{made: fmt.Sprintf("ports:\n%slinks: %v", d.ctl("export"), names), open: open}
}
