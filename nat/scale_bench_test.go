package nat_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	"heddle/nat"
	vswitch "heddle/switch"
)

// scaleConns is the sizes that swbench draws its curves over.
var scaleConns = []int{1000, 10_000, 100_000, 1_000_000, 10_000_000}

// head is what tells the packets of a connection of UDP: the IP header and the
// ports.
type head [24]byte

// busyNAT is a NAT with many connections, each from an endpoint inside of its
// own, and so with an external port of its own: what fills the index most.
type busyNAT struct {
	nat       *nat.NAT
	gw        *nat.Gateway
	up        *nat.Uplink
	in, wire  *mem.Port // Behind the switch and behind the uplink.
	conns     int
	hosts     int
	batch     *dataplane.Batch
	pattern   head   // Of all packets, but for what tells connections apart.
	heads     []head // Of frames that go out, drawn ahead,
	back      []head // and of those that answer them.
	next      int
	outs, ins uint64 // Frames pushed.
}

// newBusyNAT makes a NAT with room for conns connections, at least as many as by
// default, and none in it. Hosts inside share 1,024 external addresses: an address
// has 64,512 ports.
func newBusyNAT(tb testing.TB, conns int) *busyNAT {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	c := &busyNAT{conns: conns, hosts: min(2048, max(1, conns/100)), batch: dataplane.NewBatch(0)}
	sw := vswitch.New(1, 1000)
	network, err := sw.AddNetwork(vswitch.NetworkConfig{})
	must(err)
	c.nat, err = nat.New(nat.Config{Workers: 1, MaxConns: max(conns, nat.DefaultConns), HostConns: nat.MaxConns, HostPorts: 1 << 30})
	must(err)
	c.gw, err = c.nat.AddGateway(nat.GatewayConfig{
		Name: "net", MAC: gwMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}, MTU: 1500, Network: network, Port: 2,
	})
	must(err)
	frame := mem.Frame{Data: make([]byte, 64)}
	c.in, c.wire = mem.NewLoop(mem.Config{Workers: 1}, frame), mem.NewLoop(mem.Config{Workers: 1}, frame)
	config := nat.UplinkConfig{
		Name: "up", Mode: nat.Own, MAC: upMAC, NextHop4: netip.MustParseAddr("198.19.255.254"), MTU: 1500, Port: c.wire,
	}
	// The uplink's own network has room for them all.
	for at := netip.MustParseAddr("198.19.128.1"); len(config.Addresses) < min(nat.MaxAddresses, c.hosts); at = at.Next() {
		config.Addresses = append(config.Addresses, netip.PrefixFrom(at, 17))
	}
	c.up, err = c.nat.AddUplink(config)
	must(err)
	_, err = c.nat.AddMasquerade(nat.MasqueradeConfig{Gateway: c.gw, Uplink: c.up})
	must(err)
	must(c.up.SetNeighbour(config.NextHop4, routerMAC))
	must(network.Attach(1, c.in, vswitch.PortConfig{}))
	must(network.Attach(2, c.gw, vswitch.PortConfig{Role: vswitch.Gateway}))
	must(network.AddStatic(gwMAC, 2))
	must(network.AddStatic(hostMAC, 1))
	for i := range c.hosts {
		must(c.gw.SetNeighbour(insideHost(i), hostMAC))
	}
	copy(c.pattern[:], udpFrame(gwMAC, hostMAC, addrPort("198.18.0.10:1"), addrPort("203.0.113.0:53"))[14:])
	for range dataplane.BatchSize {
		f := c.batch.Next()
		f.Buf = make([]byte, dataplane.Headroom+64)
		f.Off, f.Len = dataplane.Headroom, 64
		c.batch.Add()
	}
	return c
}

// insideHost is the address of a host inside.
func insideHost(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(16 + i>>8), byte(i)})
}

// outward is the head of connection i's packets on their way out.
func (c *busyNAT) outward(i int) (h head) {
	h = c.pattern
	a := insideHost(i % c.hosts).As4()
	copy(h[12:], a[:])
	h[19] = byte(i % 251)
	binary.BigEndian.PutUint16(h[20:], uint16(1024+i/c.hosts))
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:20], 0)))
	return h
}

// push pushes the frames of the next 64 heads, out or in.
func (c *busyNAT) push(out bool, heads []head) {
	sink, dst, src := dataplane.Sink(c.gw), gwMAC, hostMAC
	if !out {
		sink, dst, src = c.up, upMAC, routerMAC
	}
	var macs [12]byte
	dst.Put(macs[:])
	src.Put(macs[6:])
	for k := range c.batch.Frames {
		f := c.batch.Frames[k].Bytes()
		*(*[12]byte)(f) = macs
		f[12], f[13] = 8, 0
		*(*head)(f[14:]) = heads[(c.next+k)%len(heads)]
		f[38], f[39], f[40], f[41] = 0, 30, 0, 0
	}
	c.next += dataplane.BatchSize
	if out {
		c.batch.In = 1
		c.outs += dataplane.BatchSize
	} else {
		c.batch.In = 3
		c.ins += dataplane.BatchSize
	}
	sink.Push(c.batch)
}

