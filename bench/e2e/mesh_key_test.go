package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"testing"

	"heddle/ctl/api"
)

// Hosts that gossip with a key change it one after the other, while a stream
// goes on and nobody misses anybody; one with the old key isn't let in
// afterwards.
//
//	station tap11 ── swd, host1 ─┐
//	station tap21 ── swd, host2 ─┤ wire
//	                 swd, host3 ─┘
func TestMeshKeyRotation(t *testing.T) {
	c := newCluster(t)
	old, next := c.keyFile("old", 1), c.keyFile("next", 2)
	c.node(1, "--mesh-listen", v4(1), "--mesh-key", old)
	for i := 2; i <= 3; i++ {
		c.node(i, "--mesh-key", old).ctl("mesh", "join", v4(1))
	}
	c.awaitMesh(joinBound)
	one, two := c.nodes[0], c.nodes[1]
	a, b := one.add(onTAP), two.add(onTAP)
	c.awaitAnnounced(joinBound, one.mac(a), "host1")
	c.awaitAnnounced(joinBound, one.mac(b), "host2")
	stream := one.startBulk(a.ns, b.ns, b.ip4)

	oldID, nextID := one.keyIDs()[0], ""
	for _, n := range c.nodes {
		n.ctl("mesh", "key", "add", next)
		nextID = n.keyIDs()[1]
	}
	for _, step := range [][]string{{"activate", nextID}, {"retire", oldID}} {
		for _, n := range c.nodes {
			n.ctl(append([]string{"mesh", "key"}, step...)...)
			c.awaitMesh(joinBound)
		}
		// An address that is announced now gets to all.
		s := one.add(onTAP)
		c.awaitAnnounced(moveBound, one.mac(s), "host1")
	}
	for _, n := range c.nodes {
		if ids := n.keyIDs(); len(ids) != 1 || ids[0] != nextID {
			t.Errorf("%s has keys %v, want %s", n.name(), ids, nextID)
		}
		var events []api.Event
		c.NoError(n.ask(&events, "events"))
		for _, e := range events {
			if e.Kind == "member-down" {
				t.Errorf("%s: %+v", n.name(), e)
			}
		}
	}
	c.NoError(stream.finish())

	late := c.stranger(4, "--mesh-key", old)
	late.refused("key", "mesh", "join", v4(1))
	c.NoError(late.swd.Stop())
	c.awaitMesh(joinBound)
}

// keyIDs lists the keys that a node takes.
func (n *node) keyIDs() []string {
	n.Helper()
	var keys []api.Key
	n.NoError(n.ask(&keys, "mesh", "key", "ls"))
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return ids
}

// keyFile writes a key, 32 times the same byte, into a file.
func (c *cluster) keyFile(name string, fill byte) string {
	c.Helper()
	file, key := filepath.Join(c.Dir(), name+".key"), make([]byte, 32)
	for i := range key {
		key[i] = fill
	}
	(&world{T: c.T}).writeFile(file, fmt.Sprintln(base64.StdEncoding.EncodeToString(key)))
	return file
}
