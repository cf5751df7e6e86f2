package mesh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

var otherKey = []byte("ffffffffffffffffffffffffffffffff")

// undisturbed runs a mesh of three, lets something happen to it, and fails if
// the three see anything of it.
func undisturbed(t *testing.T, happen func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		for i := range 3 {
			c.announce(i, 5)
		}
		c.within(5*time.Second, "endpoints everywhere", c.agree)
		before := c.node(0).watch.seen()
		happen(c)
		time.Sleep(failLimit)
		if err := c.agree(); err != nil {
			t.Errorf("disturbed: %v", err)
		}
		if after := c.node(0).watch.seen(); after != before {
			t.Errorf("%d events", after-before)
		}
	})
}

func (w *watcher) seen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events
}

// stranger starts a host that doesn't belong, and has it try to join.
func (c *cluster) stranger(edit func(*Config)) (*Mesh, error) {
	cfg := Config{Name: "stranger", VTEP: testVTEP(99), Keys: [][]byte{testKey}, Transport: c.net.listen(testAddr(99))}
	edit(&cfg)
	m, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes["stranger"] = &node{m, newWatcher(c.t)} // To be closed.
	_, err = m.Join(c.t.Context(), []string{testAddr(0).String()})
	time.Sleep(5 * time.Second)
	delete(c.nodes, "stranger")
	_ = m.Close()
	return m, err
}

func TestWrongKey(t *testing.T) {
	for name, keys := range map[string][][]byte{"another": {otherKey}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			undisturbed(t, func(c *cluster) {
				m, err := c.stranger(func(cfg *Config) { cfg.Keys = keys })
				if err == nil || !strings.Contains(err.Error(), "--mesh-key") {
					t.Errorf("join: %v", err)
				}
				if c.node(0).Stats().Refused[RefusedKey] == 0 {
					t.Error("not counted")
				}
				if len(m.Members()) != 1 {
					t.Errorf("the stranger sees %v", m.Members())
				}
			})
		})
	}
}

func TestMeshWithoutKeyRefusesOneWithKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.start(0, func(cfg *Config) { cfg.Keys = nil })
		if _, err := c.start(1).Join(t.Context(), []string{testAddr(0).String()}); err == nil || !strings.Contains(err.Error(), "no key") {
			t.Errorf("join: %v", err)
		}
		if _, err := c.node(0).AddKey(otherKey); err == nil {
			t.Error("a mesh without keys takes one")
		}
		if c.node(0).Keys() != nil {
			t.Error("it has keys")
		}
	})
}

