package tunnel

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// TestContainersCantForgeTunnels: no VXLAN datagram that Heddle didn't make
// leaves for a tunnel's end, and everything else does.
func TestContainersCantForgeTunnels(t *testing.T) {
	udp := func(v6 bool, dst string, dport uint16, change func(b []byte)) dataplane.Frame {
		f := spec{v6: v6, proto: wire.ProtoUDP, sport: 5555, dport: dport, payload: 40}.frame()
		a := netip.MustParseAddr(dst)
		if v6 {
			b := a.As16()
			copy(f.Bytes()[38:], b[:])
		} else {
			b := a.As4()
			copy(f.Bytes()[30:], b[:])
		}
		if change != nil {
			change(f.Bytes())
		}
		return f
	}
	tag := func(f dataplane.Frame) dataplane.Frame {
		b := append([]byte(nil), f.Bytes()[:12]...)
		return frameOf(append(append(b, 0x81, 0, 0, 5), f.Bytes()[12:]...))
	}
	extension := func(f dataplane.Frame, next byte, ext ...byte) dataplane.Frame {
		b := append([]byte(nil), f.Bytes()[:54]...)
		b[20] = next
		b = append(append(b, ext...), f.Bytes()[54:]...)
		binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
		return frameOf(b)
	}
	gso := udp(false, "192.0.2.2", 4789, nil)
	gso.Owes = wire.VNetHdr{GSOType: wire.VNetGSOUDPL4, GSOSize: 10}
	options := udp(false, "192.0.2.2", 80, func(b []byte) { b[14] = 0x46; binary.BigEndian.PutUint16(b[40:], 4789) })
	for _, c := range []struct {
		what  string
		outer int
		f     dataplane.Frame
		drop  bool
	}{
		{"to this host's VTEP", 0, udp(false, "192.0.2.1", 4789, nil), true},
		{"to a peer's", 0, udp(false, "192.0.2.2", 4789, nil), true},
		{"to another address of this host", 0, udp(false, "198.51.100.1", 4789, nil), true},
		{"tagged", 0, tag(udp(false, "192.0.2.2", 4789, nil)), true},
		{"a super-frame", 0, gso, true},
		{"behind IP options", 0, options, true},
		{"to all hosts", 0, udp(false, "255.255.255.255", 4789, nil), true},
		{"to a group", 0, udp(false, "224.0.0.1", 4789, nil), true},
		{"a first fragment", 0, udp(false, "192.0.2.2", 4789, func(b []byte) { b[20] = 0x20 }), true},
		{"a later fragment", 0, udp(false, "192.0.2.2", 80, func(b []byte) { b[21] = 1 }), true},
		{"a truncated header", 0, func() dataplane.Frame { f := udp(false, "192.0.2.2", 80, nil); f.Len = 37; return f }(), true},
		{"over IPv6", 1, udp(true, "2001:db8:ffff::2", 4789, nil), true},
		{"behind an extension header", 1, extension(udp(true, "2001:db8:ffff::2", 4789, nil), 60, wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0), true},
		{"a later IPv6 fragment", 1, extension(udp(true, "2001:db8:ffff::2", 80, nil), 44, wire.ProtoUDP, 0, 0, 8, 0, 0, 0, 1), true},
		{"behind headers that don't end", 1, extension(udp(true, "2001:db8:ffff::2", 80, nil), 60, 60, 99), true},
		{"to an IPv6 group", 1, udp(true, "ff02::1", 4789, nil), true},

		{"to a peer that receives at another port", 0, udp(false, "192.0.2.77", 8472, nil), true},

		{"another port", 0, udp(false, "192.0.2.2", 4790, nil), false},
		{"a peer's port at this host", 0, udp(false, "192.0.2.1", 8472, nil), false},
		{"a first fragment to another port", 0, udp(false, "192.0.2.2", 53, func(b []byte) { b[20] = 0x20 }), false},
		{"another address", 0, udp(false, "192.0.2.3", 4789, nil), false},
		{"a later fragment to another address", 0, udp(false, "192.0.2.3", 80, func(b []byte) { b[21] = 1 }), false},
		{"a later fragment to a group", 0, udp(false, "224.0.0.1", 80, func(b []byte) { b[21] = 1 }), false},
		{"TCP", 0, spec{sport: 1, dport: 4789}.frame(), false},
		{"IPv6 elsewhere", 1, udp(true, "2001:db8::2", 4789, nil), false},
		{"TCP over IPv6", 1, spec{v6: true, dport: 4789}.frame(), false},
		{"ARP", 0, frameOf(golden.Bytes(t, arpRequest)), false},
		{"too short for a header", 0, frameOf(make([]byte, 14)), false},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPair(t, families[c.outer].a, families[c.outer].b)
			p.a.must(p.a.v.SetAddrs([]netip.Addr{netip.MustParseAddr("198.51.100.1")}))
			if c.outer == 0 {
				_, err := p.a.v.AddPeer(PeerConfig{Name: "c", Addr: netip.MustParseAddrPort("192.0.2.77:8472")})
				p.a.must(err)
			}
			port := mem.New(mem.Config{Workers: 1})
			g := p.a.v.Guard(port)
			b := dataplane.NewBatch(0)
			for _, f := range []dataplane.Frame{c.f, small(1, 0)} {
				*b.Next() = f
				b.Add()
			}
			g.Push(b)
			expect(t, "Sel", b.Sel, uint64(3))
			want, wantDrops := 2, ""
			if c.drop {
				want, wantDrops = 1, "underlay-guard=1"
			}
			expect(t, "passed", len(port.Sent(0)), want)
			expect(t, "drops", drops(g.Counters()), wantDrops)
		})
	}
}

