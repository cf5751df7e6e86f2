package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// The lab:
//
//	a 198.18.0.10 ─┐                                 ┌─ router 192.0.2.1 ─ 203.0.113.9
//	b 198.18.0.11 ─┼─ gw 198.18.0.1 ═ NAT ═ 192.0.2.2┤
//	  2001:db8:1::a┘  2001:db8:1::1    2001:db8:2::2 └─ peer 192.0.2.7
//
// The network and the wire are fakes that note frames; a clock is driven.
type lab struct {
	t    testing.TB
	n    *NAT
	gw   *Gateway
	up   *Uplink
	in   *capture // The network behind gw.
	wire *capture // The wire behind up.
	now  time.Duration
}

// capture is the far end of a link: it answers for all MACs but keeps frames.
type capture struct {
	got      []sent
	counters *dataplane.Counters
}

type sent struct {
	data []byte
	owes wire.VNetHdr
}

func (c *capture) Pull(*dataplane.Batch)         {}
func (c *capture) FD(int) int                    { return -1 }
func (c *capture) Counters() *dataplane.Counters { return c.counters }
func (c *capture) Close() error                  { return nil }
func (c *capture) Push(b *dataplane.Batch) {
	for s := b.Sel; s != 0; s &= s - 1 {
		f := &b.Frames[dataplane.First(s)]
		c.got = append(c.got, sent{append([]byte(nil), f.Bytes()...), f.Owes})
	}
}

func (c *capture) take() []sent {
	got := c.got
	c.got = nil
	return got
}

const (
	macGW     wire.MAC = 0x02000000aa01
	macUp     wire.MAC = 0x02000000bb01
	macA      wire.MAC = 0x02000000000a
	macB      wire.MAC = 0x02000000000b
	macRouter wire.MAC = 0x020000000cc1
)

var (
	hostA  = ap("198.18.0.10")
	hostB  = ap("198.18.0.11")
	hostA6 = ap("2001:db8:1::a")
	hostB6 = ap("2001:db8:1::b")
	gw4    = ap("198.18.0.1")
	gw6    = ap("2001:db8:1::1")
	ext4   = ap("192.0.2.2")
	ext6   = ap("2001:db8:2::2")
	far4   = ap("203.0.113.9")
	far4b  = ap("203.0.113.10")
	far6   = ap("2001:db8:9::9")
	router = ap("192.0.2.1")
)

func ap(s string) netip.Addr { return netip.MustParseAddr(s) }
func pp(s string) netip.Prefix {
	return netip.MustParsePrefix(s)
}

// options of newLab.
type options struct {
	config  Config
	uplink  func(*UplinkConfig)
	gateway func(*GatewayConfig)
	masq    func(*MasqueradeConfig)
	noMasq  bool
}

