package nat

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

func TestConnSize(t *testing.T) {
	expect(t, "size of a connection", unsafe.Sizeof(conn{}), connSize)
	expect(t, "what UDP needs", unsafe.Offsetof(conn{}.side), 64)
	if total := connSize + 4*16.0/3; total > 128 {
		t.Errorf("a connection takes %v bytes", total)
	}
}

func TestRFC6888LimitsPerHost(t *testing.T) {
	l := newLab(t, options{config: Config{HostConns: 10}})
	for i := range uint16(10) {
		l.outOne(udpPkt(hostA, 5000+i, far4, 53))
	}
	w, in := l.out(udpPkt(hostA, 6000, far4, 53))
	expect(t, "frames out", len(w), 0)
	expect(t, "the container is told", must1(t, in).code, 13)
	l.drops(dataplane.HostLimit)
	l.outOne(udpPkt(hostB, 6000, far4, 53)) // Others go on.
	l.outOne(udpPkt(hostA, 5000, far4, 53)) // And what there is.
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(53), hostA, 53)
	l.none(l.back(udpPkt(far4, 9, ext4, 53)))
	l.drops(dataplane.HostLimit)
	l.now += 31 * time.Second
	l.n.Expire(int64(l.now), 1000)
	l.outOne(udpPkt(hostA, 6000, far4, 53))
	expect(t, "refused", l.n.Stats().Refused, 2)
}

func TestOneHostLeavesPortsForOthers(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.Ports = PortRange{10000, 10999} }})
	got := 0
	for i := range uint16(1000) {
		w, _ := l.out(udpPkt(hostA, 5000+i, far4, 53))
		got += len(w)
	}
	if got < 700 || got > 760 {
		t.Errorf("one host got %d of 1,000 ports, want three quarters", got)
	}
	for i := range uint16(100) {
		l.outOne(udpPkt(hostB, 5000+i, far4, 53))
	}
}

func TestFullTableRefusesNewAndKeepsOld(t *testing.T) {
	l := newLab(t, options{config: Config{MaxConns: 100, HostConns: 1000}})
	for i := range uint16(100) {
		l.outOne(udpPkt(hostA, 5000+i, far4, 53))
	}
	w, _ := l.out(udpPkt(hostB, 6000, far4, 53))
	expect(t, "frames out", len(w), 0)
	l.drops(dataplane.ConnTableFull)
	for i := range uint16(100) {
		l.outOne(udpPkt(hostA, 5000+i, far4, 53))
	}
	expect(t, "flushed", l.n.Flush(Filter{Src: hostA}), 100)
	expect(t, "hosts", l.n.Stats().Hosts, 0)
	for i := range uint16(100) {
		l.outOne(udpPkt(hostB, 5000+i, far4, 53))
	}
}

func TestSYNFloodTakesNobodysPlace(t *testing.T) {
	for _, x := range []struct {
		name string
		c    Config
	}{{"full table", Config{MaxConns: 500, HostConns: 500}}, {"fair share", Config{MaxConns: 500}}} {
		t.Run(x.name, func(t *testing.T) {
			l := newLab(t, options{config: x.c})
			l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(80), hostA, 80)
			open := func(client netip.Addr, port uint16) {
				t.Helper()
				l.backOne(tcpPkt(client, port, ext4, 80, syn, 1, 0))
				l.outOne(tcpPkt(hostA, 80, client, port, synAck, 9, 2))
				l.backOne(tcpPkt(client, port, ext4, 80, ackF, 2, 10))
			}
			for i := range uint16(50) {
				open(far4, 1000+i)
			}
			for i := range uint16(5000) {
				if i == openBurst {
					l.now += time.Second
				}
				l.backOne(tcpPkt(far4b, 1000+i, ext4, 80, syn, 1, 0))
			}
			l.drops()
			for i := range uint16(50) { // Established ones go on, new ones connect.
				l.backOne(tcpPkt(far4, 1000+i, ext4, 80, ackF, 2, 10))
				open(far4, 2000+i)
				l.outOne(udpPkt(hostB, 5000+i, far4, 53))
			}
			l.drops()
			checkTable(t, l.n)
			s := l.n.Stats()
			if s.Evicted < 4000 || s.Conns > 500 {
				t.Errorf("after a flood: %+v", s)
			}
			l.now += 3 * time.Hour
			l.n.Expire(int64(l.now), 100_000)
			expect(t, "connections at the end", l.n.Stats().Conns, 0)
			for i := range uint16(100) { // All records have come back.
				l.outOne(udpPkt(hostB, 5000+i, far4, 53))
			}
		})
	}
}

