package e2e

import (
	"testing"

	"heddle/ctl/api"
)

// A host that fails is gone within 10 s, and what it announced with it, while
// the others go on; it comes back by itself, as all do that are killed at the
// same time. Halves that were apart are one again within 30 s of the wire's
// repair, and a MAC that both had meanwhile is behind one host.
//
//	station tap11 ── swd, host1 ─┐
//	station tap21 ── swd, host2 ─┤ wire
//	station tap31 ── swd, host3 ─┘
func TestMeshFailures(t *testing.T) {
	c := newMesh(t, 3)
	one, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	a, b, d := one.add(onTAP), two.add(onTAP), three.add(onTAP)
	for i, s := range []*station{a, b, d} {
		c.awaitAnnounced(joinBound, one.mac(s), c.nodes[i].name())
	}

	stream := one.startBulk(a.ns, d.ns, d.ip4)
	two.swd.Kill()
	one.awaitGone(failBound, "host2", api.StateDown)
	three.awaitGone(failBound, "host2", api.StateDown)
	c.NoError(two.swd.Start(t.Context()))
	c.awaitMesh(joinBound)
	one.reach(a, b.ip4)
	c.NoError(stream.finish())

	c.each(func(n *node) error { n.swd.Kill(); return n.swd.Start(t.Context()) })
	c.awaitMesh(failBound)
	one.reach(a, b.ip4)
	three.reach(d, b.ip6)

	c.unplug(1)
	one.awaitGone(failBound, "host2", api.StateDown)
	one.awaitGone(failBound, "host3", api.StateDown)
	two.awaitGone(failBound, "host1", api.StateDown)
	three.awaitGone(failBound, "host1", api.StateDown)
	c.NoError(one.openRaw(a).send(etherFrame("ff:ff:ff:ff:ff:ff", roamer, "here I am")))
	c.NoError(three.openRaw(d).send(etherFrame("ff:ff:ff:ff:ff:ff", roamer, "so am I")))
	late := two.add(onTAP)
	three.reach(d, late.ip4)
	c.plugIn(1)
	c.awaitMesh(healBound)
	for _, s := range []*station{b, d, late} {
		one.reach(a, s.ip4)
	}
	c.awaitMesh(joinBound)
}