func newLab(t testing.TB, o options) *lab {
	t.Helper()
	if o.config.Workers == 0 {
		o.config.Workers = 1
	}
	if o.config.MaxConns == 0 {
		o.config.MaxConns = 10000
	}
	n, err := New(o.config)
	l := &lab{t: t, n: n, now: time.Minute}
	l.must(err)
	// A port drawn at random is, now and then, the very one that a test asks for next.
	n.table.rand = fixedRandom()
	l.in = &capture{counters: dataplane.NewCounters(1)}
	l.wire = &capture{counters: dataplane.NewCounters(1)}
	gc := GatewayConfig{
		Name: "net", MAC: macGW, Addresses: []netip.Prefix{pp("198.18.0.1/24"), pp("2001:db8:1::1/64")},
		MTU: 1500, Network: l.in, Port: 7,
	}
	if o.gateway != nil {
		o.gateway(&gc)
	}
	l.gw, err = n.AddGateway(gc)
	l.must(err)
	uc := UplinkConfig{
		Name: "up", Mode: Own, MAC: macUp, Addresses: []netip.Prefix{pp("192.0.2.2/24"), pp("2001:db8:2::2/64")},
		NextHop4: router, NextHop6: ap("2001:db8:2::1"), MTU: 1500, Port: l.wire,
	}
	if o.uplink != nil {
		o.uplink(&uc)
	}
	l.up, err = n.AddUplink(uc)
	l.must(err)
	if !o.noMasq {
		mc := MasqueradeConfig{Name: "masq", Gateway: l.gw, Uplink: l.up}
		if o.masq != nil {
			o.masq(&mc)
		}
		_, err = n.AddMasquerade(mc)
		l.must(err)
	}
	for _, x := range []struct {
		a   netip.Addr
		mac wire.MAC
	}{{hostA, macA}, {hostB, macB}, {hostA6, macA}, {hostB6, macB}} {
		l.must(l.gw.SetNeighbour(x.a, x.mac))
	}
	l.must(l.up.SetNeighbour(router, macRouter))
	l.must(l.up.SetNeighbour(ap("2001:db8:2::1"), macRouter))
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) batch(frames ...sent) *dataplane.Batch {
	b := &dataplane.Batch{Now: int64(l.now), In: 3}
	for _, s := range frames {
		f := b.Next()
		f.Buf = make([]byte, dataplane.Headroom+len(s.data))
		f.Off, f.Len, f.Owes = dataplane.Headroom, len(s.data), s.owes
		copy(f.Bytes(), s.data)
		b.Add()
	}
	return b
}

// fromA sends a packet from a container to the gateway and returns what came
// out on the wire and in the network.
func (l *lab) out(p pkt) (wireSide, inside []pkt) {
	l.t.Helper()
	p.dstMAC, p.srcMAC = macGW, macA
	if p.src == hostB || p.src == hostB6 {
		p.srcMAC = macB
	}
	return l.push(l.gw, p.frame())
}

// back sends a packet from the wire to the uplink.
func (l *lab) back(p pkt) (wireSide, inside []pkt) {
	l.t.Helper()
	p.dstMAC, p.srcMAC = macUp, macRouter
	return l.push(l.up, p.frame())
}

func (l *lab) push(to dataplane.Sink, frames ...sent) (wireSide, inside []pkt) {
	l.t.Helper()
	to.Push(l.batch(frames...))
	return decodeAll(l.t, l.wire.take()), decodeAll(l.t, l.in.take())
}

// must1 returns the only packet.
func must1(t testing.TB, ps []pkt) pkt {
	t.Helper()
	if len(ps) != 1 {
		t.Fatalf("got %d packets, want 1: %v", len(ps), ps)
	}
	return ps[0]
}

func (l *lab) outOne(p pkt) pkt {
	l.t.Helper()
	w, in := l.out(p)
	if len(in) != 0 {
		l.t.Fatalf("came back inside: %v", in)
	}
	return must1(l.t, w)
}

func (l *lab) backOne(p pkt) pkt {
	l.t.Helper()
	w, in := l.back(p)
	if len(w) != 0 {
		l.t.Fatalf("went back to the wire: %v", w)
	}
	return must1(l.t, in)
}

func (l *lab) none(w, in []pkt) {
	l.t.Helper()
	if len(w)+len(in) != 0 {
		l.t.Errorf("got %v on the wire and %v inside, want nothing", w, in)
	}
}

// drops expects that since the last call exactly these reasons were counted.
func (l *lab) drops(want ...dataplane.Drop) {
	l.t.Helper()
	got := map[string]uint64{}
	for _, c := range []*dataplane.Counters{l.gw.counters, l.wire.counters} {
		for d, n := range c.Totals().Drops {
			if n > 0 {
				got[dataplane.Drop(d).String()] += n
			}
		}
	}
	l.gw.counters = dataplane.NewCounters(1)
	l.wire.counters = dataplane.NewCounters(1)
	l.up.counters = l.wire.counters
	exp := map[string]uint64{}
	for _, d := range want {
		exp[d.String()]++
	}
	if fmt.Sprint(got) != fmt.Sprint(exp) {
		l.t.Errorf("dropped %v, want %v", got, exp)
	}
}
