package nat_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	"heddle/nat"
	vswitch "heddle/switch"
)

const (
	gwMAC     wire.MAC = 0x02000000aa01
	upMAC     wire.MAC = 0x02000000bb01
	hostMAC   wire.MAC = 0x02000000000a
	routerMAC wire.MAC = 0x020000000cc1
)

// udpFrame is a UDP frame of 64 bytes.
func udpFrame(dst, src wire.MAC, from, to netip.AddrPort) []byte {
	b := make([]byte, 64)
	dst.Put(b)
	src.Put(b[6:])
	b[12] = 8
	h := b[14:]
	h[0], h[8], h[9] = 0x45, 64, wire.ProtoUDP
	binary.BigEndian.PutUint16(h[2:], 50)
	s, d := from.Addr().As4(), to.Addr().As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:20], 0)))
	binary.BigEndian.PutUint16(h[20:], from.Port())
	binary.BigEndian.PutUint16(h[22:], to.Port())
	binary.BigEndian.PutUint16(h[24:], 30)
	binary.BigEndian.PutUint16(h[26:], 1) // Some checksum: nobody looks.
	return b
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// way is a switch with a NAT between a loop port and a wire.
type way struct {
	net  *vswitch.Network
	nat  *nat.NAT
	gw   *nat.Gateway
	up   *nat.Uplink
	wire *mem.Port
}

func newWay(b testing.TB, conns int, frames []mem.Frame) (*way, *mem.Port) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	w := &way{}
	var err error
	sw := vswitch.New(1, 1000)
	w.net, err = sw.AddNetwork(vswitch.NetworkConfig{})
	must(err)
	w.nat, err = nat.New(nat.Config{Workers: 1, MaxConns: conns, HostConns: nat.MaxConns, HostPorts: 1 << 30})
	must(err)
	w.gw, err = w.nat.AddGateway(nat.GatewayConfig{
		Name: "net", MAC: gwMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}, MTU: 1500, Network: w.net, Port: 2,
	})
	must(err)
	w.wire = mem.NewLoop(mem.Config{Workers: 1, Restore: 64}, frames...)
	w.up, err = w.nat.AddUplink(nat.UplinkConfig{
		Name: "up", Mode: nat.Own, MAC: upMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
		NextHop4: netip.MustParseAddr("192.0.2.1"), MTU: 1500, Port: w.wire,
	})
	must(err)
	_, err = w.nat.AddMasquerade(nat.MasqueradeConfig{Gateway: w.gw, Uplink: w.up, DependentMapping: conns > 100_000})
	must(err)
	must(w.up.SetNeighbour(netip.MustParseAddr("192.0.2.1"), routerMAC))
	must(w.gw.SetNeighbour(netip.MustParseAddr("198.18.0.10"), hostMAC))
	in := mem.NewLoop(mem.Config{Workers: 1, Restore: 64}, frames...)
	must(w.net.Attach(1, in, vswitch.PortConfig{}))
	must(w.net.Attach(2, w.gw, vswitch.PortConfig{Role: vswitch.Gateway}))
	must(w.net.AddStatic(gwMAC, 2))
	return w, in
}

func outFrames(flows int) (frames []mem.Frame) {
	for i := range dataplane.BatchSize {
		from := netip.AddrPortFrom(netip.MustParseAddr("198.18.0.10"), uint16(5000+i%flows))
		frames = append(frames, mem.Frame{Data: udpFrame(gwMAC, hostMAC, from, addrPort("203.0.113.9:53"))})
	}
	return frames
}

// BenchmarkMemPorts is the whole way in process, 64 B: pull, switch, NAT, push.
func BenchmarkMemPorts(b *testing.B) {
	for _, flows := range []int{1, 64} {
		b.Run(fmt.Sprintf("out, %d flows", flows), func(b *testing.B) {
			w, in := newWay(b, 1000, outFrames(flows))
			bt := dataplane.Batch{In: 1}
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				bt.Reset()
				bt.In = 1
				in.Pull(&bt)
				w.net.Push(&bt)
			})
			if got := w.wire.Counters().Totals().TxFrames; got < uint64(b.N*dataplane.BatchSize) {
				b.Fatalf("%d frames went out of %d; %+v", got, b.N*dataplane.BatchSize, w.gw.Counters().Totals().Drops)
			}
		})
	}
	b.Run("pull and count alone", func(b *testing.B) {
		_, in := newWay(b, 1000, outFrames(1))
		var bt dataplane.Batch
		cost.Run(b, dataplane.BatchSize, "frame", func() {
			bt.Reset()
			in.Pull(&bt)
			in.Push(&bt)
		})
	})
}

// BenchmarkConns pushes frames of connections drawn evenly from all that there
// are, to the gateway alone.
func BenchmarkConns(b *testing.B) {
	for _, conns := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("%d connections", conns), func(b *testing.B) {
			w, _ := newWay(b, max(conns, 100_001), outFrames(1))
			var bt dataplane.Batch
			pristine := outFrames(1)[0].Data
			for range dataplane.BatchSize {
				f := bt.Next()
				f.Buf = make([]byte, dataplane.Headroom+64)
				f.Off, f.Len = dataplane.Headroom, 64
				bt.Add()
			}
			flow := func(i int) ([]byte, uint16) { // Destination and port.
				return []byte{203, 0, 113, byte(i >> 16)}, uint16(i)
			}
			set := func(i int) {
				for k := range bt.Frames {
					f := bt.Frames[k].Bytes()
					copy(f, pristine)
					to, port := flow((i + k) % conns)
					if port == 0 {
						port = 1
					}
					copy(f[30:], to)
					binary.BigEndian.PutUint16(f[36:], port)
					binary.BigEndian.PutUint16(f[24:], 0)
					binary.BigEndian.PutUint16(f[24:], ^wire.Fold(wire.Sum(f[14:34], 0)))
				}
			}
			for i := 0; i < conns; i += dataplane.BatchSize {
				set(i)
				w.gw.Push(&bt)
			}
			if got := w.nat.Stats().Conns; got < conns-100 {
				b.Fatalf("%d connections of %d, drops %v", got, conns, w.gw.Counters().Totals().Drops)
			}
			// Frames are drawn ahead, so that only copying them is measured too.
			const ahead = 1 << 17
			heads := make([][24]byte, ahead)
			for k := range heads {
				set(rand.IntN(conns))
				heads[k] = [24]byte(bt.Frames[0].Bytes()[14:])
			}
			next, before := 0, w.wire.Counters().Totals().TxFrames
			cost.Run(b, dataplane.BatchSize, "frame", func() {
				for k := range bt.Frames {
					f := bt.Frames[k].Bytes()
					copy(f, pristine[:14])
					*(*[24]byte)(f[14:]) = heads[(next+k)%ahead]
				}
				next += dataplane.BatchSize
				w.gw.Push(&bt)
			})
			if got := w.wire.Counters().Totals().TxFrames - before; got < uint64(b.N*dataplane.BatchSize) {
				b.Fatalf("%d frames went out of %d; %+v", got, b.N*dataplane.BatchSize, w.gw.Counters().Totals().Drops)
			}
		})
	}
}

// BenchmarkMemory reports what a table takes for a connection when it is full
// and each has a mapping of its own. It is no loop: run it with -benchtime=1x.
func BenchmarkMemory(b *testing.B) {
	size := func(conns int) float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		n, err := nat.New(nat.Config{Workers: 1, MaxConns: conns})
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(n)
		return float64(after.HeapAlloc - before.HeapAlloc)
	}
	for b.Loop() {
		b.ReportMetric((size(1_065_535)-size(65_535))/1e6, "B/connection")
	}
}
