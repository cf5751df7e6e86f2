// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"heddle/dataplane"
)

// create makes a connection of the packet at hand, from a container of g to
// the outside of u.
func (t *turn) create(g *Gateway, u *Uplink) (uint32, dataplane.Drop) {
	p, n := &t.p, t.nat
	tb, m := &n.table, &g.masquerade
	shared := m.shared && u == m.uplink
	k := conn{in: p.src, out: p.dst, inPort: p.sport, outPort: p.dport, class: p.class, rule: m.rule}
	if k.class == icmp {
		k.outPort = 0
	}
	if m.uplink == nil {
		// Without a masquerade a container still reaches what is published.
		if k.rule = u.publication(p); k.rule == 0 {
			return 0, dataplane.Isolated
		}
	}
	if d := begin(&k, p, outward); d != dataplane.None {
		return 0, d
	}
	if m.open {
		k.flags |= isOpen
	}
	if k.host = tb.hosts.get(g.path, k.in); k.host == 0 {
		return 0, dataplane.ConnTableFull
	}
	h := &tb.hosts.list[k.host]
	head := uint32(0)
	id, d := t.room(k.host)
	if d == dataplane.HostLimit && !shared {
		id, d = t.roomOfEnded(&k, h)
	}
	if d == dataplane.None && !shared {
		k.flags |= isMapped
		if head = tb.liveMapping(tb.findInsideMapping(g.path, k.class, k.in, k.inPort, u.path), t.now); head != 0 {
			k.ext, k.extPort = tb.conns[head].ext, tb.conns[head].extPort
		}
		// The last connection of an expired mapping may have been the host's.
		if k.host = tb.hosts.get(g.path, k.in); k.host == 0 {
			return 0, dataplane.ConnTableFull
		}
		h = &tb.hosts.list[k.host]
	}
	if d == dataplane.None && head == 0 {
		d = t.takePort(&k, h, u, shared)
	}
	if d != dataplane.None {
		tb.hosts.drop(k.host)
		return 0, d
	}
	k.flags |= ownsPort
	k.delta = deltaOf(k.in, tb.exts[k.ext].addr)
	return t.settle(&k, id, head), dataplane.None
}

// room tells whether a host may have another connection: None or why not. The
// record is one that was made free for it, or 0: the table has others.
func (t *turn) room(host uint16) (record uint32, d dataplane.Drop) {
	tb := &t.nat.table
	h := &tb.hosts.list[host]
	d = tb.allowed(h, t.nat.config.HostConns)
	h.conns++ // Which keeps the host while one of its connections makes room.
	switch d {
	case dataplane.ConnTableFull:
		record = tb.spare(0, t.now)
	case dataplane.HostLimit:
		record = tb.spare(host, t.now)
	}
	h.conns--
	if record != 0 {
		d = dataplane.None
	}
	return record, d
}

// roomOfEnded is room for a host that may have no other connection: an ended
// mapping of its own makes room.
func (t *turn) roomOfEnded(k *conn, h *host) (record uint32, d dataplane.Drop) {
	ext := h.ext4
	if !k.in.is4() {
		ext = h.ext6
	}
	h.conns++ // As in room.
	record = t.nat.table.reclaim(ext, k.class, k.host)
	h.conns--
	if record == 0 {
		return 0, dataplane.HostLimit
	}
	return record, dataplane.None
}

// takePort finds the external endpoint for a new mapping. Where there is none
// to be had, an ended mapping makes room: the host's own if it has as many as
// it may, else the oldest.
func (t *turn) takePort(k *conn, h *host, u *Uplink, shared bool) dataplane.Drop {
	tb := &t.nat.table
	if k.ext = u.pick(tb, h, k.in); k.ext == 0 {
		return dataplane.NoRoute
	}
	limit := t.nat.config.HostPorts
	d := tb.mayTakePort(h, k.ext, k.class, limit, shared)
	if d != dataplane.None && !shared {
		own := uint16(0)
		if limit > 0 && int(h.ports) >= limit {
			own = k.host
		}
		h.conns++ // As in room.
		tb.reclaim(k.ext, k.class, own)
		h.conns--
		d = tb.mayTakePort(h, k.ext, k.class, limit, shared)
	}
	if d != dataplane.None {
		return d
	}
	ok := false
	if shared {
		k.extPort, ok = tb.share(k.ext, k.class, k.inPort, k.out, k.outPort)
	} else {
		k.extPort, ok = tb.exts[k.ext].allocate(k.class, k.inPort, tb.rand)
	}
	if !ok {
		return dataplane.NoFreePort
	}
	h.ports++
	return dataplane.None
}

