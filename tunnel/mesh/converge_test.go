package mesh

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"heddle/dataplane/wire"
)

// The limits of convergence, at 50 hosts.
const (
	joinLimit   = 5 * time.Second
	failLimit   = 10 * time.Second
	moveLimit   = 2 * time.Second
	healLimit   = 30 * time.Second
	partLimit   = 15 * time.Second // Until half of all hosts, gone at one time, are found dead.
	perHost     = 20
	eventsLimit = 2 * time.Second
)

// fifty is a cluster of 50 hosts that announce 20 endpoints each.
func fifty(t *testing.T) *cluster {
	c := newCluster(t)
	c.grow(hosts)
	for i := range hosts {
		c.announce(i, perHost)
	}
	took := c.within(20*time.Second, "all endpoints everywhere", c.agree)
	t.Logf("%d hosts with %d endpoints each told all in %s", hosts, perHost, took)
	return c
}

// announce gives host i its networks and n endpoints.
func (c *cluster) announce(i, n int) {
	c.t.Helper()
	m := c.node(i)
	if err := m.SetNetworks([]Network{{"red", 100}, {"green", 101}, {"blue", 102}}); err != nil {
		c.t.Fatal(err)
	}
	var list []Endpoint
	for j := range n {
		list = append(list, testEndpoint(i, j))
	}
	if err := m.Announce(list...); err != nil {
		c.t.Fatal(err)
	}
}

func TestJoinWithinLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fifty(t)
		c.start(hosts)
		c.announce(hosts, perHost)
		start := time.Now()
		if _, err := c.node(hosts).Join(t.Context(), []string{testAddr(7).String()}); err != nil {
			t.Fatal(err)
		}
		c.within(joinLimit-time.Since(start), "a new host is everywhere and knows all", c.agree)
		t.Logf("joined in %s", time.Since(start))
	})
}

func TestFailedHostWithinLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fifty(t)
		for i := range 3 {
			c.kill(i)
			took := c.within(failLimit, "a dead host and its endpoints are gone", c.agree)
			t.Logf("noticed in %s", took)
		}
		for _, m := range c.node(9).Members() {
			if m.Name == testName(0) && (m.State != Failed || m.Endpoints != 0 || m.Networks != nil) {
				t.Errorf("the dead host is shown as %+v", m)
			}
		}
	})
}

func TestSuspectIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		c.kill(1)
		c.within(3*time.Second, "somebody suspects it", func() error {
			for _, i := range []int{0, 2} {
				for _, m := range c.node(i).Members() {
					if m.State == Suspect && m.Name == testName(1) {
						return nil
					}
				}
			}
			return errors.New("nobody does")
		})
	})
}

// TestFullMember: all that one member may announce, and one more.
func TestFullMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		many := make([]Endpoint, MaxEndpoints)
		for i := range many {
			many[i] = testEndpoint(0, 0)
			many[i].MAC += wire.MAC(i)
		}
		if err := c.node(0).Announce(many...); err != nil {
			t.Fatal(err)
		}
		took := c.within(joinLimit, "all are known", c.agree)
		s := c.node(0).Stats()
		t.Logf("%d endpoints told in %s, %d bytes in %d states", MaxEndpoints, took, s.Out[KindState].Bytes, s.Out[KindState].Count)
		if err := c.node(0).Announce(testEndpoint(1, 0)); err == nil {
			t.Error("one more is announced")
		}
		for _, e := range many[1:] {
			c.node(0).Withdraw(e.VNI, e.MAC)
		}
		c.within(joinLimit, "all but one are gone", c.agree)
	})
}

func TestMoveWithinLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fifty(t)
		e := testEndpoint(3, 0)
		for to := 5; to < 10; to++ {
			if err := c.node(to).Announce(e); err != nil {
				t.Fatal(err)
			}
			took := c.within(moveLimit, "a MAC that moves is followed", func() error { return c.owned(e, to) })
			c.within(moveLimit, "nobody else announces it", func() error {
				if err := c.agree(); err != nil {
					return err
				}
				return c.announcedOnce(e)
			})
			t.Logf("followed in %s", took)
		}
	})
}

// owned says who doesn't know that an endpoint is behind host i.
func (c *cluster) owned(e Endpoint, i int) error {
	for name, n := range c.nodes {
		n.mu.Lock()
		r, _ := n.table.owner(key{e.MAC, e.VNI})
		n.mu.Unlock()
		if r == nil || r.name != testName(i) {
			return fmt.Errorf("%s has %v elsewhere", name, e.MAC)
		}
	}
	return nil
}

func (c *cluster) announcedOnce(e Endpoint) error {
	var by []string
	for name, n := range c.nodes {
		n.mu.Lock()
		if _, ok := n.table.local.entries[key{e.MAC, e.VNI}]; ok {
			by = append(by, name)
		}
		n.mu.Unlock()
	}
	if len(by) != 1 {
		return fmt.Errorf("%v is announced by %v", e.MAC, by)
	}
	return nil
}

// half cuts the hosts below n off from the others.
func half(n int) func(from, to string) bool {
	side := map[string]bool{}
	for i := range n {
		side[testAddr(i).String()] = true
	}
	return func(from, to string) bool { return side[from] != side[to] }
}

func TestPartitionHealsWithinLimit(t *testing.T) {
	for _, cut := range []struct {
		name string
		part int
		last time.Duration
	}{
		{"one host for a while", 1, 20 * time.Second},
		{"half for a while", hosts / 2, 20 * time.Second},
		{"half for long", hosts / 2, time.Minute},
	} {
		t.Run(cut.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := fifty(t)
				c.net.set(half(cut.part), 0)
				start := time.Now()
				c.within(partLimit, "the larger side sees itself", func() error { return c.sides(cut.part) })
				t.Logf("parted in %s", time.Since(start))
				// Both sides change meanwhile, and one MAC is on both.
				both := testEndpoint(200, 0)
				for _, i := range []int{0, hosts - 1} {
					if err := c.node(i).Announce(both, testEndpoint(i, 100)); err != nil {
						t.Fatal(err)
					}
					c.node(i).Withdraw(testEndpoint(i, 0).VNI, testEndpoint(i, 0).MAC)
				}
				time.Sleep(cut.last - time.Since(start))
				c.net.set(nil, 0)
				took := c.within(healLimit, "one mesh again", func() error {
					if err := c.agree(); err != nil {
						return err
					}
					return c.announcedOnce(both)
				})
				t.Logf("healed in %s", took)
			})
		})
	}
}

// sides says what is wrong if the hosts from n on see others than those. A host
// that is alone takes half a second for each of the others: it probes them one
// by one.
func (c *cluster) sides(n int) error {
	for i := n; i < hosts; i++ {
		for _, m := range c.node(i).Members() {
			var j int
			if _, err := fmt.Sscanf(m.Name, "host-%d", &j); err != nil {
				return err
			}
			if up := m.State == Alive || m.State == Suspect; up != ((i < n) == (j < n)) {
				return fmt.Errorf("%s sees %s as %s", testName(i), m.Name, m.State)
			}
		}
	}
	return nil
}

func TestLossOfPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fifty(t)
		c.net.set(nil, 0.1)
		for round := range 5 {
			for i := round; i < hosts; i += 10 {
				if err := c.node(i).Announce(testEndpoint(i, 100+round)); err != nil {
					t.Fatal(err)
				}
			}
			took := c.within(5*time.Second, "changes get round with a tenth of the packets lost", c.endpointsAgree)
			t.Logf("%s", took)
		}
		c.net.set(nil, 0)
		c.within(failLimit, "nobody was lost", c.agree)
	})
}