// TestTheGuardLetsEverythingIn and is the inner port otherwise.
func TestTheGuardLetsEverythingIn(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	port := mem.New(mem.Config{Workers: 1})
	g := p.a.v.Guard(port)
	port.InjectBytes(0, golden.Bytes(t, arpRequest))
	b := dataplane.NewBatch(0)
	g.Pull(b)
	expect(t, "pulled", b.N, 1)
	expect(t, "inner", g.Inner() == dataplane.Port(port) && g.FD(0) == -1 && g.Close() == nil, true)
}

// FuzzGuard: whatever the bytes, a UDP datagram that a kernel would deliver to
// the VTEP doesn't pass.
func FuzzGuard(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		b := spec{v6: v6, proto: wire.ProtoUDP, dport: 4789, payload: 8}.frame()
		f.Add(b.Bytes())
	}
	p := newPair(f, "192.0.2.1", "192.0.2.2")
	if err := p.a.v.SetAddrs([]netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("2001:db8::2")}); err != nil {
		f.Fatal(err)
	}
	g := p.a.v.Guard(mem.New(mem.Config{Workers: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var flow wire.Flow
		_, ok := wire.ParseFlow(b, &flow)
		end := flow.DstAddr() == netip.MustParseAddr("198.18.0.2") || flow.DstAddr() == netip.MustParseAddr("2001:db8::2")
		forbidden := g.forbids(b, p.a.v.ends.Load())
		if ok && end && flow.Proto() == wire.ProtoUDP && flow.DstPort == 4789 && !forbidden {
			t.Fatalf("% x passes", b)
		}
	})
}

// TestEndsAreFound: every peer among many, and nobody else.
func TestEndsAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	var peers []*Peer
	for range 4000 {
		peers = append(peers, &Peer{addr: addr{r.Uint64(), r.Uint64()}})
	}
	for i := range 100 {
		peers = append(peers, &Peer{addr: v4(0xc0000200 + uint32(i))})
	}
	e := newEnds(peers, []addr{v4(0xc6336401), peers[5].addr}, 4789)
	for _, p := range peers {
		if e.at(p.addr).peer != p {
			t.Fatal("a peer isn't found")
		}
	}
	own := e.at(v4(0xc6336401))
	expect(t, "own", own.used && own.peer == nil, true)
	for range 10000 {
		if e.at(addr{r.Uint64(), r.Uint64()}).used {
			t.Fatal("a stranger is found")
		}
	}
	var tunnels []*Tunnel
	for i := range 3000 {
		tunnels = append(tunnels, &Tunnel{vni: uint32(i*i + 1)})
	}
	routes := newRoutes(tunnels)
	for _, tu := range tunnels {
		if routes.find(tu.vni) != tu {
			t.Fatal("a tunnel isn't found")
		}
	}
	expect(t, "an unknown VNI", routes.find(3) == nil && newRoutes(nil).find(3) == nil, true)
}
