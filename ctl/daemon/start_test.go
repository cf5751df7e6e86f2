package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"heddle/bench/lab"
	"heddle/ctl/api"
	"heddle/ctl/config"
)

// TestMain looks for goroutines that are left. memberlist's Shutdown doesn't wait
// for what is under way, which ends with its timeout.
func TestMain(m *testing.M) { lab.MainWithoutLeaks(m, patience) }

// patience is how long a test waits for what takes moments, on a machine that is
// busy with something else for seconds.
const patience = 30 * time.Second

// testDaemon is a daemon that serves on a socket in a temporary directory.
type testDaemon struct {
	*Daemon
	t    *testing.T
	h    *fakeHost
	dir  string
	stop func() error
}

func testOptions(t *testing.T, dir string) Options {
	return Options{
		Version: "test", Node: "node",
		Socket: filepath.Join(dir, "swd.sock"), StateDir: filepath.Join(dir, "state"),
		Workers: 1, MaxMACs: 1000, MaxConns: 1000, Log: testLog(t),
	}
}

// testLog is the test's log as long as the test runs: memberlist may have
// something to say after its Shutdown, which testing.T.Log would panic at.
func testLog(t *testing.T) *zap.Logger {
	w := &logWriter{to: zaptest.NewTestingWriter(t)}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
	})
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), w, zap.DebugLevel))
}

type logWriter struct {
	mu    sync.Mutex
	ended bool
	to    zapcore.WriteSyncer
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return len(b), nil
	}
	return w.to.Write(b)
}

func (w *logWriter) Sync() error { return nil }

// start makes a daemon on h and serves until the test ends or stop is called.
func start(t *testing.T, dir string, h *fakeHost, change ...func(*Options)) *testDaemon {
	t.Helper()
	d := startOn(t, dir, h, change...)
	d.h = h
	return d
}

// startOn is start on any host.
func startOn(t *testing.T, dir string, h host, change ...func(*Options)) *testDaemon {
	t.Helper()
	o := testOptions(t, dir)
	for _, f := range change {
		f(&o)
	}
	d, err := newOn(context.Background(), o, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	ready := make(chan struct{})
	d.OnReady(func() { close(ready) })
	go func() { ran <- d.Run(ctx) }()
	<-ready
	td := &testDaemon{Daemon: d, t: t, dir: dir}
	td.stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-ran, d.Close())
	})
	t.Cleanup(func() {
		if err := td.stop(); err != nil {
			t.Error(err)
		}
	})
	return td
}

func (d *testDaemon) client() *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dial net.Dialer
		return dial.DialContext(ctx, "unix", d.opts.Socket)
	}}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// call makes a request with a body of JSON, text or nil, and decodes the
// answer into out, if there is one.
func (d *testDaemon) call(method, path string, in, out any) (int, *api.Error) {
	d.t.Helper()
	var b io.Reader
	switch v := in.(type) {
	case nil:
	case string:
		b = strings.NewReader(v)
	default:
		j, err := json.Marshal(v)
		if err != nil {
			d.t.Fatal(err)
		}
		b = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://swd"+path, b)
	if err != nil {
		d.t.Fatal(err)
	}
	c := d.client()
	res, err := c.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	defer c.CloseIdleConnections()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if res.StatusCode >= 300 {
		var e api.Error
		if err := json.Unmarshal(text, &e); err != nil {
			d.t.Fatalf("%s %s: status %d: %q: %v", method, path, res.StatusCode, text, err)
		}
		return res.StatusCode, &e
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			d.t.Fatalf("%s %s: %q: %v", method, path, text, err)
		}
	}
	return res.StatusCode, nil
}

// must is call, and fails the test on an error.
func (d *testDaemon) must(method, path string, in, out any) {
	d.t.Helper()
	if status, err := d.call(method, path, in, out); err != nil {
		d.t.Fatalf("%s %s: %d %v (%s)", method, path, status, err, err.Hint)
	}
}

// setUp makes network net with ports a and b in namespaces a and b.
func (d *testDaemon) setUp() {
	d.t.Helper()
	d.setUpOn(`{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.1"]}`)
}

// setUpQuiet is setUp without a gateway, which announces itself: for tests that
// count every frame.
func (d *testDaemon) setUpQuiet() {
	d.t.Helper()
	d.setUpOn(`{"name":"net","subnets":["198.18.0.0/24"]}`)
}

func (d *testDaemon) setUpOn(network string) {
	d.t.Helper()
	d.must("POST", api.PathNetworks, network, nil)
	for _, name := range []string{"a", "b"} {
		d.must("POST", api.PathPorts, config.Port{Name: name, Network: "net", NetNS: "/run/netns/" + name, IPs: []string{"auto"}}, nil)
	}
}

func (d *testDaemon) port(name string) api.Port {
	d.t.Helper()
	var p api.Port
	d.must("GET", api.PathPorts+"/"+name, nil, &p)
	return p
}

// allUp waits until all ports are up. A start leaves to retry what it finds no
// time for (startTime).
func (d *testDaemon) allUp() {
	d.t.Helper()
	await(d.t, "all ports are up", func() bool { return d.Status().PortsDown == 0 })
}

// await waits until a condition holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// frame is an Ethernet frame of 60 bytes.
func frame(dst, src byte) []byte {
	b := make([]byte, 60)
	copy(b, []byte{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 0x88, 0xb5})
	if dst == 0xff {
		copy(b, bytes.Repeat([]byte{0xff}, 6))
	}
	return b
}
