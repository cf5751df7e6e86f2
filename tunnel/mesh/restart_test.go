package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestart(t *testing.T) {
	for _, at := range []struct {
		name string
		addr int
	}{{"at its address", 4}, {"at another address", 60}} {
		t.Run(at.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.grow(8)
				for i := range 8 {
					c.announce(i, perHost)
				}
				c.within(eventsLimit, "all endpoints everywhere", c.agree)
				c.kill(4)
				n := c.start(4, func(cfg *Config) {
					cfg.VTEP = testVTEP(at.addr)
					cfg.Transport = c.net.listen(testAddr(at.addr))
				})
				if err := n.Announce(testEndpoint(4, 200)); err != nil {
					t.Fatal(err)
				}
				if _, err := n.Join(t.Context(), []string{testAddr(2).String()}); err != nil {
					t.Fatal(err)
				}
				took := c.within(joinLimit, "the new run has replaced the old", c.agree)
				t.Logf("replaced in %s", took)
				time.Sleep(failLimit) // The old run is found dead meanwhile, and that is no news.
				if err := c.agree(); err != nil {
					t.Error(err)
				}
				for _, m := range c.node(0).Members() {
					if m.Name == testName(4) && (m.VTEP != testVTEP(at.addr) || m.Address != testAddr(at.addr)) {
						t.Errorf("the restarted host is shown as %+v", m)
					}
				}
			})
		})
	}
}

func TestAllRestartAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(10)
		var known []string
		for i := range 10 {
			known = append(known, testAddr(i).String())
		}
		for i := range 10 {
			c.kill(i)
		}
		for i := range 10 {
			c.start(i, func(cfg *Config) { cfg.Known = known })
			c.announce(i, perHost)
		}
		took := c.within(joinLimit, "all find each other by what they remember", c.agree)
		t.Logf("together in %s", took)
	})
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(10)
		c.announce(3, perHost)
		c.within(eventsLimit, "endpoints everywhere", c.agree)
		gone := c.node(3)
		delete(c.nodes, testName(3))
		if err := gone.Leave(2 * time.Second); err != nil {
			t.Error(err)
		}
		c.within(time.Second, "it is gone", func() error {
			if err := c.agree(); err != nil {
				return err
			}
			return c.left(testName(3))
		})
		if err := gone.Announce(testEndpoint(3, 0)); !errors.Is(err, ErrClosed) {
			t.Errorf("announcing after that: %v", err)
		}
	})
}

// left says who shows a host as anything but left.
func (c *cluster) left(name string) error {
	for on, n := range c.nodes {
		for _, m := range n.Members() {
			if m.Name == name && m.State != Left {
				return fmt.Errorf("%s shows %s as %s", on, name, m.State)
			}
		}
	}
	return nil
}

func TestSecondHostOfTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(5)
		c.announce(2, perHost)
		c.within(eventsLimit, "endpoints everywhere", c.agree)
		w := newWatcher(t)
		w.self = testName(2)
		twin, err := New(Config{Name: testName(2), VTEP: testVTEP(9), Keys: [][]byte{testKey}, Transport: c.net.listen(testAddr(9)), Handler: w})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = twin.Close() }()
		if err := twin.Announce(testEndpoint(2, 0)); err != nil {
			t.Fatal(err)
		}
		_, err = twin.Join(t.Context(), []string{testAddr(0).String()})
		if err == nil || !strings.Contains(err.Error(), testAddr(2).String()) || !strings.Contains(err.Error(), "already") {
			t.Errorf("the second host's join: %v", err)
		}
		for range 50 {
			time.Sleep(200 * time.Millisecond)
			if err := c.agree(); err != nil {
				t.Fatalf("the others are disturbed: %v", err)
			}
		}
		if c.node(0).Stats().Refused[RefusedName] == 0 {
			t.Error("not counted")
		}
	})
}

// TestNamesakesMeetAfterPartition: neither is the newcomer, one yields.
func TestNamesakesMeetAfterPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(6)
		c.net.set(half(3), 0)
		time.Sleep(20 * time.Second)
		same := func(cfg *Config) { cfg.Name = "twin" }
		a := c.start(20, same)
		delete(c.nodes, "twin")
		b := c.start(21, same)
		delete(c.nodes, "twin")
		defer func() { _, _ = a.Close(), b.Close() }()
		side := half(3)
		c.net.set(func(from, to string) bool {
			if from == testAddr(20).String() || to == testAddr(20).String() {
				other := from + to
				return !strings.Contains(other, testAddr(0).String()) && !strings.Contains(other, testAddr(1).String()) && !strings.Contains(other, testAddr(2).String())
			}
			if from == testAddr(21).String() || to == testAddr(21).String() {
				other := from + to
				return strings.Contains(other, testAddr(0).String()) || strings.Contains(other, testAddr(1).String()) || strings.Contains(other, testAddr(2).String())
			}
			return side(from, to)
		}, 0)
		for i, n := range []*node{a, b} {
			if _, err := n.Join(t.Context(), []string{testAddr(3 * i).String()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		c.net.set(nil, 0)
		c.within(2*healLimit, "one of two namesakes has left", func() error {
			left := 0
			for _, n := range []*node{a, b} {
				n.watch.mu.Lock()
				if n.watch.taken != nil {
					left++
				}
				n.watch.mu.Unlock()
			}
			if left != 1 {
				return fmt.Errorf("%d have left", left)
			}
			return nil
		})
		survivor := a
		if a.watch.taken != nil {
			survivor = b
		}
		c.nodes["twin"] = survivor
		c.within(failLimit, "the other is known to all", c.agree)
		names := []string{}
		for _, m := range c.node(0).Members() {
			names = append(names, m.Name)
		}
		if !slices.Contains(names, "twin") {
			t.Errorf("members are %v", names)
		}
	})
}
