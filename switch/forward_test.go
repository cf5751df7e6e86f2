package vswitch

import (
	"fmt"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func TestUnknownUnicastBroadcastAndMulticastGoToAllOthers(t *testing.T) {
	for name, dst := range map[string]wire.MAC{
		"unknown unicast":   mac(99),
		"broadcast":         wire.Broadcast,
		"IPv4 multicast":    0x01005e000001,
		"IPv6 multicast":    0x333300000001,
		"01-80-c2-00-00-10": 0x0180c2000010,
		"01-80-c2-00-00-ff": 0x0180c20000ff,
	} {
		l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary, Ordinary)
		expect(t, name, l.send(2, dst, mac(2)), ids(1, 3, 4))
		expect(t, name+": drops", l.p[2].allDrops(), 0)
	}
}

func TestKnownUnicastGoesToOnePort(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.send(1, wire.Broadcast, mac(1))
	expect(t, "to station 1", l.send(3, mac(1), mac(3)), ids(1))
	expect(t, "and back", l.send(1, mac(3), mac(1)), ids(3))
}

func TestNeverBackOutOfTheIngress(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	l.send(1, wire.Broadcast, mac(1))
	expect(t, "to a station on the same port", l.send(1, mac(1), mac(11)), ids())
	expect(t, "same-port", l.p[1].drops(dataplane.SamePort), 1)
}

func TestAStationMoveTakesEffectWithTheNextFrame(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.send(1, wire.Broadcast, mac(1))
	// Both frames are in one batch: the first says where the station is now.
	l.net.Push(l.batch(2, frame(wire.Broadcast, mac(1), "moved"), frame(mac(1), mac(2), "there")))
	expect(t, "old port got", l.p[1].take(), []string{"moved"})
	expect(t, "same-port", l.p[2].drops(dataplane.SamePort), 1)
	l.p[3].take()
	expect(t, "to the station", l.send(3, mac(1), mac(3)), ids(2))
	expect(t, "moves", l.net.Stats().Moves, 1)
}

func TestBadAddressesAreDroppedAndNotLearnt(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		want  dataplane.Drop
	}{
		{"empty", nil, dataplane.Runt},
		{"13 bytes", frame(mac(1), mac(2), "")[:13], dataplane.Runt},
		{"C-tag without type", append(header(mac(1), mac(2), 0x8100), 0, 1, 8), dataplane.Runt},
		{"S-tag without type", header(mac(1), mac(2), 0x88a8), dataplane.Runt},
		{"source zero", frame(mac(1), 0, "x"), dataplane.SrcZero},
		{"both zero", frame(0, 0, "x"), dataplane.SrcZero},
		{"source multicast", frame(mac(1), 0x01005e000001, "x"), dataplane.SrcMulticast},
		{"source broadcast", frame(mac(1), wire.Broadcast, "x"), dataplane.SrcMulticast},
		{"both broadcast", frame(wire.Broadcast, wire.Broadcast, "x"), dataplane.SrcMulticast},
		{"source is destination", frame(mac(1), mac(1), "x"), dataplane.SrcIsDst},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
			// Twice in a batch: the second takes the way for equal frames.
			l.net.Push(l.batch(1, tt.frame, tt.frame))
			expect(t, "delivered", l.p[2].take(), []string(nil))
			expect(t, tt.want.String(), l.p[1].drops(tt.want), 2)
			expect(t, "all drops", l.p[1].allDrops(), 2)
			expect(t, "MACs", l.net.Stats().MACs, 0)
		})
	}
}

func TestAnEthernetHeaderAloneIsAFrame(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	expect(t, "14 bytes", l.sendTo(l.net, 1, header(mac(9), mac(1), 0x0800)), ids(2))
	expect(t, "18 bytes with a tag", l.sendTo(l.net, 1, append(header(mac(9), mac(1), 0x8100), 0, 1, 8, 0)), ids(2))
}

