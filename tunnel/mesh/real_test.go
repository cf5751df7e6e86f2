package mesh

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// realLimit is how long anything takes at most on a machine that may stand still for
// seconds: the limits of convergence are for a driven clock.
const realLimit = 30 * time.Second

// Three hosts on loopback addresses, by the kernel's UDP and TCP:
//
//	127.0.0.2 ── 127.0.0.3 ── 127.0.0.4        or ::1 thrice
func TestRealSockets(t *testing.T) {
	for family, addrs := range map[string][]string{
		"IPv4": {"127.0.0.2", "127.0.0.3", "127.0.0.4"},
		"IPv6": {"::1", "::1", "::1"},
	} {
		t.Run(family, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			c := newCluster(t)
			open := func(i int) {
				w := newWatcher(t)
				w.self = testName(i)
				cfg := Config{Name: w.self, Bind: netip.AddrPortFrom(netip.MustParseAddr(addrs[i]), 0),
					VTEP: testVTEP(i), Keys: [][]byte{testKey}, Handler: w}
				m, err := New(cfg)
				for try := 0; try < 5 && err != nil && strings.Contains(err.Error(), "another program"); try++ {
					m, err = New(cfg) // The kernel chooses a free port of TCP's, which UDP's need not be.
				}
				if err != nil {
					t.Fatal(err)
				}
				c.nodes[w.self] = &node{m, w}
				c.announce(i, 2000) // Too many for a datagram.
			}
			for i := range addrs {
				open(i)
			}
			for i := 1; i < len(addrs); i++ {
				if n, err := c.node(i).Join(t.Context(), []string{c.node(0).Self().Address.String()}); n != 1 || err != nil {
					t.Fatalf("%d joined, %v", n, err)
				}
			}
			c.within(realLimit, "three hosts agree", c.agree)
			if err := c.node(1).Announce(testEndpoint(0, 0)); err != nil {
				t.Fatal(err)
			}
			c.within(realLimit, "a MAC moves", func() error { return c.owned(testEndpoint(0, 0), 1) })
			if err := c.node(1).SetVTEP(testVTEP(77)); err != nil {
				t.Fatal(err)
			}
			c.within(realLimit, "a VTEP changes and a probe is answered", func() error {
				for _, m := range c.node(2).Members() {
					if m.Name == testName(1) && m.VTEP == testVTEP(77) && m.RTT > 0 {
						return nil
					}
				}
				return fmt.Errorf("members are %v", c.node(2).Members())
			})
			gone := c.node(0)
			delete(c.nodes, testName(0))
			if err := gone.Leave(realLimit); err != nil {
				t.Error(err)
			}
			c.within(realLimit, "one leaves", c.agree)
			for _, n := range c.nodes {
				s := n.Stats()
				s.Refused[RefusedQueue] = 0 // It is asked for again: somebody had no CPU.
				if s.Refused != [RefusalCount]uint64{} || s.In[KindStream].Count == 0 || s.Out[KindPacket].Bytes == 0 {
					t.Errorf("counted %+v", s)
				}
			}
			if _, err := New(Config{Name: "late", Bind: c.node(1).Self().Address, VTEP: testVTEP(9)}); err == nil || !strings.Contains(err.Error(), "another program") {
				t.Errorf("a second listener: %v", err)
			}
			c.closeNow()
			// memberlist's Shutdown doesn't wait for a probe under way.
			c.within(realLimit, "no goroutine is left", func() error { return goleak.Find(before) })
		})
	}
}

// TestNoTimeOfDay: no decision is taken by the time of day, which may be a day
// off on some hosts. Times are only subtracted and compared, which Go does on
// the monotonic clock, and none is sent.
func TestNoTimeOfDay(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	wall := regexp.MustCompile(`\.(Unix\w*|Format|AppendFormat|UTC|Local|In|Round|Truncate|Date|Clock|Year|Weekday|MarshalBinary|MarshalJSON|MarshalText|GobEncode)\(|time\.(Date|Parse|Unix)`)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if at := wall.FindString(line); at != "" && !strings.Contains(line, "//") && !strings.Contains(line, "count.in(") {
				t.Errorf("%s:%d: %s", f, i+1, at)
			}
		}
	}
}
