package nat

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane/wire"
)

// model is the connection tracker as slow and plain as can be: a list of
// connections, looked through for every packet. Its clock stands on whole
// seconds, so that what is a third of a second late is never asked.
type model struct {
	conns []*modelConn
	open  bool
}

type modelConn struct {
	proto     uint8
	in, out   netip.AddrPort
	ext       netip.AddrPort
	last      time.Duration
	replied   bool
	phase     int // TCP: 0 SYN, 1 SYN-ACK, 2 established, 3 reset.
	published bool
	outside   bool // Who began.
}

func (c *modelConn) life() time.Duration {
	switch c.proto {
	case wire.ProtoICMP:
		return 60 * time.Second
	case wire.ProtoTCP:
		return []time.Duration{240, 240, 7440, 10}[c.phase] * time.Second
	}
	if c.replied {
		return 300 * time.Second
	}
	return 30 * time.Second
}

func (m *model) age(now time.Duration) {
	var alive []*modelConn
	for _, c := range m.conns {
		if now-c.last <= c.life() {
			alive = append(alive, c)
		}
	}
	m.conns = alive
}

func (m *model) find(f func(*modelConn) bool) *modelConn {
	for _, c := range m.conns {
		if f(c) {
			return c
		}
	}
	return nil
}

// TestAgainstModel sends random packets of few endpoints both ways, with a
// driven clock, flushes now and then, and holds every answer and the table's
// size against the model.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, open %v", seed, open), func(t *testing.T) { againstModel(t, seed, open) })
		}
	}
}

func againstModel(t *testing.T, seed uint64, open bool) {
	r := rand.New(rand.NewPCG(seed, 3))
	l := newLab(t, options{
		masq:   func(c *MasqueradeConfig) { c.OpenFiltering = open },
		uplink: func(c *UplinkConfig) { c.Ports = PortRange{5000, 5040} },
		config: Config{HostPorts: 1000, HostConns: 10000},
	})
	pub := l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(5007), hostB, 5001)
	m := &model{open: open}
	hosts := []netip.Addr{hostA, hostB}
	outs := []netip.AddrPort{
		netip.AddrPortFrom(far4, 80), netip.AddrPortFrom(far4, 81), netip.AddrPortFrom(far4b, 80),
	}
	for step := range 6000 {
		if r.IntN(4) == 0 {
			l.now += time.Duration(r.IntN(12)) * time.Second
		}
		if r.IntN(400) == 0 {
			l.now += time.Duration(r.IntN(8000)) * time.Second
		}
		m.age(l.now)
		proto := []uint8{wire.ProtoUDP, wire.ProtoTCP, wire.ProtoICMP}[r.IntN(3)]
		o := outs[r.IntN(len(outs))]
		if proto == wire.ProtoICMP {
			o = netip.AddrPortFrom(o.Addr(), 0)
		}
		switch k := r.IntN(20); {
		case k < 10:
			m.outbound(l, proto, netip.AddrPortFrom(hosts[r.IntN(2)], uint16(5000+r.IntN(6))), o, r)
		case k < 19:
			ext := netip.AddrPortFrom(ext4, uint16(5000+r.IntN(10)))
			if len(m.conns) > 0 && r.IntN(3) > 0 {
				c := m.conns[r.IntN(len(m.conns))]
				proto, o, ext = c.proto, c.out, c.ext
			}
			m.inbound(l, proto, o, ext, r)
		default:
			h := hosts[r.IntN(2)]
			l.n.Flush(Filter{Src: h})
			m.conns = filter(m.conns, func(c *modelConn) bool { return c.outside || c.in.Addr() != h })
			if r.IntN(3) == 0 {
				l.must(l.n.RemoveRule(pub))
				m.conns = filter(m.conns, func(c *modelConn) bool { return !c.published })
				pub = l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(5007), hostB, 5001)
			}
		}
		if got := l.n.Count(Filter{}, int64(l.now)); got != len(m.conns) {
			t.Fatalf("step %d: %d connections, the model has %d", step, got, len(m.conns))
		}
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
	checkTable(t, l.n)
	l.now += 3 * time.Hour
	for l.n.Expire(int64(l.now), 1000) > 0 {
	}
	s := l.n.Stats()
	if s.Conns != 0 || s.Hosts != 0 || s.Created != s.Removed {
		t.Errorf("after all is over: %+v", s)
	}
	checkTable(t, l.n)
}

