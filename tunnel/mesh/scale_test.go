package mesh

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

var (
	scaleSizes = flag.String("mesh.sizes", "10,20", "hosts in each simulation of TestScale")
	scaleOut   = flag.String("mesh.out", "", "folder for TestScale's table.txt, result.json and plot.svg")
)

// scaleEndpoints is what each host announces, scaleEvents how many changes are
// measured, a second and a half apart.
const (
	scaleEndpoints = 20
	scaleEvents    = 20
	scalePause     = 1500 * time.Millisecond
)

// scaled is what was measured at one size. Times are of the driven clock;
// bytes are UDP and TCP payload that all hosts sent, divided by the hosts.
type scaled struct {
	Hosts         int     `json:"hosts"`
	Start         float64 `json:"start_seconds"`      // All hosts start at one time and join the first; all know all endpoints.
	Join          float64 `json:"join_seconds"`       // One more.
	EventMedian   float64 `json:"event_seconds"`      // One endpoint is announced; all know it.
	EventMost     float64 `json:"event_seconds_most"` //
	Fail          float64 `json:"fail_seconds"`       // One dies; all have dropped it and its endpoints.
	Idle          float64 `json:"idle_bytes_per_host_per_second"`
	BareIdle      float64 `json:"bare_idle_bytes_per_host_per_second"`
	Event         float64 `json:"event_bytes_per_host"`
	BareEvent     float64 `json:"bare_event_bytes_per_host"` // memberlist alone, broadcasting as many bytes.
	Delta         int     `json:"delta_bytes"`
	Memory        float64 `json:"heap_bytes_per_host"`
	EndpointBytes float64 `json:"heap_bytes_per_endpoint_and_host"`
}