func TestReservedAddressesAreNotRelayedButTheirSourceIsLearnt(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	for i := range 16 {
		expect(t, fmt.Sprint(i), l.send(1, wire.MAC(0x0180c2000000+i), mac(1)), ids())
		expect(t, "reserved-mac", l.p[1].drops(dataplane.ReservedMAC), uint64(i+1))
	}
	_, ok := l.net.Lookup(mac(1), 0)
	expect(t, "learnt", ok, true)
}

func TestTagsPassUnchangedAndDoNotDivideTheNetwork(t *testing.T) {
	tagged := func(dst, src wire.MAC, vid byte) []byte {
		return append(header(dst, src, 0x8100), 0, vid, 0x88, 0xb5, vid)
	}
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.net.Push(l.batch(1, tagged(wire.Broadcast, mac(1), 7)))
	expect(t, "tagged frame", l.p[2].take(), []string{"\x00\x07\x88\xb5\x07"})
	l.p[3].take()
	expect(t, "to the same MAC with another tag", l.sendTo(l.net, 2, tagged(mac(1), mac(2), 8)), ids(1))
	expect(t, "and with none", l.send(2, mac(1), mac(2)), ids(1))
}

func TestNobodyElseOnTheNetwork(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary)
	expect(t, "broadcast", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "no-egress", l.p[1].drops(dataplane.NoEgress), 1)
}

func TestFramesNeverCrossNetworks(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	other := l.network(NetworkConfig{})
	l.attach(other, 3, PortConfig{})
	l.attach(other, 4, PortConfig{})
	l.send(1, wire.Broadcast, mac(1))
	expect(t, "to a MAC of another network", l.sendTo(other, 3, frame(mac(1), mac(3), "x")), ids(4))
	expect(t, "the same MAC on the other network", l.sendTo(other, 4, frame(wire.Broadcast, mac(1), "x")), ids(3))
	expect(t, "stays where it was here", l.send(2, mac(1), mac(2)), ids(1))
	expect(t, "moves", l.net.Stats().Moves+other.Stats().Moves, 0)

	// A port's frames handed to a network that it is not on.
	expect(t, "by a strange port", l.sendTo(other, 1, frame(wire.Broadcast, mac(1), "x")), ids())
	expect(t, "strays", l.sw.Strays(), 1)
}

// TestWhoReachesWhom holds unicast and broadcast against the table of roles.
// Ports: 1 and 2 ordinary, 3 and 4 gateways, 5 and 6 tunnels.
func TestWhoReachesWhom(t *testing.T) {
	tests := []struct {
		isolated bool
		in       dataplane.PortID
		want     []dataplane.PortID
	}{
		{false, 1, ids(2, 3, 4, 5, 6)},
		{false, 3, ids(1, 2, 4, 5, 6)},
		{false, 5, ids(1, 2, 3, 4)}, // Split horizon.
		{true, 1, ids(3, 4, 5, 6)},
		{true, 3, ids(1, 2, 4, 5, 6)},
		{true, 5, ids(3, 4)},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("isolated %v from %d", tt.isolated, tt.in), func(t *testing.T) {
			l := newLab(t, 100, NetworkConfig{Isolated: tt.isolated}, Ordinary, Ordinary, Gateway, Gateway, Tunnel, Tunnel)
			for id := range dataplane.PortID(6) {
				l.send(id+1, wire.Broadcast, mac(int(id+1)))
			}
			before := l.p[tt.in].drops(dataplane.Isolated)
			expect(t, "broadcast", l.send(tt.in, wire.Broadcast, mac(int(tt.in))), tt.want)
			var got []dataplane.PortID
			refused := 0
			for id := range dataplane.PortID(6) {
				if id+1 == tt.in {
					continue
				}
				to := l.send(tt.in, mac(int(id+1)), mac(int(tt.in)))
				if len(to) == 0 {
					refused++
				}
				got = append(got, to...)
			}
			expect(t, "unicast", got, tt.want)
			expect(t, "isolated", l.p[tt.in].drops(dataplane.Isolated)-before, uint64(refused))
		})
	}
}

