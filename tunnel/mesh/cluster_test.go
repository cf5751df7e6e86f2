package mesh

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"heddle/dataplane/wire"
)

// TestMain collects garbage rarely: hundreds of hosts in one process make much
// of it.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// cluster is a number of meshes on one memNet. Its methods run inside a
// synctest bubble.
type cluster struct {
	t     *testing.T
	net   *memNet
	nodes map[string]*node
}

// node is a host of the cluster and what its handler was told.
type node struct {
	*Mesh
	watch *watcher
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, net: newMemNet(), nodes: map[string]*node{}}
	t.Cleanup(c.close)
	return c
}

// close ends a bubble's cluster.
func (c *cluster) close() {
	if c.nodes != nil {
		c.closeNow()
		time.Sleep(time.Minute) // The clock stops with the test: let memberlist's probes run out.
	}
}

func (c *cluster) closeNow() {
	var wait sync.WaitGroup
	for _, n := range c.nodes {
		wait.Go(func() { _ = n.Close() })
	}
	wait.Wait()
	c.nodes = nil
}

func testAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), DefaultPort)
}

func testName(i int) string { return fmt.Sprintf("host-%03d", i) }

func testVTEP(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 4789)
}

func testEndpoint(host, i int) Endpoint {
	return Endpoint{
		VNI: 100 + uint32(i%3),
		MAC: wire.MAC(0x020000000000 + uint64(host)<<16 + uint64(i)),
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{198, 19, byte(host), byte(i)})},
	}
}

// start makes host i, with what edit changes of its configuration.
func (c *cluster) start(i int, edit ...func(*Config)) *node {
	c.t.Helper()
	w := newWatcher(c.t)
	cfg := Config{Name: testName(i), VTEP: testVTEP(i), Keys: [][]byte{testKey}, Transport: c.net.listen(testAddr(i)), Handler: w}
	if testing.Verbose() {
		cfg.Log = func(level slog.Level, text string) { c.t.Logf("%s %s: %s", cfg.Name, level, text) }
	}
	for _, e := range edit {
		e(&cfg)
	}
	w.self = cfg.Name
	m, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{m, w}
	c.nodes[cfg.Name] = n
	return n
}

// grow starts hosts 0 to n-1, each joined to the first, and waits until all see
// all.
func (c *cluster) grow(n int) {
	c.t.Helper()
	for i := range n {
		c.start(i)
	}
	var wait sync.WaitGroup
	for i := 1; i < n; i++ {
		wait.Go(func() {
			if _, err := c.node(i).Join(c.t.Context(), []string{testAddr(0).String()}); err != nil {
				c.t.Error(err)
			}
		})
	}
	wait.Wait()
	c.within(20*time.Second, "all see all", c.agree)
}

func (c *cluster) node(i int) *node { return c.nodes[testName(i)] }

// kill stops a host without a word, and its address with it.
func (c *cluster) kill(i int) {
	n := c.node(i)
	delete(c.nodes, testName(i))
	_ = n.Close()
}

// pollEvery is how often within looks, which is what makes a large cluster
// dear: it compares all tables.
const pollEvery = 100 * time.Millisecond

// within waits until a condition holds and returns how long that took; it
// fails if that is longer than the limit.
func (c *cluster) within(limit time.Duration, what string, holds func() error) time.Duration {
	c.t.Helper()
	start := time.Now()
	for {
		err := holds()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			c.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(pollEvery)
	}
}

// place is where an endpoint is, and its IPs.
type place struct {
	owner string
	ips   addrs
}

// agree says where nodes' tables, or what their handlers were told, differ
// from the truth: what each live node announces, owners chosen by the rule.
func (c *cluster) agree() error {
	if err := c.endpointsAgree(); err != nil {
		return err
	}
	want := c.truth()
	names := slices.Sorted(maps.Keys(c.nodes))
	networks := map[string][]Network{}
	for _, name := range names {
		networks[name] = c.nodes[name].Self().Networks
	}
	for _, name := range names {
		n := c.nodes[name]
		if err := n.watch.same(want); err != nil {
			return err
		}
		var live []string
		for _, mb := range n.Members() {
			if mb.State == Alive || mb.State == Suspect {
				live = append(live, mb.Name)
				if !mb.Synced || !slices.Equal(mb.Networks, networks[mb.Name]) {
					return fmt.Errorf("%s thinks %s has %v, synced: %t", name, mb.Name, mb.Networks, mb.Synced)
				}
			}
		}
		if !slices.Equal(live, names) {
			return fmt.Errorf("%s sees %v, want %v", name, live, names)
		}
	}
	return nil
}

