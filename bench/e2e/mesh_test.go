package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
)

// Three hosts join by one command each; their stations talk, by frames that go
// to the right host alone and without a request on the wire, as all addresses
// are announced. MACs that move are followed.
//
//	station tap11 ─── swd, host1 ─┐
//	station veth21 ── swd, host2 ─┤ wire
//	station tap31 ─── swd, host3 ─┘
func TestMesh(t *testing.T) {
	c := newMesh(t, 3)
	one, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	a, b, d := one.add(onTAP), two.add(onVeth), three.add(onTAP)
	for i, s := range []*station{a, b, d} {
		c.awaitAnnounced(joinBound, one.mac(s), c.nodes[i].name())
	}
	c.nft(one.host, fmt.Sprintf(`table inet seen {
		counter requests { }
		counter solicitations { }
		counter astray { }
		chain out {
			type filter hook output priority 0
			udp dport 4789 @th,224,16 0x0806 counter name requests
			udp dport 4789 @th,288,8 58 @th,560,8 135 @th,720,32 { 0x%x, 0x%x } counter name solicitations
			ip daddr %s udp dport 4789 @th,128,48 0x%s counter name astray
		}
	}`, 0x21, 0x31, three.v4(), strings.ReplaceAll(one.mac(b), ":", "")))
	one.across(mtu-50, a, b)
	for _, way := range [][2]*station{{b, d}, {d, a}} {
		one.tcp(way[0], way[1], way[1].ip4, some)
		one.tcp(way[0], way[1], way[1].ip6, some)
	}
	for name, what := range map[string]string{
		"requests": "ARP requests or answers", "solicitations": "neighbour solicitations", "astray": "frames for host2, to host3,",
	} {
		if n := c.counted(one.host, name); n > 0 {
			t.Errorf("%d %s left host1", n, what)
		}
	}
	c.awaitMesh(joinBound)
	var members map[string]api.Member
	c.Eventually(patience, "host1 shows all of the members", func() (err error) {
		if members, err = one.members(); err != nil {
			return err
		}
		for _, n := range c.nodes[1:] {
			m := members[n.name()]
			if m.VTEP != n.v4()+":4789" || m.Address != n.v4()+":7946" || m.MTU != mtu || m.RTTSeconds <= 0 || m.RxFrames == 0 || m.TxFrames == 0 {
				return fmt.Errorf("it shows %+v", m)
			}
		}
		return nil
	})
	if e := members["host2"].Endpoints; len(e) != 1 || e[0].MAC != one.mac(b) || e[0].VNI != vni || e[0].Network != network ||
		!slices.Contains(e[0].IPs, b.ip4) || !slices.Contains(e[0].IPs, b.ip6) {
		t.Errorf("host2 announces %+v", e)
	}
	t.Run("moves", func(t *testing.T) { c.in(t).moves(a, b, d) })
	t.Run("refusals", func(t *testing.T) { c.in(t).joinRefusals() })
	three.ctl("mesh", "leave")
	one.awaitGone(joinBound, "host3", api.StateLeft)
	one.reach(a, b.ip4)
}

// moves moves MACs between host2 and host3: one that stations there use in turn,
// and a container with its port.
func (c *cluster) moves(a, b, d *station) {
	one, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	atB, atD := two.openRaw(b), three.openRaw(d)
	for _, at := range []struct {
		raw   *raw
		owner *node
	}{{atB, two}, {atD, three}, {atB, two}} {
		c.NoError(at.raw.send(etherFrame("ff:ff:ff:ff:ff:ff", roamer, "here I am")))
		c.awaitAnnounced(moveBound, roamer, at.owner.name())
	}
	mac := "02:00:00:00:0a:01"
	number := two.next
	s := two.addOn(network, onTAP, "--mac", mac)
	c.awaitAnnounced(moveBound, mac, two.name())
	one.reach(a, s.ip4)
	two.ctl("port", "rm", s.name)
	three.next = number
	moved := three.moveIn(s, mac)
	c.awaitAnnounced(moveBound, mac, three.name())
	one.reach(a, moved.ip4)
	one.tcp(a, moved, moved.ip6, some)
}

// moveIn puts a container that was elsewhere on this host.
func (n *node) moveIn(s *station, mac string) *station {
	n.Helper()
	n.ctl("port", "add", s.name, "--network", network, "--netns", s.ns.Path(), "--ip", s.ip4+"/24", "--ip", s.ip6+"/64", "--mac", mac)
	return s
}

// joinRefusals tries what must be refused, and disturbs nobody.
func (c *cluster) joinRefusals() {
	one := c.nodes[0]
	one.refused("nowhere.invalid", "mesh", "join", "nowhere.invalid")
	one.refused("nowhere.invalid", "peer", "add", "x", "--address", "nowhere.invalid")
	one.refused("own address", "mesh", "join", one.v4())
	one.refused("192.0.2.99", "mesh", "join", "192.0.2.99")
	twin := c.stranger(4, "--node", "host2")
	twin.refused("host2", "mesh", "join", v4(1))
	c.NoError(twin.swd.Stop())
	locked := c.stranger(5, "--mesh-key", c.keyFile("other", 9))
	locked.refused("key", "mesh", "join", v4(1))
	c.NoError(locked.swd.Stop())
	c.awaitMesh(joinBound)
	for _, m := range c.nodes {
		members, err := m.members()
		c.NoError(err)
		if len(members) != len(c.nodes) {
			c.Errorf("%s has members %v", m.name(), members)
		}
	}
}