func TestABroadcastThatIsolationKeepsFromAllIsCountedSo(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{Isolated: true}, Ordinary, Ordinary)
	expect(t, "broadcast", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "isolated", l.p[1].drops(dataplane.Isolated), 1)
}

func TestIsolationAndRolesChangeOnALiveNetwork(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	expect(t, "open", l.send(1, wire.Broadcast, mac(1)), ids(2))
	l.must(l.net.Configure(NetworkConfig{Isolated: true}))
	expect(t, "isolated", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "isolated unicast", l.send(2, mac(1), mac(2)), ids())
	l.must(l.net.Configure(NetworkConfig{}))
	expect(t, "open again", l.send(2, mac(1), mac(2)), ids(1))
}

func TestMTUIsTheEgressPortsAffair(t *testing.T) {
	long := func(n int) []byte { return append(header(wire.Broadcast, mac(1), 0x88b5), make([]byte, n)...) }
	tag := []byte{0x81, 0x00, 0, 1}
	tests := []struct {
		name string
		f    []byte
		want []dataplane.PortID
	}{
		{"at the smaller MTU", long(1000), ids(2, 3)},
		{"beyond the smaller", long(1001), ids(3)},
		{"at the larger", long(1500), ids(3)},
		{"beyond both", long(1501), ids()},
		{"a tag is not counted", append(append(long(0)[:12:12], tag...), long(1000)[12:]...), ids(2, 3)},
		{"but what follows is", append(append(long(0)[:12:12], tag...), long(1001)[12:]...), ids(3)},
		{"nor are two", append(append(append(long(0)[:12:12], tag...), tag...), long(1000)[12:]...), ids(2, 3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, 100, NetworkConfig{}, Ordinary)
			l.attach(l.net, 2, PortConfig{MTU: 1000})
			l.attach(l.net, 3, PortConfig{MTU: 1500})
			expect(t, "got", l.sendTo(l.net, 1, tt.f), tt.want)
			drops := l.p[2].drops(dataplane.ExceedsMTU) + l.p[3].drops(dataplane.ExceedsMTU)
			expect(t, "exceeds-mtu at the egress", drops, uint64(2-len(tt.want)))
			expect(t, "drops at the ingress", l.p[1].allDrops(), 0)
		})
	}
}

func TestMTUOfAGSOFrameIsThatOfItsSegments(t *testing.T) {
	// Ethernet, IPv4 (20), TCP (20), 4,000 bytes of payload.
	f := header(wire.Broadcast, mac(1), 0x0800)
	f = append(f, 0x45, 0, 0x0f, 0xc8, 0, 0, 0, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2)
	f = append(f, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5<<4, 0x10, 0xff, 0xff, 0, 0, 0, 0)
	f = append(f, make([]byte, 4000)...)
	for _, tt := range []struct {
		gsoSize uint16
		want    int
	}{{960, 1}, {961, 0}} {
		l := newLab(t, 100, NetworkConfig{}, Ordinary)
		l.attach(l.net, 2, PortConfig{MTU: 1000})
		b := l.batch(1, f)
		b.Frames[0].Owes = wire.VNetHdr{
			Flags: wire.VNetNeedsCsum, GSOType: wire.VNetGSOTCP4, GSOSize: tt.gsoSize, CsumStart: 34, CsumOffset: 16,
		}
		l.net.Push(b)
		expect(t, fmt.Sprintf("GSO size %d on an MTU of 1000", tt.gsoSize), len(l.p[2].take()), tt.want)
		expect(t, "exceeds-mtu", l.p[2].drops(dataplane.ExceedsMTU), uint64(1-tt.want))
	}
}

