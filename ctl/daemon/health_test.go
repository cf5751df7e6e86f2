package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/mem"
)

// hang has every question for a container's namespace wait until the function
// that it returns is called; asked gets a value at each.
func (h *fakeHost) hang() (asked <-chan struct{}, answer func()) {
	a, answered := make(chan struct{}, 100), make(chan struct{})
	h.set(func() {
		h.onReach = func(ctx context.Context, p *config.Port) error {
			if p.Container == "" {
				return nil
			}
			a <- struct{}{}
			select {
			case <-answered:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", attach.ErrNoEngine, ctx.Err())
			}
		}
	})
	return a, func() { close(answered) }
}

// TestHungEngine: while a container engine hangs, everything else goes on: a
// change, the recovery of other ports, a capture's end.
func TestHungEngine(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	const linkX = "|eth0"
	d.must("POST", api.PathPorts, config.Port{Name: "x", Network: "net", Container: "x"}, nil)
	asked, answer := d.h.hang()
	d.h.breakLink(linkX, goneError{errors.New("container gone")})
	<-asked // By the retry; it hangs from here on.
	added := make(chan error, 1)
	go func() {
		added <- d.AddPort(context.Background(), config.Port{Name: "y", Network: "net", Container: "y", IfName: "y"})
	}()
	<-asked // By a client's add.

	d.must("POST", api.PathNetworks, `{"name":"other"}`, nil)
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://swd"+api.PathCapture+"?port=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = res.Body.Close()
	await(t, "the capture ends", func() bool { return len(d.captures) == 0 })
	d.h.breakLink(linkA, errors.New("link down"))
	await(t, "a down", func() bool { return d.port("a").State == api.StateDown })
	d.h.breakLink(linkA, nil)
	await(t, "a up", func() bool { return d.port("a").State == api.StateUp })
	if p := d.port("x"); p.State != api.StateDown {
		t.Errorf("%+v", p)
	}
	d.h.breakLink(linkX, nil)
	answer()
	if err := <-added; err != nil {
		t.Error(err)
	}
	await(t, "x up", func() bool { return d.port("x").State == api.StateUp })
}

// TestCaptureDuringAChange: a capture begins and ends while a change waits for
// the host.
func TestCaptureDuringAChange(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	d.change.Lock()
	defer d.change.Unlock()
	res, err := d.client().Get("http://swd" + api.PathCapture + "?network=net")
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	_ = res.Body.Close()
	await(t, "the capture ends", func() bool { return len(d.captures) == 0 })
}

// TestDeadEngine: that no engine answers is found out once, not for each port.
func TestDeadEngine(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.must("POST", api.PathNetworks, `{"name":"net"}`, nil)
	const ports = 50
	for i := range ports {
		name := fmt.Sprintf("c%d", i)
		d.must("POST", api.PathPorts, config.Port{Name: name, Network: "net", Container: name, IfName: name}, nil)
	}
	asked := make(chan struct{}, 1000)
	d.h.set(func() {
		d.h.onReach = func(context.Context, *config.Port) error {
			asked <- struct{}{}
			return fmt.Errorf("%w at /run/engine", attach.ErrNoEngine)
		}
		for _, l := range d.h.links {
			l.down = goneError{errors.New("container gone")}
		}
	})
	d.h.poke()
	await(t, "all are down for want of an engine", func() bool {
		return !slices.ContainsFunc(d.Ports(), func(p api.Port) bool { return !strings.Contains(p.Reason, "no container engine") })
	})
	if n := len(asked); n > ports/2 { // Once a second, however long it took.
		t.Errorf("asked %d times for %d ports", n, ports)
	}
	d.h.set(func() {
		d.h.onReach = nil
		for _, l := range d.h.links {
			l.down = nil
		}
	})
	await(t, "all are up", func() bool { return d.Status().PortsDown == 0 })
}

// TestStartAsksNoEngine: swd serves before a container engine does, also where
// the config file changes a container's port.
func TestStartAsksNoEngine(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir, newTestHost())
	d.setUp()
	d.must("POST", api.PathPorts, config.Port{Name: "x", Network: "net", Container: "x"}, nil)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	h := newTestHost()
	asked, answer := h.hang()
	d = start(t, dir, h)
	<-asked
	if p := d.port("x"); p.State != api.StateDown || !strings.Contains(p.Reason, "just started") {
		t.Errorf("%+v", p)
	}
	await(t, "a up", func() bool { return d.port("a").State == api.StateUp }) // It is left to retry as well if the start takes long.
	answer()
	await(t, "x up", func() bool { return d.port("x").State == api.StateUp })
}

