package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// dial connects to the daemon's socket.
func (d *testDaemon) dial() net.Conn {
	d.t.Helper()
	c, err := net.Dial("unix", d.opts.Socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestClientsAreBounded: the one too many is told so, and a place that becomes
// free is given again.
func TestClientsAreBounded(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	var held []net.Conn
	for range maxClients {
		held = append(held, d.dial())
	}
	await(t, "all are served", func() bool { return len(d.listener.slots) == maxClients })
	res, err := http.ReadResponse(bufio.NewReader(d.dial()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e api.Error
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != 429 || e.What != "" || !strings.Contains(e.Why, "64 clients") || e.Hint == "" {
		t.Errorf("%d %+v %v", res.StatusCode, e, err)
	}
	if n := d.listener.refused.Load(); n != 1 {
		t.Errorf("%d refused", n)
	}
	_ = held[0].Close()
	await(t, "a place is free", func() bool { return len(d.listener.slots) < maxClients })
	d.must("GET", api.PathStatus, nil, nil)
}

// TestPanicIsCaught: one request's fault is its own.
func TestPanicIsCaught(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	h := d.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") }))
	s := &http.Server{Handler: h, ConnContext: d.newServer().ConnContext, ReadHeaderTimeout: headerTimeout}
	l, err := net.Listen("unix", filepath.Join(d.dir, "panic.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fmt.Fprint(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != 500 || !strings.Contains(string(b), "failed inside: oh") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	d.must("GET", api.PathStatus, nil, nil)
}

// TestSocket: who may use it, and that it goes with the daemon.
func TestSocket(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost(), func(o *Options) { o.SocketGroup = "daemon" })
	st, err := os.Stat(d.opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o660 || st.Sys().(*syscall.Stat_t).Gid != 1 {
		t.Errorf("mode %v, gid %d", st.Mode(), st.Sys().(*syscall.Stat_t).Gid)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.opts.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	if !d.h.closed {
		t.Error("the host was not given back")
	}
}

// TestStartIsRefused: each reason has its words, and nothing stays open.
func TestStartIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, o *Options)
		want    string
	}{
		"second on the socket": {func(t *testing.T, o *Options) {
			start(t, filepath.Dir(o.Socket), newTestHost())
			o.StateDir = t.TempDir()
		}, "another swd is running"},
		"second on the state": {func(t *testing.T, o *Options) {
			start(t, filepath.Dir(o.Socket), newTestHost())
			o.Socket = filepath.Join(t.TempDir(), "other.sock")
		}, "another swd is running"},
		"something else answers": {func(t *testing.T, o *Options) {
			l, err := net.Listen("unix", o.Socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, "another swd is running"},
		"a file has its name": {func(t *testing.T, o *Options) {
			write(t, o.Socket, "precious")
		}, "something else has that name"},
		"no such group": {func(_ *testing.T, o *Options) { o.SocketGroup = "no-such-group" }, "no-such-group"},
		"corrupt state": {func(t *testing.T, o *Options) {
			write(t, filepath.Join(o.StateDir, stateFile), "networks:\n  - name: a\n    color: red\n")
		}, "state.yaml: line 3"},
		"corrupt config": {func(t *testing.T, o *Options) {
			o.Config = filepath.Join(t.TempDir(), "c.yaml")
			write(t, o.Config, "ports: [")
		}, "c.yaml: line 1"},
		"no config":        {func(_ *testing.T, o *Options) { o.Config = "/nonexistent.yaml" }, "/nonexistent.yaml"},
		"huge config":      {func(_ *testing.T, o *Options) { o.Config = "/dev/zero" }, "longer than"},
		"metrics in use":   {func(_ *testing.T, o *Options) { o.Metrics = "192.0.2.1:1" }, "metrics"},
		"too many workers": {func(_ *testing.T, o *Options) { o.Workers = MaxWorkers + 1 }, "workers"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, t.TempDir())
			tt.prepare(t, &o)
			h := newTestHost()
			d, err := newOn(context.Background(), o, h)
			if err == nil {
				_ = d.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want one with %q", err, tt.want)
			}
			if !h.closed {
				t.Error("the host was not given back")
			}
			if b, err := os.ReadFile(o.Socket); name == "a file has its name" && string(b) != "precious" {
				t.Errorf("the file: %q, %v", b, err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRestart: the same switch is there again; a stale socket is replaced; a
// port that can't be restored is kept, down, and comes back.
func TestRestart(t *testing.T) {
	dir, h := t.TempDir(), newTestHost()
	d := start(t, dir, h)
	d.setUp()
	d.must("POST", api.PathFDB, `{"mac":"02:00:00:00:00:09","network":"net","port":"a"}`, nil)
	before := d.Export()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if len(h.links) != 2 {
		t.Errorf("a stop removed interfaces: %v", h.links)
	}
	if st, err := os.Stat(d.state.path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v %v", st, err)
	}
	// As after kill -9: the socket is there, and nobody answers.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.opts.Socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()

	h2 := newFakeHost("/run/netns/a")
	cfg := filepath.Join(dir, "c.yaml")
	write(t, cfg, "networks:\n  - name: extra\nports:\n  - {name: x, network: extra, netns: /run/netns/later}\n")
	d2 := start(t, dir, h2, func(o *Options) { o.Config = cfg })
	// At once, or by retry if the start takes long.
	await(t, "a up", func() bool { p := d2.port("a"); return p.State == api.StateUp && p.IPs[0] == "198.18.0.2/24" })
	for _, name := range []string{"b", "x"} {
		await(t, name+" down", func() bool {
			p := d2.port(name)
			return p.State == api.StateDown && strings.Contains(p.Reason, "no such namespace")
		})
	}
	after := d2.Export()
	if len(after.Networks) != 2 || fmt.Sprint(after.Ports[:2]) != fmt.Sprint(before.Ports) || fmt.Sprint(after.FDB) != fmt.Sprint(before.FDB) {
		t.Errorf("%+v, was %+v", after, before)
	}
	h2.set(func() { h2.namespaces["/run/netns/b"], h2.namespaces["/run/netns/later"] = true, true })
	for _, name := range []string{"b", "x"} {
		await(t, name+" up", func() bool { return d2.port(name).State == api.StateUp })
	}
	saved, err := readConfig(d2.state.path)
	if err != nil || len(saved.Ports) != 3 || len(saved.Networks) != 2 {
		t.Errorf("saved %+v, %v", saved, err)
	}
}

// TestEvents: a follower gets what is kept and what comes, and ends with the
// daemon; one that is too slow is told.
func TestEvents(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	c := d.dial()
	fmt.Fprint(c, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (e api.Event) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, want := range []string{"network net", "port a", "port b"} {
		if e := next(); e.Object != want {
			t.Errorf("%+v, want %s", e, want)
		}
	}
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	if e := next(); e.Kind != eventPortRemoved {
		t.Errorf("%+v", e)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if lines.Scan() {
		t.Errorf("after the end: %s", lines.Text())
	}
}

func TestEventRing(t *testing.T) {
	r := newEventRing()
	for i := range eventCapacity + 10 {
		r.add("kind", fmt.Sprint(i), "")
	}
	kept := r.kept()
	if len(kept) != eventCapacity || kept[0].Object != "10" || kept[eventCapacity-1].Object != fmt.Sprint(eventCapacity+9) {
		t.Errorf("%d kept, from %s", len(kept), kept[0].Object)
	}
	if _, lost, _, _ := r.since(0); lost != 10 {
		t.Errorf("%d lost", lost)
	}
	// A follower that sleeps through more than the ring holds.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	calls := 0
	err := r.follow(ctx, func(events []api.Event) error {
		switch calls++; calls {
		case 1:
			for range eventCapacity + 5 {
				r.add("later", "", "")
			}
		case 2:
			if events[0].Kind != eventsLost || !strings.HasPrefix(events[0].Message, "5 events") {
				t.Errorf("%+v", events[0])
			}
			return errors.New("enough")
		}
		return nil
	})
	if err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

// TestManyRequests: clients that come and go, and change things at the same
// time, leave a switch that is consistent.
func TestManyRequests(t *testing.T) {
	names := []string{"p0", "p1", "p2", "p3", "p4", "p5"}
	h := newTestHost()
	for _, n := range names {
		h.namespaces["/run/netns/"+n] = true
	}
	d := start(t, t.TempDir(), h)
	d.setUp()
	done := make(chan error)
	for _, name := range names {
		go func() {
			var err error
			for range 10 {
				err = errors.Join(err, d.AddPort(context.Background(), config.Port{Name: name, Network: "net", NetNS: "/run/netns/" + name, IPs: []string{"auto"}}))
				d.Ports()
				d.Status()
				d.Export()
				err = errors.Join(err, d.RemovePort(name))
			}
			done <- err
		}()
	}
	for range names {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(d.Ports()) != 2 || h.opened != 2 {
		t.Errorf("%d ports, %d devices", len(d.Ports()), h.opened)
	}
}