func TestSetMTUOnALivePort(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	f := append(header(wire.Broadcast, mac(1), 0x88b5), make([]byte, 1400)...)
	expect(t, "without a bound", l.sendTo(l.net, 1, f), ids(2))
	l.must(l.net.SetMTU(2, 1399))
	expect(t, "beyond", l.sendTo(l.net, 1, f), ids())
	l.must(l.net.SetMTU(2, 1400))
	expect(t, "at", l.sendTo(l.net, 1, f), ids(2))
}

func TestSwapPutsAnotherPortInItsPlaceAndKeepsEntries(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	l.send(2, wire.Broadcast, mac(2))
	old, fresh := l.p[2], &fakePort{counters: dataplane.NewCounters(1)}
	l.must(l.net.Swap(2, fresh))
	l.send(1, mac(2), mac(1))
	expect(t, "old port", len(old.take()), 0)
	expect(t, "new port", fresh.take(), []string{"x"})
}

func TestOnlySelectedFramesAreForwardedAndTheBatchIsAsItWas(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	b := l.batch(1,
		frame(wire.Broadcast, mac(1), "0"), frame(wire.Broadcast, mac(1), "1"),
		frame(mac(7), mac(3), "2"), frame(mac(8), mac(3), "3"))
	b.Sel = 0b1010
	l.net.Push(b)
	expect(t, "delivered", l.p[2].take(), []string{"1", "3"})
	expect(t, "Sel", b.Sel, uint64(0b1010))
	expect(t, "N", b.N, 4)
}

func TestEachPortIsPushedToOncePerBatch(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.send(2, wire.Broadcast, mac(2))
	l.send(3, wire.Broadcast, mac(3))
	before2, before3 := l.p[2].pushes, l.p[3].pushes
	l.net.Push(l.batch(1,
		frame(mac(2), mac(1), "a"), frame(mac(3), mac(1), "b"), frame(wire.Broadcast, mac(1), "c"),
		frame(mac(2), mac(1), "d"), frame(mac(9), mac(1), "e")))
	expect(t, "to port 2", l.p[2].take(), []string{"a", "c", "d", "e"})
	expect(t, "to port 3", l.p[3].take(), []string{"b", "c", "e"})
	expect(t, "pushes", []int{l.p[2].pushes - before2, l.p[3].pushes - before3}, []int{1, 1})
}

// A gateway that turns a batch round pushes into the network from its Push.
func TestAPortMayPushFromItsPush(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Gateway, Ordinary)
	l.send(3, wire.Broadcast, mac(3))
	l.send(2, wire.Broadcast, mac(2))
	l.p[1].take()
	l.p[2].take()
	l.p[2].onPush = func(b *dataplane.Batch) {
		l.p[2].onPush = nil
		in := b.In
		b.In = 2
		l.net.Push(b) // The batch itself, as it came.
		b.In = in
		l.net.Push(l.batch(2, frame(mac(3), mac(2), "turned"), frame(mac(77), mac(2), "flooded")))
	}
	l.net.Push(l.batch(1, frame(mac(2), mac(1), "to the gateway"), frame(mac(3), mac(1), "past it"), frame(mac(88), mac(1), "to all")))
	expect(t, "gateway", l.p[2].take(), []string{"to the gateway", "to all"})
	expect(t, "station 3", l.p[3].take(), []string{"to all", "turned", "flooded", "past it", "to all"})
	expect(t, "back at the sender", l.p[1].take(), []string{"to all", "flooded"})
}

func TestAForwardingLoopEnds(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Gateway, Gateway)
	for id := range dataplane.PortID(2) {
		l.p[id+1].onPush = func(b *dataplane.Batch) {
			in := b.In
			b.In = id + 1
			l.net.Push(b)
			b.In = in
		}
	}
	l.net.Push(l.batch(1, frame(wire.Broadcast, mac(1), "x")))
	expect(t, "pushes", l.p[1].pushes+l.p[2].pushes, maxNesting)
	expect(t, "strays", l.sw.Strays(), 1)
}