// endpointsAgree is agree without members, some of which may be suspect, and
// handlers.
func (c *cluster) endpointsAgree() error {
	want := c.truth()
	for name, n := range c.nodes {
		n.mu.Lock()
		got := map[key]place{}
		for k, s := range n.table.slots {
			if s.best != nil {
				got[k] = place{s.best.name, s.best.entries[k].ips}
			}
		}
		n.mu.Unlock()
		if err := same(name+"'s table", got, want); err != nil {
			return err
		}
	}
	return nil
}

// truth is the slow model: all entries of all nodes, the best for each key.
func (c *cluster) truth() map[key]place {
	best := map[key]place{}
	mobility := map[key]uint32{}
	for name, n := range c.nodes {
		n.mu.Lock()
		for k, r := range n.table.local.entries {
			old, ok := best[k]
			if !ok || r.mobility > mobility[k] || (r.mobility == mobility[k] && name < old.owner) {
				best[k], mobility[k] = place{name, r.ips}, r.mobility
			}
		}
		n.mu.Unlock()
	}
	return best
}

func same(what string, got, want map[key]place) error {
	for k, w := range want {
		if g, ok := got[k]; !ok || g != w {
			return fmt.Errorf("%s has %v behind %q %v, want %q %v", what, k.mac, g.owner, g.ips.list(), w.owner, w.ips.list())
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			return fmt.Errorf("%s has %v behind %q, which is nowhere", what, k.mac, g.owner)
		}
	}
	return nil
}

// watcher is a Handler that keeps what it was told, and complains when it is
// told what can't be.
type watcher struct {
	t    *testing.T
	self string

	mu        sync.Mutex
	members   map[string]Member
	endpoints map[key]place
	taken     error
	events    int
}

func newWatcher(t *testing.T) *watcher {
	return &watcher{t: t, members: map[string]Member{}, endpoints: map[key]place{}}
}

func (w *watcher) MemberUp(m Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	if _, ok := w.members[m.Name]; ok || m.Self {
		w.t.Errorf("%s: %s is up twice", w.self, m.Name)
	}
	w.members[m.Name] = m
}

func (w *watcher) MemberChanged(m Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	if _, ok := w.members[m.Name]; !ok {
		w.t.Errorf("%s: %s changes and is not up", w.self, m.Name)
	}
	w.members[m.Name] = m
}

func (w *watcher) MemberDown(m Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	if _, ok := w.members[m.Name]; !ok {
		w.t.Errorf("%s: %s is down and was not up", w.self, m.Name)
	}
	delete(w.members, m.Name)
	for _, e := range w.endpoints {
		if e.owner == m.Name {
			w.t.Errorf("%s: %s is down and owns %v", w.self, m.Name, e)
		}
	}
}

func (w *watcher) EndpointAdded(e Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(e)
}

// put keeps an endpoint. One of this host's own is forgotten: its end is not
// told.
func (w *watcher) put(e Endpoint) {
	w.events++
	if _, ok := w.members[e.Owner]; !ok && e.Owner != w.self {
		w.t.Errorf("%s: %v is behind %s, which is not up", w.self, e.MAC, e.Owner)
	}
	if e.Owner == w.self {
		delete(w.endpoints, key{e.MAC, e.VNI})
		return
	}
	w.endpoints[key{e.MAC, e.VNI}] = place{e.Owner, packAddrs(e.IPs)}
}

func (w *watcher) EndpointChanged(old, e Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old.Owner != w.self {
		w.was(old)
	}
	w.put(e)
}

func (w *watcher) was(e Endpoint) {
	if had := w.endpoints[key{e.MAC, e.VNI}]; had != (place{e.Owner, packAddrs(e.IPs)}) {
		w.t.Errorf("%s: told that %v ends, had %v", w.self, e, had)
	}
}

func (w *watcher) EndpointRemoved(e Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	w.was(e)
	delete(w.endpoints, key{e.MAC, e.VNI})
}

func (w *watcher) NameTaken(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = err
}

// same holds what was told against the truth, this host's own left out.
func (w *watcher) same(want map[key]place) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	others := maps.Clone(want)
	maps.DeleteFunc(others, func(_ key, p place) bool { return p.owner == w.self })
	return same(w.self+"'s handler", w.endpoints, others)
}

// quietQueue gives a mesh that was not made by New a queue that goes nowhere.
func (m *Mesh) quietQueue() {
	m.queue = &memberlist.TransmitLimitedQueue{NumNodes: func() int { return 1 }, RetransmitMult: 1}
}