// TestStopDuringStart: what ends New's context ends New.
func TestStopDuringStart(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir, newTestHost())
	d.setUp()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	h := newTestHost()
	ctx, cancel := context.WithCancel(context.Background())
	h.onOpen = cancel
	if _, err := newOn(ctx, testOptions(t, dir), h); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if !h.closed {
		t.Error("the host is still open")
	}
	h = newTestHost()
	start(t, dir, h).allUp()
	if len(h.links) != 2 {
		t.Errorf("after it: %v", h.links)
	}
}

// TestInTurn: every port with a device has its turn, and a tick's work has a
// bound.
func TestInTurn(t *testing.T) {
	d := &Daemon{}
	const ports = 3*looksPerTick + 5
	for i := range ports {
		id := dataplane.PortID(i*7 + 1)
		d.ids[id] = &port{id: id, dev: &fakeDevice{}}
	}
	d.ids[2] = &port{id: 2} // Has none.
	seen := make(map[*port]int)
	var turn dataplane.PortID
	for range 4 {
		var look []*port
		look, turn = d.inTurn(turn)
		if len(look) > looksPerTick {
			t.Errorf("%d ports at a tick", len(look))
		}
		for _, p := range look {
			seen[p]++
		}
	}
	if len(seen) != ports || seen[d.ids[2]] > 0 {
		t.Errorf("%d of %d ports had their turn", len(seen), ports)
	}
}

// TestCalmPortsAreLeft: a tick asks of a port that is up whether it is calm, and
// no more; what no event tells is noticed all the same.
func TestCalmPortsAreLeft(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	const keyA = "/run/netns/a|eth0"
	dev := d.h.device(keyA)
	calls, looks := dev.calls.Load(), dev.looks.Load()
	await(t, "two turns", func() bool { return dev.calls.Load() >= calls+2 })
	if now := dev.looks.Load(); now != looks {
		t.Errorf("%d checks of a calm port", now-looks)
	}
	d.h.set(func() { dev.down = errors.New("carrier lost") })
	await(t, "a is down", func() bool { return d.port("a").State == api.StateDown })
	d.h.set(func() { dev.down = nil })
	await(t, "a is up", func() bool { return d.port("a").State == api.StateUp })
}