// TestScale simulates meshes of the sizes of -mesh.sizes, measures them against
// the limits and against memberlist alone, and writes what it found to
// -mesh.out:
//
//	go test ./tunnel/mesh -run TestScale -v -args -mesh.sizes=10,50,100,200 -mesh.out=DIR
func TestScale(t *testing.T) {
	var results []scaled
	for _, s := range strings.Split(*scaleSizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("-mesh.sizes: %v", err)
		}
		r := scaled{Hosts: n}
		synctest.Test(t, func(t *testing.T) { measure(t, &r) })
		synctest.Test(t, func(t *testing.T) { measureBare(t, &r) })
		synctest.Test(t, func(t *testing.T) { measureMemory(t, &r) })
		t.Logf("%+v", r)
		if r.Join > joinLimit.Seconds() || r.EventMost > moveLimit.Seconds() || r.Fail > failLimit.Seconds() {
			t.Errorf("%d hosts: joined in %.1f s, told in %.1f s, failed in %.1f s", n, r.Join, r.EventMost, r.Fail)
		}
		if r.Event > 1.5*r.BareEvent {
			t.Errorf("%d hosts: an event costs %.0f B a host, memberlist alone takes %.0f", n, r.Event, r.BareEvent)
		}
		results = append(results, r)
	}
	if *scaleOut == "" {
		return
	}
	var table, plot strings.Builder
	writeScaleTable(&table, results)
	writeScalePlot(&plot, results)
	doc, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(*scaleOut, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"table.txt": table.String(), "plot.svg": plot.String(), "result.json": string(doc) + "\n"} {
		if err := os.WriteFile(filepath.Join(*scaleOut, name), []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// sent is what all hosts have sent; news is that without memberlist's exchanges
// of states, which are rare and long.
func (n *memNet) sent() float64 { return float64(n.bytes.Load() + n.streamBytes.Load()) }
func (n *memNet) news() float64 { return float64(n.bytes.Load() + n.oneWayBytes.Load()) }

// idleTime is long enough for every host to exchange states once.
func idleTime(n int) time.Duration {
	scale := 1
	for m := 32; m < n; m *= 2 {
		scale++
	}
	return time.Duration(scale) * tune().PushPullInterval
}

func measure(t *testing.T, r *scaled) {
	c := newCluster(t)
	n := r.Hosts
	for i := range n {
		c.start(i)
		c.announce(i, scaleEndpoints)
	}
	start := time.Now()
	var wait sync.WaitGroup
	for i := 1; i < n; i++ {
		wait.Go(func() {
			if _, err := c.node(i).Join(t.Context(), []string{testAddr(0).String()}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	c.within(time.Minute, "start", c.agree)
	r.Start = time.Since(start).Seconds()

	time.Sleep(tune().PushPullInterval) // So that the first of memberlist's exchanges are not all ahead.
	before, quiet := c.net.sent(), c.net.news()
	time.Sleep(idleTime(n))
	r.Idle = (c.net.sent() - before) / idleTime(n).Seconds() / float64(n)
	quiet = (c.net.news() - quiet) / idleTime(n).Seconds()

	var took []float64
	before, start = c.net.news(), time.Now()
	for i := range scaleEvents {
		from := c.node(i % n)
		e := testEndpoint(i%n, 100+i)
		at := time.Now()
		if err := from.Announce(e); err != nil {
			t.Fatal(err)
		}
		c.within(10*time.Second, "event", func() error { return c.owned(e, i%n) })
		took = append(took, time.Since(at).Seconds())
		time.Sleep(scalePause)
	}
	time.Sleep(newsFor)
	r.Event = (c.net.news() - before - quiet*time.Since(start).Seconds()) / scaleEvents / float64(n)
	slices.Sort(took)
	r.EventMedian, r.EventMost = took[len(took)/2], took[len(took)-1]
	r.Delta = len(encodeDelta(c.node(0).self, 21, []change{{op: changeSet, record: record{ips: packAddrs(testEndpoint(0, 0).IPs)}}}))

	start = time.Now()
	c.start(n)
	c.announce(n, scaleEndpoints)
	if _, err := c.node(n).Join(t.Context(), []string{testAddr(n / 2).String()}); err != nil {
		t.Fatal(err)
	}
	c.within(time.Minute, "join", c.agree)
	r.Join = time.Since(start).Seconds()

	c.kill(n / 3)
	r.Fail = c.within(time.Minute, "fail", c.agree).Seconds()
}

// bare is a host with memberlist alone: it passes on what it hears for the
// first time, as users of memberlist do.
type bare struct {
	memberlist.Delegate
	list  *memberlist.Memberlist
	queue *memberlist.TransmitLimitedQueue
	mu    sync.Mutex
	heard map[string]bool
}

func (b *bare) NodeMeta(int) []byte                    { return meta{vtep: testVTEP(1)}.encode() }
func (b *bare) LocalState(bool) []byte                 { return nil }
func (b *bare) MergeRemoteState([]byte, bool)          {}
func (b *bare) GetBroadcasts(overhead, n int) [][]byte { return b.queue.GetBroadcasts(overhead, n) }
func (b *bare) NotifyMsg(msg []byte)                   { b.say(slices.Clone(msg)) }

func (b *bare) say(msg []byte) {
	b.mu.Lock()
	known := b.heard[string(msg)]
	b.heard[string(msg)] = true
	b.mu.Unlock()
	if !known {
		b.queue.QueueBroadcast(rumour{msg: msg})
	}
}

func measureBare(t *testing.T, r *scaled) {
	net := newMemNet()
	n := r.Hosts
	hosts := make([]*bare, n)
	for i := range hosts {
		b := &bare{heard: map[string]bool{}}
		b.queue = &memberlist.TransmitLimitedQueue{NumNodes: func() int { return n }, RetransmitMult: tune().RetransmitMult}
		conf := tune()
		conf.Name, conf.Transport, conf.Delegate, conf.SecretKey, conf.LogOutput = testName(i), net.listen(testAddr(i)), b, testKey, io.Discard
		list, err := memberlist.Create(conf)
		if err != nil {
			t.Fatal(err)
		}
		b.list, hosts[i] = list, b
	}
	for i, b := range hosts {
		if _, err := b.list.Join([]string{testAddr(i / 2).String()}); err != nil {
			t.Fatal(err)
		}
	}
	for slices.ContainsFunc(hosts, func(b *bare) bool { return b.list.NumMembers() < n }) {
		time.Sleep(time.Second)
	}
	time.Sleep(tune().PushPullInterval)
	before, quiet := net.sent(), net.news()
	time.Sleep(idleTime(n))
	r.BareIdle = (net.sent() - before) / idleTime(n).Seconds() / float64(n)
	quiet = (net.news() - quiet) / idleTime(n).Seconds()
	before = net.news()
	start := time.Now()
	for i := range scaleEvents {
		hosts[i%n].say(slices.Concat([]byte{byte(i)}, make([]byte, r.Delta-1)))
		time.Sleep(scalePause + time.Second)
	}
	time.Sleep(newsFor)
	r.BareEvent = (net.news() - before - quiet*time.Since(start).Seconds()) / scaleEvents / float64(n)
	for _, b := range hosts {
		_ = b.list.Shutdown()
	}
	time.Sleep(time.Minute)
}

// measureMemory compares heaps: of no host, of hosts that announce nothing,
// and of hosts that announce much.
func measureMemory(t *testing.T, r *scaled) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	c := newCluster(t)
	for i := range r.Hosts {
		c.net.listen(testAddr(i)) // Not counted; start makes its own.
	}
	none := heap()
	for i := range r.Hosts {
		c.start(i, func(cfg *Config) { cfg.Handler = nil })
	}
	for i := 1; i < r.Hosts; i++ {
		if _, err := c.node(i).Join(t.Context(), []string{testAddr(i / 2).String()}); err != nil {
			t.Fatal(err)
		}
	}
	c.within(time.Minute, "members", func() error {
		for name, n := range c.nodes {
			if len(n.Members()) < r.Hosts {
				return fmt.Errorf("%s sees %d", name, len(n.Members()))
			}
		}
		return nil
	})
	time.Sleep(time.Minute)
	empty := heap()
	r.Memory = (empty - none) / float64(r.Hosts)
	each := max(scaleEndpoints, 20000/r.Hosts)
	for i := range r.Hosts {
		c.announce(i, each)
	}
	c.within(time.Minute, "endpoints", c.endpointsAgree)
	time.Sleep(time.Minute)
	r.EndpointBytes = (heap() - empty) / float64(r.Hosts) / float64(r.Hosts*each)
}