// More SYNs than a host is let have half open cost little, and keep nobody from
// another host, nor for long from that one. Those that come to something are
// not bounded.
func TestSYNFloodIsSlowedDown(t *testing.T) {
	l := newLab(t, options{config: Config{MaxConns: 100_000}})
	l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(80), hostA, 80)
	l.mustPublish("other", wire.ProtoTCP, netip.Addr{}, one(81), hostB, 80)
	open := func(inside netip.Addr, port, client uint16) {
		t.Helper()
		l.backOne(tcpPkt(far4, client, ext4, port, syn, 1, 0))
		l.outOne(tcpPkt(inside, 80, far4, client, synAck, 9, 2))
		l.backOne(tcpPkt(far4, client, ext4, port, ackF, 2, 10))
	}
	for i := range uint16(2 * openBurst) {
		open(hostA, 80, 1000+i)
	}
	l.drops()
	passed := 0
	for i := range uint16(3 * openBurst) {
		_, in := l.back(tcpPkt(far4b, 1000+i, ext4, 80, syn, 1, 0))
		passed += len(in)
	}
	expect(t, "SYNs of a flood that passed", passed, openBurst)
	l.drops(slices.Repeat([]dataplane.Drop{dataplane.HostLimit}, 2*openBurst)...)
	open(hostB, 81, 1000)
	l.now += time.Second
	open(hostA, 80, 60_000)
	passed = 0
	for i := range uint16(3 * openBurst) {
		_, in := l.back(tcpPkt(far4b, 20_000+i, ext4, 80, syn, 1, 0))
		passed += len(in)
	}
	expect(t, "SYNs of the next second that passed", passed, openBurst)
	checkTable(t, l.n)
}

func TestListAndFlush(t *testing.T) {
	l := newLab(t, options{})
	id := l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(53), hostB, 5353)
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.outOne(tcpPkt(hostA, 5000, far4, 80, syn, 1, 0))
	l.outOne(ping(hostA6, far6, 5000, wire.ICMPv6Echo))
	l.backOne(udpPkt(far4, 9, ext4, 53))
	count := func(f Filter) int { return l.n.Count(f, int64(l.now)) }
	expect(t, "all", count(Filter{}), 4)
	expect(t, "UDP", count(Filter{Proto: wire.ProtoUDP}), 2)
	expect(t, "from a", count(Filter{Src: hostA}), 2)
	expect(t, "to far4", count(Filter{Dst: far4}), 2)
	expect(t, "to the publication", count(Filter{Dst: ext4}), 1)
	expect(t, "to b", count(Filter{Dst: hostB}), 1)
	expect(t, "by rule", count(Filter{Rule: id}), 1)
	expect(t, "of the gateway", count(Filter{Gateway: l.gw}), 4)
	for c := range l.n.Conns(Filter{Rule: id}, int64(l.now)) {
		expect(t, "original", c.Original, Endpoints{netip.AddrPortFrom(far4, 9), netip.AddrPortFrom(ext4, 53)})
		expect(t, "reply", c.Reply, Endpoints{netip.AddrPortFrom(hostB, 5353), netip.AddrPortFrom(far4, 9)})
		expect(t, "state", c.State, "unreplied")
		expect(t, "packets", c.Packets, 1)
		if c.Timeout < 29*time.Second || c.Timeout > 31*time.Second {
			t.Errorf("timeout %v", c.Timeout)
		}
	}
	expect(t, "flushed", l.n.Flush(Filter{Proto: wire.ProtoTCP}), 1)
	expect(t, "left", count(Filter{}), 3)
	expect(t, "of a removed container", l.n.RemoveHost(l.gw, hostB), 1)
	l.now += time.Hour
	expect(t, "an hour later", count(Filter{}), 0)
}