func filter(cs []*modelConn, keep func(*modelConn) bool) (kept []*modelConn) {
	for _, c := range cs {
		if keep(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// packet makes the packet that a connection's phase calls for next.
func (c *modelConn) packet(src, dst netip.AddrPort, outward bool) pkt {
	p := pkt{src: src.Addr(), dst: dst.Addr(), sport: src.Port(), dport: dst.Port(), proto: c.proto, win: 65000}
	switch c.proto {
	case wire.ProtoICMP:
		p.icmpType = wire.ICMPEcho
		if !outward {
			p.icmpType, p.sport = wire.ICMPEchoReply, dst.Port()
		}
	case wire.ProtoTCP:
		p.flags, p.seq, p.ack = ackF, 1001, 2001
		if !outward {
			p.seq, p.ack = 2001, 1001
		}
		switch {
		case c.phase == 0 && outward:
			p.flags, p.seq, p.ack = syn, 1000, 0
		case c.phase <= 1 && !outward:
			p.flags, p.seq = synAck, 2000
		}
	}
	return p
}

func (m *model) outbound(l *lab, proto uint8, in, out netip.AddrPort, r *rand.Rand) {
	l.t.Helper()
	c := m.find(func(c *modelConn) bool { return c.proto == proto && c.in == in && c.out == out })
	fresh := c == nil || c.phase == 3
	if fresh && c != nil && proto == wire.ProtoTCP {
		c.phase, c.last = 0, l.now // A SYN begins it anew.
	}
	if c == nil {
		c = &modelConn{proto: proto, in: in, out: out}
		mapped := m.find(func(o *modelConn) bool { return o.proto == proto && o.in == in && !o.published })
		w, _ := l.out(c.packet(in, out, true))
		if len(w) == 0 {
			l.t.Errorf("a new connection was refused: %v > %v", in, out)
			return
		}
		c.ext = netip.AddrPortFrom(w[0].src, w[0].sport)
		if mapped != nil && mapped.ext != c.ext {
			l.t.Errorf("%v has %v and is given %v too", in, mapped.ext, c.ext)
		}
		if o := m.find(func(o *modelConn) bool { return o.proto == proto && o.ext == c.ext && o.in != in }); o != nil {
			l.t.Errorf("%v and %v have %v", in, o.in, c.ext)
		}
		if c.ext.Port() < 5000 || c.ext.Port() > 5040 || proto == wire.ProtoUDP && c.ext.Port() == 5007 {
			l.t.Errorf("port %v is not one to be given", c.ext)
		}
		c.last = l.now
		m.conns = append(m.conns, c)
		return
	}
	p := c.packet(in, out, true)
	reset := proto == wire.ProtoTCP && c.phase == 2 && r.IntN(10) == 0
	if reset {
		p.flags = rst
	}
	w, _ := l.out(p)
	if len(w) != 1 || w[0].sport != c.ext.Port() || w[0].src != c.ext.Addr() {
		l.t.Errorf("%v > %v: got %v, want it from %v", in, out, w, c.ext)
		return
	}
	c.last = l.now
	switch {
	case reset:
		c.phase = 3
	case proto == wire.ProtoTCP && c.phase == 1:
		c.phase = 2
	}
	if c.outside {
		c.replied = true
	}
}

func (m *model) inbound(l *lab, proto uint8, out, ext netip.AddrPort, r *rand.Rand) {
	l.t.Helper()
	c := m.find(func(c *modelConn) bool { return c.proto == proto && c.ext == ext && c.out == out })
	if c != nil {
		if c.proto == wire.ProtoTCP && c.phase == 3 {
			return
		}
		_, in := l.back(c.packet(out, ext, false))
		if len(in) != 1 || in[0].dst != c.in.Addr() || proto != wire.ProtoICMP && in[0].dport != c.in.Port() {
			l.t.Errorf("%v > %v: got %v, want it at %v", out, ext, in, c.in)
		}
		if proto == wire.ProtoTCP && c.phase == 0 {
			c.phase, c.last = 1, l.now
		}
		if !c.outside {
			c.replied = true
		}
		return
	}
	if proto == wire.ProtoTCP {
		return // Who may begin a connection is tested apart.
	}
	n := &modelConn{proto: proto, out: out, ext: ext, last: l.now, outside: true}
	if proto == wire.ProtoUDP && ext.Port() == 5007 {
		n.in, n.published = netip.AddrPortFrom(hostB, 5001), true
	} else if o := m.find(func(o *modelConn) bool { return o.proto == proto && o.ext == ext && !o.published }); m.open && o != nil && proto == wire.ProtoUDP {
		n.in = o.in
	}
	clash := m.find(func(o *modelConn) bool { return o.proto == proto && o.in == n.in && o.out == out })
	_, in := l.back(n.packet(out, ext, false))
	want := n.in.IsValid() && clash == nil
	if (len(in) == 1) != want {
		l.t.Errorf("%v > %v, unknown: got %v, want it to pass %v", out, ext, in, want)
		return
	}
	if want {
		if in[0].dst != n.in.Addr() || in[0].dport != n.in.Port() {
			l.t.Errorf("%v > %v: got %v, want it at %v", out, ext, in, n.in)
		}
		m.conns = append(m.conns, n)
	}
}

// checkTable holds the table against what is always true of it.
func checkTable(t *testing.T, n *NAT) {
	t.Helper()
	tb := &n.table
	live, cells, conns := 0, 0, map[uint16]uint32{}
	ports := map[[3]uint16]bool{}
	for id := uint32(1); id < tb.fresh; id++ {
		c := &tb.conns[id]
		if c.flags&isLive == 0 {
			continue
		}
		live++
		conns[c.host]++
		want := 2
		if c.flags&isHead != 0 {
			want = 4
		}
		cells += want
		if c.flags&ownsPort != 0 {
			ports[[3]uint16{uint16(c.class), c.ext, c.extPort}] = true
		}
		for _, k := range []kind{byInside, byExternal} {
			tb.seek(k, id) // It ends only if it is there.
		}
		if c.flags&isMapped != 0 && (tb.conns[c.left].right != id || tb.conns[c.right].left != id || tb.conns[c.right].extPort != c.extPort) {
			t.Errorf("connection %d: its ring is broken", id)
		}
	}
	for _, v := range tb.cells {
		if v != 0 {
			cells--
		}
	}
	if live != tb.live || cells != 0 {
		t.Errorf("%d connections are live, the count is %d; %d cells are missing", live, tb.live, cells)
	}
	for h, k := range conns {
		if tb.hosts.list[h].conns != k {
			t.Errorf("host %d has %d connections and counts %d", h, k, tb.hosts.list[h].conns)
		}
	}
	for ext := range tb.exts {
		for cl, p := range tb.exts[ext].pools {
			if p == nil {
				continue
			}
			taken := 0
			for _, w := range p.used {
				taken += bits.OnesCount64(w)
			}
			for k := range ports {
				if k[0] == uint16(cl) && k[1] == uint16(ext) {
					taken--
					if !p.isUsed(k[2]) {
						t.Errorf("port %d of class %d is in use and not marked", k[2], cl)
					}
				}
			}
			if taken != 0 {
				t.Errorf("%d ports of class %d are marked and not in use", taken, cl)
			}
		}
	}
}