// begin sets up what the protocol keeps.
func begin(k *conn, p *packet, dir int) dataplane.Drop {
	switch k.class {
	case tcp:
		return beginTCP(k, p, dir)
	case sctp:
		return beginSCTP(k, p, dir)
	}
	return dataplane.None
}

// settle puts a connection into the table: into the record id, or a free one,
// which allowed has found to be there.
func (t *turn) settle(k *conn, id, head uint32) uint32 {
	tb := &t.nat.table
	queued := id != 0
	if queued {
		k.next = tb.conns[id].next
	} else {
		id = tb.take()
	}
	tb.conns[id] = *k
	tb.add(id, head, t.now)
	if !queued {
		tb.schedule(id, t.now+tb.lives.life(&tb.conns[id]))
	}
	t.nat.rules[k.rule].hits++
	return id
}

// admit makes a connection of the packet at hand, which came to ext from
// outside, if a publication or an open mapping takes it.
func (t *turn) admit(u *Uplink, ext uint16) (uint32, dataplane.Drop) {
	p, n := &t.p, t.nat
	tb := &n.table
	e := &tb.exts[ext]
	k := conn{
		out: p.src, outPort: p.sport, extPort: p.dport, ext: ext, class: p.class, flags: fromOutside,
	}
	if k.class == icmp {
		k.outPort = 0
	}
	net, head := uint16(0), uint32(0)
	if e.isPublished(k.class, k.extPort) {
		k.rule = e.rules[k.class][k.extPort]
		r := &n.rules[k.rule]
		net, k.in, k.inPort = r.gateway.path, r.to, r.toPort+(k.extPort-r.first)
	} else {
		head = tb.liveMapping(tb.findExternalMapping(k.class, ext, k.extPort), t.now)
		if head == 0 || tb.conns[head].flags&isOpen == 0 {
			return 0, u.unasked(k.class, k.extPort)
		}
		c := &tb.conns[head]
		net, k.in, k.inPort, k.rule = tb.hosts.list[c.host].net, c.in, c.inPort, c.rule
		k.flags |= isMapped | isOpen | ownsPort
	}
	if d := begin(&k, p, inward); d != dataplane.None {
		return 0, d
	}
	hash := tb.hashInside(net, k.class, k.in, k.inPort, k.out, k.outPort)
	if tb.alive(tb.findInside(hash, net, k.class, k.in, k.inPort, k.out, k.outPort), t.now) != 0 {
		return 0, dataplane.NoConnection // They talk already, through another endpoint.
	}
	if k.host = tb.hosts.get(net, k.in); k.host == 0 {
		tb.refused++
		return 0, dataplane.ConnTableFull
	}
	id, d := uint32(0), dataplane.HostLimit
	if k.class == udp || k.class == icmp || tb.hosts.mayOpen(k.host, t.b.Now) {
		id, d = t.room(k.host)
	}
	if d != dataplane.None {
		tb.refused++
		tb.hosts.drop(k.host)
		return 0, d
	}
	if head != 0 {
		// The removals above may have made another the head, or ended it.
		if head = tb.findExternalMapping(k.class, ext, k.extPort); head == 0 {
			tb.hosts.drop(k.host)
			return 0, u.unasked(k.class, k.extPort)
		}
	}
	k.delta = deltaOf(k.in, e.addr)
	return t.settle(&k, id, head), dataplane.None
}