func TestLinksThatAreRefused(t *testing.T) {
	l := newLab(t, options{})
	for name, change := range map[string]func(*GatewayConfig){
		"no MAC":            func(c *GatewayConfig) { c.MAC = 0 },
		"a group's MAC":     func(c *GatewayConfig) { c.MAC = wire.Broadcast },
		"no address":        func(c *GatewayConfig) { c.Addresses = nil },
		"multicast":         func(c *GatewayConfig) { c.Addresses = []netip.Prefix{pp("224.0.0.1/24")} },
		"broadcast address": func(c *GatewayConfig) { c.Addresses = []netip.Prefix{pp("198.18.9.255/24")} },
		"small MTU":         func(c *GatewayConfig) { c.MTU = 60 },
		"no network":        func(c *GatewayConfig) { c.Network = nil },
		"port 0":            func(c *GatewayConfig) { c.Port = 0 },
	} {
		c := GatewayConfig{Name: "x", MAC: macGW, Addresses: []netip.Prefix{pp("198.18.9.1/24")}, MTU: 1500, Network: l.in, Port: 9}
		change(&c)
		if _, err := l.n.AddGateway(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("gateway with %s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*UplinkConfig){
		"its own next hop": func(c *UplinkConfig) { c.NextHop4 = c.Addresses[0].Addr() },
		"a group's":        func(c *UplinkConfig) { c.NextHop4 = ap("224.0.0.1") },
		"next hop of IPv6": func(c *UplinkConfig) { c.NextHop4 = far6 },
		"ports backwards":  func(c *UplinkConfig) { c.Ports = PortRange{5, 4} },
		"no port":          func(c *UplinkConfig) { c.Port = nil },
		"an address twice": func(c *UplinkConfig) { c.Addresses = append(c.Addresses, c.Addresses[0]) },
	} {
		c := UplinkConfig{Name: "x", MAC: macUp, Addresses: []netip.Prefix{pp("192.0.2.9/24")}, MTU: 1500, Port: l.wire}
		change(&c)
		if _, err := l.n.AddUplink(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("uplink with %s: %v", name, err)
		}
	}
	if _, err := l.n.AddMasquerade(MasqueradeConfig{Name: "again", Gateway: l.gw, Uplink: l.up}); !errors.Is(err, ErrInUse) {
		t.Errorf("second masquerade: %v", err)
	}
	if err := l.n.RemoveUplink(l.up); !errors.Is(err, ErrInUse) {
		t.Errorf("uplink with rules: %v", err)
	}
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.must(l.n.RemoveRule(1))
	expect(t, "connections", l.n.Stats().Conns, 0)
	l.none(l.out(udpPkt(hostA, 5000, far4, 53)))
	l.drops(dataplane.Isolated)
	l.must(l.n.RemoveUplink(l.up))
	l.must(l.n.RemoveGateway(l.gw))
	l.none(l.out(udpPkt(hostA, 5000, far4, 53)))
	l.none(l.back(udpPkt(far4, 53, ext4, 5000)))
	expect(t, "frames of links that are gone", l.n.Stats().Strays, 2)
	if err := l.n.RemoveGateway(l.gw); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestUplinkChangesItsAddress(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(53), hostB, 53)
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.outOne(udpPkt(hostA6, 5000, far6, 53))
	c := l.up.config
	c.Addresses = []netip.Prefix{pp("192.0.2.77/24"), c.Addresses[1]}
	l.must(l.up.Configure(c))
	expect(t, "connections", l.n.Stats().Conns, 1)
	l.none(l.back(udpPkt(far4, 53, ext4, 5000)))
	p := l.outOne(udpPkt(hostA, 5000, far4, 53))
	expect(t, "new address", p.src, ap("192.0.2.77"))
	expect(t, "back", l.backOne(udpPkt(far4, 53, ap("192.0.2.77"), 5000)).dst, hostA)
	expect(t, "published there", l.backOne(udpPkt(far4, 9, ap("192.0.2.77"), 53)).dst, hostB)
	expect(t, "IPv6 goes on", l.backOne(udpPkt(far6, 53, ext6, 5000)).dst, hostA6)
}

func TestDependentMappingOnANewAddress(t *testing.T) {
	l := newLab(t, options{masq: func(c *MasqueradeConfig) { c.DependentMapping = true }})
	c := l.up.Config()
	c.Addresses = []netip.Prefix{pp("192.0.2.77/24")}
	c.NextHop6 = netip.Addr{}
	l.must(l.up.Configure(c))
	expect(t, "source", l.outOne(udpPkt(hostA, 5000, far4, 53)).src, ap("192.0.2.77"))
	l.none(l.out(udpPkt(hostA6, 5000, far6, 53)))
	l.drops(dataplane.NoRoute)
}

// TestWorkersAndControlTogether is for the race detector.
func TestWorkersAndControlTogether(t *testing.T) {
	l := newLab(t, options{config: Config{Workers: 3}})
	port := mem.New(mem.Config{Workers: 3, Slots: 1 << 14})
	l.gw.counters, l.wire.counters = dataplane.NewCounters(3), dataplane.NewCounters(3)
	l.up.counters = port.Counters()
	l.up.config.Port = port
	l.up.Swap(port)
	done := make(chan bool)
	for w := range 2 {
		go func() {
			for i := range 300 {
				p := udpPkt(hostA, uint16(2000+i), far4, uint16(53+w))
				p.dstMAC, p.srcMAC = macGW, macA
				b := l.batch(p.frame())
				b.Worker = w
				l.gw.Push(b)
			}
			done <- true
		}()
	}
	for i := range 20 {
		id, err := l.publish("x", wire.ProtoUDP, netip.Addr{}, one(53), hostB, 53)
		l.must(err)
		l.n.Count(Filter{}, int64(l.now))
		l.n.Expire(int64(l.now), 100)
		if i%5 == 0 {
			l.n.Flush(Filter{Src: hostA})
		}
		l.n.Stats()
		l.must(l.n.RemoveRule(id))
	}
	<-done
	<-done
	if got := port.Counters().Totals().TxFrames; got != 600 {
		t.Errorf("%d frames went out, want 600", got)
	}
}

// TestPushAllocatesNothing gates every way through Push.
func TestPushAllocatesNothing(t *testing.T) {
	l := newLab(t, options{masq: func(c *MasqueradeConfig) { c.OpenFiltering = true }})
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(53), hostB, 53)
	quiet := func(c *capture) { l.n.paths[l.up.path].Store(&path{port: nowhere{c.counters}}) }
	quiet(l.wire)
	l.n.paths[l.gw.path].Store(&path{sink: nowhere{}, id: 7, counters: l.gw.counters})
	frag := cut(pkt{src: hostA, dst: far4, sport: 5000, dport: 80, proto: wire.ProtoUDP, payload: make([]byte, 3000)}, 1, 1000)
	expired := udpPkt(hostA, 1, far4, 2)
	expired.ttl = 1
	inside := []pkt{
		udpPkt(hostA, 5000, far4, 80), tcpPkt(hostA, 5000, far4, 80, syn, 1, 0), ping(hostA, far4, 5000, wire.ICMPEcho),
		udpPkt(hostA6, 5000, far6, 80), ping(hostA, gw4, 1, wire.ICMPEcho), udpPkt(hostA, 5000, ext4, 53),
		udpPkt(hostA, 7, ap("198.18.0.99"), 7), errorAbout(hostA, far4, 3, 3, udpPkt(far4, 80, hostA, 5000), 1000),
		frag[1], frag[0], frag[2], expired, udpPkt(far4, 1, far4b, 1),
		{src: hostA, dst: far4, sport: 5000, dport: 80, proto: wire.ProtoSCTP, sctp: initChunk(sctpInit, 111)},
	}
	outside := []pkt{
		udpPkt(far4, 80, ext4, 5000), tcpPkt(far4, 80, ext4, 5000, synAck, 1, 2), udpPkt(far4, 9, ext4, 53),
		udpPkt(far4, 9, ext4, 999), errorAbout(far4, ext4, 3, 3, udpPkt(ext4, 5000, far4, 80), 1000),
		udpPkt(far4b, 80, ext4, 5000), udpPkt(far6, 80, ext6, 5000),
	}
	var in, out []sent
	for _, p := range inside {
		p.dstMAC, p.srcMAC = macGW, macA
		in = append(in, p.frame())
	}
	in = append(in, arpFrame4(wire.Broadcast, macB, wire.ARPRequest, hostB, 0, gw4))
	for _, p := range outside {
		p.dstMAC, p.srcMAC = macUp, macRouter
		out = append(out, p.frame())
	}
	bi, bo := l.batch(in...), l.batch(out...)
	if allocs := testing.AllocsPerRun(500, func() {
		for i := range in {
			copy(bi.Frames[i].Bytes(), in[i].data)
		}
		for i := range out {
			copy(bo.Frames[i].Bytes(), out[i].data)
		}
		bi.Now += int64(7 * time.Second) // Things begin and end on the way.
		bo.Now = bi.Now
		l.gw.Push(bi)
		l.up.Push(bo)
		l.n.Expire(bi.Now, 1000)
		l.n.Tick(0, bi.Now)
	}); allocs != 0 {
		t.Errorf("Push allocates %v times", allocs)
	}
	if s := l.n.Stats(); s.Created < 100 || s.Expired < 100 {
		t.Errorf("not every way was gone: %+v", s)
	}
}

// nowhere is a port and a network that cost nothing.
type nowhere struct{ counters *dataplane.Counters }

func (nowhere) Pull(*dataplane.Batch)           {}
func (nowhere) Push(*dataplane.Batch)           {}
func (nowhere) FD(int) int                      { return -1 }
func (n nowhere) Counters() *dataplane.Counters { return n.counters }
func (nowhere) Close() error                    { return nil }