func TestGarbage(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	undisturbed(t, func(c *cluster) {
		h := c.net.listen(testAddr(98))
		defer func() { _ = h.Shutdown() }()
		const packets, streams = 500, 60
		for i := range packets {
			b := make([]byte, rng.IntN(1400))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			if i%2 == 0 && len(b) > 0 {
				b[0] = sealVersion
			}
			_, _ = h.WriteTo(b, testAddr(0).String())
			time.Sleep(time.Millisecond)
		}
		for i := range streams {
			conn, err := h.DialTimeout(testAddr(0).String(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			b := []byte{streamType, 0, 0, 1, 0}
			if i%3 == 1 {
				binary.BigEndian.PutUint32(b[1:], maxStream+1)
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(b)
			if i%3 == 0 {
				_, _ = conn.Write(make([]byte, 256))
			}
			_ = conn.Close()
		}
		time.Sleep(time.Second)
		s := c.node(0).Stats()
		if s.Refused[RefusedKey] != packets+streams/3 || s.Refused[RefusedSize] != streams/3 {
			t.Errorf("refused %v", s.Refused)
		}
	})
}

// TestGarbageWithoutKey: without a key memberlist parses what anybody sends. It
// must survive that.
func TestGarbageWithoutKey(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for i := range 2 {
			c.start(i, func(cfg *Config) { cfg.Keys, cfg.Log = nil, nil })
		}
		if _, err := c.node(1).Join(t.Context(), []string{testAddr(0).String()}); err != nil {
			t.Fatal(err)
		}
		h := c.net.listen(testAddr(98))
		defer func() { _ = h.Shutdown() }()
		for i := range 20000 {
			b := make([]byte, 1+rng.IntN(200))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			b[0] = byte(i % 16)
			if i%3 == 0 && len(b) > 3 {
				b[0], b[1], b[2], b[3] = 7, 1, 0, byte(len(b)-4) // A compound of one.
			}
			_, _ = h.WriteTo(b, testAddr(0).String())
			if i%100 == 0 {
				time.Sleep(10 * time.Millisecond)
				conn, err := h.DialTimeout(testAddr(0).String(), time.Second)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = conn.Write(b)
				_ = conn.Close()
			}
		}
		c.within(failLimit, "the two are undisturbed", c.agree)
	})
}

// TestStalledStreams: who opens streams and says nothing keeps nobody else
// out for longer than streamTimeout, and no more than maxStreams are held.
func TestStalledStreams(t *testing.T) {
	undisturbed(t, func(c *cluster) {
		h := c.net.listen(testAddr(98))
		defer func() { _ = h.Shutdown() }()
		for range maxStreams + 20 {
			conn, err := h.DialTimeout(testAddr(0).String(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			time.Sleep(time.Millisecond)
		}
		if n := c.node(0).Stats().Refused[RefusedStreams]; n < 20 {
			t.Errorf("refused %d", n)
		}
		time.Sleep(streamTimeout)
		c.within(time.Second, "no stream is held", func() error { // One of the mesh's own may be, for milliseconds.
			if n := len(c.node(0).guard.slots); n != 0 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
	})
}

// TestOtherVersion: a host of another version of the protocol is told so when
// it joins, and what it gossips is refused.
func TestOtherVersion(t *testing.T) {
	undisturbed(t, func(c *cluster) {
		conf := tune()
		conf.Name = origin{"newer", 7}.node()
		conf.DelegateProtocolMin, conf.DelegateProtocolMax, conf.DelegateProtocolVersion = 2, 2, 2
		conf.SecretKey = testKey
		h := c.net.listen(testAddr(97))
		conf.Transport = h
		conf.LogOutput = new(bytes.Buffer)
		list, err := memberlist.Create(conf)
		if err != nil {
			t.Fatal(err)
		}
		_, err = list.Join([]string{testAddr(0).String()})
		if err == nil || !strings.Contains(explain(err).Error(), "another version") {
			t.Errorf("join: %v", err)
		}
		_ = list.SendBestEffort(&memberlist.Node{Addr: testAddr(0).Addr().AsSlice(), Port: DefaultPort}, []byte{2, msgDelta, 1})
		time.Sleep(time.Second)
		_ = list.Shutdown()
		if s := c.node(0).Stats(); s.Refused[RefusedVersion] == 0 {
			t.Errorf("refused %v", s.Refused)
		}
	})
}

// TestMembersOutsideTheRules: authentic nodes that break the rules are kept
// out.
func TestMembersOutsideTheRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		m := c.start(0).Mesh
		good := meta{vtep: testVTEP(1)}.encode()
		for name, n := range map[string]*memberlist.Node{
			"no instance":   {Name: "web", Meta: good},
			"a bad name":    {Name: "We b~00000001", Meta: good},
			"no metadata":   {Name: "web~00000001"},
			"later version": {Name: "web~00000001", Meta: append([]byte{2}, good[1:]...)},
			"no VTEP":       {Name: "web~00000001", Meta: []byte{1, 4, 0, 0, 0, 0, 0, 1, 0}},
		} {
			n.DMin, n.DMax, n.DCur = protocol, protocol, protocol
			if m.admit(n) == nil {
				t.Errorf("%s is admitted", name)
			}
		}
		for i := range MaxMembers + 10 {
			n := &memberlist.Node{Name: origin{fmt.Sprintf("m%d", i), 1}.node(), Addr: net.IPv4(198, 18, 0, 1), Port: 1, Meta: good, DMin: protocol, DMax: protocol}
			if m.admit(n) == nil {
				m.up(n)
			}
		}
		if n := len(m.Members()); n != MaxMembers {
			t.Errorf("%d members", n)
		}
		if n := m.Stats().Refused[RefusedMember]; n != 2+11 {
			t.Errorf("refused %d", n)
		}
		// One that has failed makes room.
		time.Sleep(time.Second)
		m.down(&memberlist.Node{Name: origin{"m5", 1}.node()})
		time.Sleep(time.Second)
		if err := m.admit(&memberlist.Node{Name: origin{"late", 1}.node(), Meta: good, DMin: protocol, DMax: protocol}); err != nil {
			t.Errorf("a place is free: %v", err)
		}
	})
}

func TestKeysChangeUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		const n = 6
		c.grow(n)
		step := 0
		every := func(what string, do func(m *node) error) {
			t.Helper()
			for i := range n {
				if err := do(c.node(i)); err != nil {
					t.Fatalf("%s at host %d: %v", what, i, err)
				}
				step++
				if err := c.node(step % n).Announce(testEndpoint(step%n, step)); err != nil {
					t.Fatal(err)
				}
				c.within(5*time.Second, what+": changes get round", c.agree)
			}
		}
		id, old := KeyID(otherKey), KeyID(testKey)
		every("add", func(m *node) error {
			got, err := m.AddKey(otherKey)
			if got != id {
				t.Errorf("key %s is added as %s", id, got)
			}
			return err
		})
		if err := c.node(0).RemoveKey(old); err == nil {
			t.Error("the active key is retired")
		}
		if _, err := c.node(0).AddKey([]byte("0123456789abcdef")); err == nil {
			t.Error("a third key is live")
		}
		if err := c.node(0).UseKey("00000000"); err == nil {
			t.Error("a key that isn't there is activated")
		}
		every("activate", func(m *node) error { return m.UseKey(id) })
		every("retire", func(m *node) error { return m.RemoveKey(old) })
		if got := c.node(0).Keys(); !slices.Equal(got, []Key{{id, true}}) {
			t.Errorf("keys are %v", got)
		}
		for i := range n {
			if r := c.node(i).Stats().Refused; r != [RefusalCount]uint64{} {
				t.Errorf("host %d refused %v", i, r)
			}
		}
		if _, err := c.stranger(func(*Config) {}); err == nil {
			t.Error("the retired key lets in")
		}
	})
}

func TestFlappingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(2)
		e := testEndpoint(0, 0)
		var err error
		turns := 0
		for ; err == nil && turns < 50; turns++ {
			err = c.node(turns % 2).Announce(e)
			c.within(moveLimit, "it is followed", c.agree)
		}
		if !errors.Is(err, ErrFlapping) || turns != 2*flapMoves+2 {
			t.Errorf("after %d turns: %v", turns, err)
		}
		time.Sleep(flapWindow)
		if err := c.node((turns - 1) % 2).Announce(e); err != nil {
			t.Errorf("after the window: %v", err)
		}
	})
}
