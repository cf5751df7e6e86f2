package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/ctl/proxy"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// TestMain looks for goroutines that are left. memberlist's Shutdown doesn't wait
// for a probe under way, which ends with its timeout.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// fakeHost is a host in memory: interfaces are names in namespaces, devices
// are mem ports.
type fakeHost struct {
	poked chan struct{}

	mu         sync.Mutex
	namespaces map[string]bool        // That exist.
	links      map[string]*fakeDevice // Persistent interfaces by namespace/name.
	nics       map[string]attach.UplinkState
	watches    map[string]*fakeWatch
	uplinks    map[string]*fakeUplink
	stack      *fakeStack                                // Nil while it isn't open.
	held       map[uint16]bool                           // Ports that somebody listens on.
	opened     int                                       // Devices that are open now.
	failOpen   error                                     // What every open fails with.
	onReach    func(context.Context, *config.Port) error // What reach does; nil for nothing.
	onOpen     func()                                    // Called at each open; nil for nothing.
	failRemove error

	at        netip.Addr         // Its address on wire; tunnels need one.
	wire      *fakeWire          // What joins hosts; nil if it stands alone.
	portTaken bool               // Somebody else has the tunnels' port.
	paths     map[netip.Addr]int // Path MTUs that aren't 1500; 0 is no way.

	failConfigure error // What configure of port b fails with.
	closed        bool
}

func newFakeHost(namespaces ...string) *fakeHost {
	h := &fakeHost{
		poked:      make(chan struct{}, 1),
		namespaces: map[string]bool{},
		links:      map[string]*fakeDevice{},
		nics:       map[string]attach.UplinkState{},
		watches:    map[string]*fakeWatch{},
		uplinks:    map[string]*fakeUplink{},
		held:       map[uint16]bool{},
	}
	for _, ns := range namespaces {
		h.namespaces[ns] = true
	}
	return h
}

// fakeUplink is an uplink's device in memory.
type fakeUplink struct {
	h    *fakeHost
	o    uplinkOrder
	mem  *mem.Port
	down error
}

func (u *fakeUplink) port() dataplane.Port { return u.mem }

func (u *fakeUplink) check() error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	return u.down
}

func (u *fakeUplink) claim(c attach.Claim) error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	u.o.claim = c
	return nil
}

func (u *fakeUplink) spares(c attach.Claim) error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	for port := range u.h.held {
		if port >= c.Ports.First && port <= c.Ports.Last {
			return fmt.Errorf("port %d: %w", port, attach.ErrPortInUse)
		}
	}
	return nil
}

func (u *fakeUplink) release() error {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	u.h.opened--
	delete(u.h.uplinks, u.o.ifName)
	return u.mem.Close()
}

// fakeWatch tells the states that a test sets.
type fakeWatch struct {
	h      *fakeHost
	name   string
	states chan attach.UplinkState
}

func (w *fakeWatch) States() <-chan attach.UplinkState { return w.states }

func (w *fakeWatch) Close() error {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	delete(w.h.watches, w.name)
	close(w.states)
	return nil
}

func (h *fakeHost) watchUplink(name string) (uplinkWatch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &fakeWatch{h: h, name: name, states: make(chan attach.UplinkState, 10)}
	w.states <- h.nics[name]
	h.watches[name] = w
	return w, nil
}

func (h *fakeHost) openUplink(o uplinkOrder) (uplinkDevice, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	if !h.nics[o.ifName].Present {
		return nil, fmt.Errorf("interface %s: %w", o.ifName, attach.ErrNoLink)
	}
	h.opened++
	u := &fakeUplink{h: h, o: o, mem: mem.New(mem.Config{Workers: o.workers})}
	h.uplinks[o.ifName] = u
	return u, nil
}

// fakeStack is the way to the host's stack in memory.
type fakeStack struct {
	h   *fakeHost
	mem *mem.Port
	set attach.Stack
}

func (s *fakeStack) name() string         { return "heddle0" }
func (s *fakeStack) mac() wire.MAC        { return 0x02000000dd01 }
func (s *fakeStack) port() dataplane.Port { return s.mem }
func (s *fakeStack) check() error         { return nil }

func (s *fakeStack) configure(c attach.Stack) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.set = c
	return nil
}

func (s *fakeStack) release() error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.opened--
	s.h.stack = nil
	return s.mem.Close()
}

func (h *fakeHost) openStack(workers int) (stackDevice, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	h.opened++
	h.stack = &fakeStack{h: h, mem: mem.New(mem.Config{Workers: workers})}
	return h.stack, nil
}

// setNIC makes an interface what s says.
func (h *fakeHost) setNIC(name string, s attach.UplinkState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nics[name] = s
	if w := h.watches[name]; w != nil {
		w.states <- s
	}
}

// fakeLocal is ports that a host in memory holds.
type fakeLocal struct {
	h *fakeHost
	p proxy.Publication
}

