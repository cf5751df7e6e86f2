package attach

import (
	"errors"
	"maps"
	"os"
	"testing"

	"github.com/safchain/ethtool"
)

// features returns which are on.
func features(t *testing.T, ns *netns, name string) (on map[string]bool) {
	t.Helper()
	ns.do(t, func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		on, err = e.Features(name)
		return err
	})
	return on
}

func (n *netns) setFeature(t *testing.T, name, feature string, on bool) {
	t.Helper()
	n.do(t, func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		return e.Change(name, map[string]bool{feature: on})
	})
	if features(t, n, name)[feature] != on {
		t.Fatalf("%s: %s can't be set %v", name, feature, on)
	}
}

// An interface of somebody else's is limited in what it receives, for as long
// as a port has it.
func TestLimitOffloads(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "a", "b")
	limit := func() interface{ Close() error } {
		t.Helper()
		c, err := ns.LimitOffloads("a")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	as := func(what, name string, want map[string]bool) {
		t.Helper()
		for f, on := range features(t, ns, name) {
			if on != want[f] {
				t.Errorf("%s: %s: %s is %v", what, name, f, on)
			}
		}
	}
	const grolist = "rx-gro-list"

	before, peer := features(t, ns, "a"), features(t, ns, "b")
	c := limit() // There is nothing to switch off.
	as("nothing to do", "a", before)
	closing(t, c)
	as("nothing done", "a", before)

	ns.setFeature(t, "a", grolist, true)
	before = features(t, ns, "a")
	c = limit()
	limited := maps.Clone(before)
	limited[grolist] = false
	as("limited", "a", limited)
	as("limited", "b", peer)
	ns.ip(t, "link set dev a name c")
	for range 2 {
		closing(t, c)
	}
	as("restored", "c", before)
	ns.ip(t, "link set dev c name a")

	c = limit()
	ns.ip(t, "link del dev a")
	closing(t, c)

	if _, err := ns.LimitOffloads("a"); !errors.Is(err, ErrNoLink) {
		t.Errorf("of none: %v", err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.LimitOffloads("a"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("in a closed namespace: %v", err)
	}
}

// The Closer needs nothing of the Namespace that it came from.
func TestLimitOffloadsOutlivesTheHandle(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "a", "b")
	ns.setFeature(t, "a", "rx-gro-list", true)
	again, err := ByPath(ns.path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := again.LimitOffloads("a")
	if err != nil {
		t.Fatal(err)
	}
	closing(t, again)
	closing(t, c)
	if !features(t, ns, "a")["rx-gro-list"] {
		t.Error("not restored")
	}
}

func TestOlder(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-13-amd64": true, "5.15.0": true, "4.20": true, "6.2.0-rc1": false, "6.18.44": false, "10.0": false, "": false, "odd": false,
	} {
		if older(release, 6, 2) != want {
			t.Errorf("%q: %v", release, !want)
		}
	}
}
