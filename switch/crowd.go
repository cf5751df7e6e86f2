package vswitch

import "heddle/dataplane"

// crowd is a binary max-heap of ports by how many dynamic entries they hold.
// An entry that comes or goes changes a count by one, which seldom moves a
// port; at worst it costs log2(ports) steps. fdb.mu guards it.
type crowd struct {
	ids   []dataplane.PortID
	which int // Index into portList.rank: 0 in fdb, 1 in a Network.
}

func (c *crowd) add(t *fdb, id dataplane.PortID) {
	c.ids = append(c.ids, id)
	c.place(t, len(c.ids)-1, id)
	c.fix(t, id)
}

func (c *crowd) drop(t *fdb, id dataplane.PortID) {
	i, last := int(t.ports[id].rank[c.which]), len(c.ids)-1
	moved := c.ids[last]
	c.ids = c.ids[:last]
	if moved != id {
		c.place(t, i, moved)
		c.fix(t, moved)
	}
}

// fix puts a port where it belongs after its count has changed.
func (c *crowd) fix(t *fdb, id dataplane.PortID) {
	n := t.ports[id].dynamic.n
	i := int(t.ports[id].rank[c.which])
	for i > 0 {
		up := (i - 1) / 2
		if t.ports[c.ids[up]].dynamic.n >= n {
			break
		}
		c.place(t, i, c.ids[up])
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(c.ids) {
			break
		}
		if down+1 < len(c.ids) && t.ports[c.ids[down+1]].dynamic.n > t.ports[c.ids[down]].dynamic.n {
			down++
		}
		if t.ports[c.ids[down]].dynamic.n <= n {
			break
		}
		c.place(t, i, c.ids[down])
		i = down
	}
	c.place(t, i, id)
}

func (c *crowd) place(t *fdb, i int, id dataplane.PortID) {
	c.ids[i] = id
	t.ports[id].rank[c.which] = uint16(i)
}