func (l *fakeLocal) SetTarget(*proxy.Target) {}
func (l *fakeLocal) SetHome([]netip.Addr)    {}
func (l *fakeLocal) Stats() proxy.Stats      { return proxy.Stats{} }
func (l *fakeLocal) Flush()                  {}

func (l *fakeLocal) Close() error {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.opened--
	delete(l.h.held, l.p.Ports.First)
	return nil
}

func (h *fakeHost) publish(p proxy.Publication) (localPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[p.Ports.First] {
		return nil, fmt.Errorf("port %d: %w", p.Ports.First, attach.ErrPortInUse)
	}
	h.held[p.Ports.First] = true
	h.opened++
	return &fakeLocal{h, p}, nil
}

func (d *fakeDevice) namespace() *attach.Namespace { return nil }

type fakeDevice struct {
	h     *fakeHost
	key   string
	ns    string
	o     order
	mem   *mem.Port
	down  error
	owner string
	lost  atomic.Uint64 // What sample finds.
	shown atomic.Uint64
	looks atomic.Uint64 // How often check was called, and calm.
	calls atomic.Uint64
}

func (d *fakeDevice) sample()         { d.shown.Store(d.lost.Load()) }
func (d *fakeDevice) dropped() uint64 { return d.shown.Load() }

func (h *fakeHost) changes() <-chan struct{} { return h.poked }

func (h *fakeHost) sweep(func(port, ifName string) bool) {}

func (h *fakeHost) changed() ([]string, bool) { return nil, true }

func (h *fakeHost) reach(ctx context.Context, p *config.Port) error {
	h.mu.Lock()
	ask := h.onReach
	h.mu.Unlock()
	if ask != nil {
		return ask(ctx, p)
	}
	return nil
}

func (h *fakeHost) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened > 0 {
		return fmt.Errorf("%d devices are still open", h.opened)
	}
	h.closed = true
	return nil
}

func (h *fakeHost) open(_ context.Context, o order) (device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onOpen != nil {
		h.onOpen()
	}
	if h.failOpen != nil {
		return nil, h.failOpen
	}
	ns := o.spec.NetNS
	if ns != "" && !h.namespaces[ns] {
		return nil, fmt.Errorf("namespace %s: %w", ns, attach.ErrNoNamespace)
	}
	key := ns + "|" + o.spec.IfName + o.spec.Interface
	if old := h.links[key]; old != nil && old.owner != o.spec.Name {
		return nil, fmt.Errorf("interface %s: %w", key, attach.ErrLinkExists)
	}
	d := &fakeDevice{h: h, key: key, ns: ns, o: o, owner: o.spec.Name, mem: mem.New(mem.Config{Workers: o.workers})}
	h.links[key] = d
	h.opened++
	return d, nil
}

func (h *fakeHost) discard(_ context.Context, o order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := o.spec.NetNS + "|" + o.spec.IfName + o.spec.Interface
	if l := h.links[key]; l != nil && l.owner == o.spec.Name {
		delete(h.links, key)
	}
	return nil
}

// poke tells the daemon to look at its ports.
func (h *fakeHost) poke() {
	select {
	case h.poked <- struct{}{}:
	default:
	}
}

// breakLink has a device fail from now on.
func (h *fakeHost) breakLink(key string, why error) {
	h.mu.Lock()
	h.links[key].down = why
	h.mu.Unlock()
	h.poke()
}

func (h *fakeHost) device(key string) *fakeDevice {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.links[key]
}

func (h *fakeHost) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (d *fakeDevice) port() dataplane.Port { return d.mem }

func (d *fakeDevice) facts() facts {
	return facts{ifName: d.o.spec.IfName + d.o.spec.Interface, mac: d.o.mac.String(), mtu: d.o.mtu}
}

func (d *fakeDevice) calm() bool {
	d.calls.Add(1)
	return d.fault() == nil
}

func (d *fakeDevice) check() error {
	d.looks.Add(1)
	return d.fault()
}

func (d *fakeDevice) fault() error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if d.ns != "" && !d.h.namespaces[d.ns] {
		return goneError{fmt.Errorf("namespace %s: %w", d.ns, attach.ErrNoNamespace)}
	}
	return d.down
}

func (d *fakeDevice) configure(_ context.Context, o order) error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if d.h.failConfigure != nil && d.owner == "b" {
		return d.h.failConfigure
	}
	d.o = o
	return nil
}

func (h *fakeHost) probe(_ context.Context, p *config.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.NetNS != "" && !h.namespaces[p.NetNS] {
		return fmt.Errorf("namespace %s: %w", p.NetNS, attach.ErrNoNamespace)
	}
	return nil
}

func (d *fakeDevice) restore(context.Context) error { return nil }

func (d *fakeDevice) release() error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.h.opened--
	return d.mem.Close()
}

func (d *fakeDevice) remove() error {
	err := d.release()
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	delete(d.h.links, d.key)
	return errors.Join(err, d.h.failRemove)
}

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
		Workers: 1, MaxMACs: 1000, MaxConns: 1000, Log: zaptest.NewLogger(t),
	}
}

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

// await waits until a condition holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after 10 s: %s", what)
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