// fill begins all connections, and returns what CPU time that took.
func (c *busyNAT) fill(tb testing.TB) (took time.Duration) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var heads [dataplane.BatchSize]head
	for i := 0; i < c.conns; i += len(heads) {
		for k := range heads {
			heads[k] = c.outward((i + k) % c.conns)
		}
		c.next = 0
		start := cost.CPU()
		c.push(true, heads[:])
		took += cost.CPU() - start
	}
	if got := c.nat.Stats().Conns; got != c.conns {
		tb.Fatalf("%d connections of %d, drops %v", got, c.conns, c.gw.Counters().Totals().Drops)
	}
	return took
}

// draw has frames be of any of the first so many connections.
func (c *busyNAT) draw(ahead, conns int) {
	c.heads, c.back = make([]head, ahead), make([]head, ahead)
	for k := range c.heads {
		c.heads[k] = c.outward(rand.IntN(conns))
	}
	for k := 0; k < ahead; k += dataplane.BatchSize {
		c.next = k
		c.push(true, c.heads)
		for i := range min(dataplane.BatchSize, ahead-k) {
			// The frames are rewritten where they lie: an answer is the other
			// way round.
			h, f := c.heads[k+i], c.batch.Frames[i].Bytes()
			copy(h[12:16], f[30:34])
			copy(h[16:20], f[26:30])
			copy(h[20:22], f[36:38])
			copy(h[22:24], f[34:36])
			h[10], h[11] = 0, 0
			binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:20], 0)))
			c.back[k+i] = h
		}
	}
	c.next = 0
}

// verify tells whether all frames were translated and went on.
func (c *busyNAT) verify(tb testing.TB) {
	tb.Helper()
	out, in := c.wire.Counters().Totals().TxFrames, c.in.Counters().Totals().TxFrames
	if out < c.outs || in < c.ins {
		tb.Fatalf("%d of %d frames went out and %d of %d in; drops %v, %v", out, c.outs, in, c.ins,
			c.gw.Counters().Totals().Drops, c.wire.Counters().Totals().Drops)
	}
	if got := c.nat.Stats().Conns; got != c.conns {
		tb.Fatalf("there are %d connections, not %d", got, c.conns)
	}
}

// BenchmarkScaleConns is what a 64-byte frame costs from the gateway out by the
// uplink, and from the uplink to the container's port, by how many connections
// there are: of one connection, and of any of them. Besides, what it costs to
// begin one, and the memory, in a table of the default size or, where that is
// too small, of the connections'. Run each size in a process of its own: memory
// that was used before counts as resident too soon.
func BenchmarkScaleConns(b *testing.B) {
	for _, conns := range scaleConns {
		b.Run(strconv.Itoa(conns), func(b *testing.B) {
			c := newBusyNAT(b, conns)
			before := cost.Resident(b)
			filling := c.fill(b)
			after := cost.Resident(b)
			b.Run("memory", func(b *testing.B) {
				for b.Loop() {
					runtime.KeepAlive(c)
				}
				b.ReportMetric((after-before)/float64(conns), "B/entry")
				b.ReportMetric((after-before)/1e6, "grown-MB")
				b.ReportMetric(after/1e6, "rss-MB")
				b.ReportMetric(float64(filling)/float64(conns), "cpu-ns/new")
				b.ReportMetric(0, "ns/op")
			})
			for _, of := range []struct {
				name  string
				conns int
			}{{"flow", 1}, {"random", conns}} {
				c.draw(1<<18, of.conns)
				for _, out := range []bool{true, false} {
					heads, way := c.heads, "out"
					if !out {
						heads, way = c.back, "in"
					}
					b.Run(fmt.Sprint(of.name, " ", way), func(b *testing.B) {
						cost.Run(b, dataplane.BatchSize, "frame", func() { c.push(out, heads) })
						c.verify(b)
					})
				}
			}
		})
	}
}

// The benchmark's traffic goes the way that it says.
func TestScaleTraffic(t *testing.T) {
	c := newBusyNAT(t, 5000)
	c.fill(t)
	for _, conns := range []int{1, 5000} {
		c.draw(1000, conns)
		for range 20 {
			c.push(true, c.heads)
			c.push(false, c.back)
		}
		c.verify(t)
	}
}
