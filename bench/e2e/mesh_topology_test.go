package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"heddle/ctl/api"
)

// Limits of the mesh, as decided for 50 hosts, and three times as much: three
// daemons, swctl for each look, and what else runs share the machine's cores.
const (
	busy      = 3
	joinBound = busy * 5 * time.Second
	failBound = busy * 10 * time.Second
	moveBound = busy * 2 * time.Second
	healBound = busy * 30 * time.Second
)

// newMesh is a cluster of so many nodes in one mesh. The first was there before
// and listens; the others joined by one command each.
func newMesh(t *testing.T, count int, flags ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.node(1, append([]string{"--mesh-listen", v4(1)}, flags...)...)
	for i := 2; i <= count; i++ {
		c.node(i, flags...).ctl("mesh", "join", v4(1))
	}
	c.awaitMesh(joinBound)
	return c
}

// members asks a node for the members that it knows, with what they announce.
func (n *node) members() (map[string]api.Member, error) {
	var all []api.Member
	if err := n.ask(&all, "mesh", "members", "--endpoints"); err != nil {
		return nil, err
	}
	byName := make(map[string]api.Member, len(all))
	for _, m := range all {
		if _, twice := byName[m.Name]; twice {
			return nil, fmt.Errorf("%s lists %s twice", n.name(), m.Name)
		}
		byName[m.Name] = m
	}
	return byName, nil
}

// awaitMesh waits until each node has the others as members that are up and
// share the network, and all have the same endpoints,
// each behind one host, as their switches do.
func (c *cluster) awaitMesh(bound time.Duration) {
	c.Helper()
	began := time.Now()
	c.Eventually(bound, "one mesh", func() error { return agree(c.nodes) })
	c.Logf("one mesh after %v", time.Since(began).Round(10*time.Millisecond))
}

// agree says what keeps nodes from being one mesh.
func agree(nodes []*node) error {
	var first map[string]string
	for _, n := range nodes {
		members, err := n.members()
		if err != nil {
			return err
		}
		for _, o := range nodes {
			m := members[o.name()]
			if m.State != api.StateUp || !slices.Contains(m.Networks, network) || m.Self != (n == o) {
				return fmt.Errorf("%s has %s as %+v", n.name(), o.name(), m)
			}
		}
		owners := map[string]string{}
		for _, m := range members {
			for _, e := range m.Endpoints {
				if was, twice := owners[e.MAC]; twice {
					return fmt.Errorf("%s has %s behind %s and %s", n.name(), e.MAC, was, m.Name)
				}
				owners[e.MAC] = m.Name
			}
		}
		if first == nil {
			first = owners
		}
		if !maps.Equal(first, owners) {
			return fmt.Errorf("%s has %v, %s has %v", nodes[0].name(), first, n.name(), owners)
		}
		if err := n.follows(owners); err != nil {
			return err
		}
	}
	return nil
}

// follows says where a node's switch differs from what is announced.
func (n *node) follows(owners map[string]string) error {
	entries, err := n.swd.FDB(n.Context(), network)
	if err != nil {
		return err
	}
	ports := map[string]string{}
	for _, e := range entries {
		ports[e.MAC] = e.Port
	}
	for mac, owner := range owners {
		if owner != n.name() && ports[mac] != owner {
			return fmt.Errorf("the switch of %s has %s behind %q, it is announced by %s", n.name(), mac, ports[mac], owner)
		}
	}
	return nil
}

// awaitAnnounced waits until all nodes have a MAC behind a host.
func (c *cluster) awaitAnnounced(bound time.Duration, mac, owner string) {
	c.Helper()
	c.Eventually(bound, mac+" behind "+owner, func() error {
		for _, n := range c.nodes {
			members, err := n.members()
			if err != nil {
				return err
			}
			for _, m := range members {
				if m.Name != owner && announces(m, mac) {
					return fmt.Errorf("%s still has it behind %s", n.name(), m.Name)
				}
			}
			if !announces(members[owner], mac) {
				return fmt.Errorf("%s doesn't have it", n.name())
			}
			if n.name() != owner {
				if err := n.follows(map[string]string{mac: owner}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func announces(m api.Member, mac string) bool {
	return slices.ContainsFunc(m.Endpoints, func(e api.Endpoint) bool { return e.MAC == mac })
}

// awaitGone waits until a node has a member in that state, and nothing behind it.
func (n *node) awaitGone(bound time.Duration, member, state string) {
	n.Helper()
	began := time.Now()
	n.Eventually(bound, member+" "+state+" on "+n.name(), func() error {
		members, err := n.members()
		if err != nil {
			return err
		}
		if m := members[member]; m.State != state || len(m.Endpoints) > 0 {
			return fmt.Errorf("it is %+v", m)
		}
		for _, e := range n.fdb(network) {
			if e.Port == member {
				return fmt.Errorf("%+v is still known", e)
			}
		}
		return nil
	})
	n.Logf("%s: %s is %s after %v", n.name(), member, state, time.Since(began).Round(10*time.Millisecond))
}

// refused runs swctl, which must fail with exit code 1 and say so on stderr.
func (n *node) refused(says string, args ...string) {
	n.Helper()
	out, err := n.swd.Swctl(n.Context(), args...)
	n.NoError(err)
	if out.Code != 1 || !strings.HasPrefix(out.Stderr, "error: ") || !strings.Contains(out.Stderr, says) {
		n.Errorf("swctl %v: exit code %d, want 1 and %q: %s", args, out.Code, says, out.Stderr)
	}
}

// stranger starts a swd on host number i, which isn't one of the cluster's.
func (c *cluster) stranger(i int, flags ...string) *node {
	c.Helper()
	n := &node{number: i, world: &world{T: c.T, host: c.plug(i), next: 10*i + 1}}
	n.swd = c.StartSwd(n.host, flags...)
	return n
}

// unplug takes host number i off the wire, whose interface notices nothing, and
// plugIn puts it back.
func (c *cluster) unplug(i int) {
	c.Helper()
	c.Run(c.wire, "ip", "link", "set", wireEnd(i), "nomaster")
}

func (c *cluster) plugIn(i int) {
	c.Helper()
	c.Run(c.wire, "ip", "link", "set", wireEnd(i), "master", "br0")
}

// each does something on all nodes at the same time.
func (c *cluster) each(do func(n *node) error) {
	c.Helper()
	errs := make(chan error, len(c.nodes))
	for _, n := range c.nodes {
		go func() { errs <- do(n) }()
	}
	var all []error
	for range c.nodes {
		all = append(all, <-errs)
	}
	c.NoError(errors.Join(all...))
}