// TestCalm: a device is calm until its link, or what its namespace was named by,
// isn't as it was.
func TestCalm(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	m := machineIn(t, host)
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range []config.Port{{Name: "a", NetNS: netns(a)}, {Name: "b", NetNS: netns(b), Kind: config.KindVeth}} {
		dev, err := m.open(context.Background(), order{spec: s.WithDefaults(), mac: attach.StableMAC("n", s.Name), mtu: 1500, workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := dev.release(); err != nil {
				t.Error(err)
			}
		}()
		ns := strings.TrimPrefix(s.NetNS, netns(""))
		await(t, s.Name+" is calm", func() bool { return dev.restore(context.Background()) == nil && dev.calm() })
		ip(t, ns, "link", "set", "eth0", "down")
		await(t, s.Name+" is down", func() bool { return !dev.calm() })
		ip(t, ns, "link", "set", "eth0", "up")
		await(t, s.Name+" has to be restored", func() bool { return dev.check() == nil && !dev.calm() })
		await(t, s.Name+" is restored", func() bool { return dev.restore(context.Background()) == nil && dev.calm() })
		delNS(t, ns)
		if dev.calm() {
			t.Errorf("%s is calm after its namespace's name is gone", s.Name)
		}
	}
}

// TestLinkGoesDownMeanwhile: a link that goes down again while it is looked
// whether it is back has to be restored another time.
func TestLinkGoesDownMeanwhile(t *testing.T) {
	l := &link{}
	expect := func(what string, up, event, back, again bool) {
		t.Helper()
		is, err := l.isBack(func() (attach.Link, error) {
			if event {
				l.wentDown.Store(true)
			}
			return attach.Link{Up: up}, nil
		})
		if err != nil || is != back || l.wentDown.Load() != again {
			t.Errorf("%s: back %v, again %v, %v", what, is, l.wentDown.Load(), err)
		}
	}
	expect("never down", true, false, false, false)
	l.wentDown.Store(true)
	expect("still down", false, false, false, true)
	expect("up, and an event", true, true, true, true)
	expect("up", true, false, true, false)
	l.wentDown.Store(true)
	if is, err := l.isBack(func() (attach.Link, error) { return attach.Link{}, attach.ErrNoLink }); is || !errors.Is(err, attach.ErrNoLink) || !l.wentDown.Load() {
		t.Errorf("gone: back %v, %v", is, err)
	}
}

// TestEventsNamePorts: a link that changes marks its own port.
func TestEventsNamePorts(t *testing.T) {
	host, a, b := newNS(t, "host"), newNS(t, "a"), newNS(t, "b")
	m := machineIn(t, host)
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range []config.Port{{Name: "a", NetNS: netns(a)}, {Name: "b", NetNS: netns(b), Kind: config.KindVeth}} {
		dev, err := m.open(context.Background(), order{spec: s.WithDefaults(), mac: attach.StableMAC("n", s.Name), mtu: 1500, workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := dev.remove(); err != nil {
				t.Error(err)
			}
		}()
	}
	// Events of before may come late: those of a carrier are up to a second old.
	awaitChange := func(want, ns string, set ...string) {
		t.Helper()
		m.changed()
		ip(t, ns, append([]string{"link", "set"}, set...)...)
		await(t, fmt.Sprintf("%s: %v", want, set), func() bool {
			ports, all := m.changed()
			if all {
				t.Error("events were lost")
			}
			return slices.Contains(ports, want)
		})
	}
	awaitChange("a", a, "eth0", "down")
	awaitChange("b", b, "eth0", "down")
	awaitChange("b", host, "hd-b", "mtu", "1400")
	awaitChange("a", a, "eth0", "up")

	// Each marks its own and no other, and strangers' mark none: with no events
	// but these.
	if err := m.watcher.Close(); err != nil {
		t.Fatal(err)
	}
	m.done.Wait()
	for l, places := range m.links.places {
		for _, p := range places {
			m.changed()
			m.links.note(attach.LinkEvent{Kind: attach.LinkChanged, NS: p.ns, Link: attach.Link{Index: p.index + 1000}})
			if ports, all := m.changed(); all || len(ports) > 0 {
				t.Errorf("a stranger's event: %v %v", ports, all)
			}
			m.links.note(attach.LinkEvent{Kind: attach.LinkChanged, NS: p.ns, Link: attach.Link{Index: p.index}})
			if ports, all := m.changed(); all || !slices.Equal(ports, []string{l.name}) {
				t.Errorf("%v %v, want %s", ports, all, l.name)
			}
		}
	}
}

// TestHealth: a port whose device fails is down with the reason, others don't
// notice, and it comes back by itself with its counts.
func TestHealth(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	a := d.h.device(linkA).mem
	a.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame counted", func() bool { return d.port("a").RxFrames == 1 })

	d.h.set(func() { delete(d.h.namespaces, "/run/netns/a"); delete(d.h.links, linkA) })
	d.h.poke()
	await(t, "down", func() bool { return d.port("a").State == api.StateDown })
	if p := d.port("a"); !strings.Contains(p.Reason, "no such namespace") || p.RxFrames != 1 {
		t.Errorf("%+v", p)
	}
	if p := d.port("b"); p.State != api.StateUp {
		t.Errorf("%+v", p)
	}
	var fdb []api.Entry
	d.must("GET", api.PathFDB, nil, &fdb)
	if len(fdb) != 0 {
		t.Errorf("entries stay: %v", fdb)
	}
	d.h.set(func() { d.h.namespaces["/run/netns/a"] = true })
	await(t, "up", func() bool { return d.port("a").State == api.StateUp })
	if p := d.port("a"); p.RxFrames != 1 {
		t.Errorf("counts were lost: %+v", p)
	}
	d.h.device(linkA).mem.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "frames again", func() bool { return d.port("a").RxFrames == 2 })
	await(t, "it is told", func() bool {
		var kinds []string
		for _, e := range d.events.kept() {
			if e.Object == "port a" {
				kinds = append(kinds, e.Kind)
			}
		}
		return slices.Equal(kinds, []string{eventPortAdded, eventPortDown, eventPortUp})
	})
	// A port that is down can be removed.
	d.h.set(func() { delete(d.h.namespaces, "/run/netns/a") })
	d.h.poke()
	await(t, "down again", func() bool { return d.port("a").State == api.StateDown })
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	if d.h.device(linkA) != nil {
		t.Error("its interface is left")
	}
}
