package nat

import (
	"errors"
	"net/netip"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

const macStack wire.MAC = 0x02000000dd01

// stacked is a lab whose uplink is shared with the host, which the containers
// reach:
//
//	a, b ═ gw ═ NAT ═╦═ 192.0.2.2 ─ wire
//	                 ╚═ host: 192.0.2.2, 2001:db8:2::2, 192.0.2.99
type stacked struct {
	*lab
	s    *Stack
	host *capture
}

func newStacked(t *testing.T, o options) *stacked {
	t.Helper()
	o.uplink = func(c *UplinkConfig) { c.Mode = Shared }
	l := &stacked{lab: newLab(t, o), host: &capture{counters: dataplane.NewCounters(1)}}
	var err error
	l.s, err = l.n.AddStack(StackConfig{
		Name: "host", MAC: macStack, MTU: 9000, Port: l.host,
		Addresses: []netip.Addr{ext4, ext6, ap("192.0.2.99")},
	})
	l.must(err)
	return l
}

// toHost sends a packet from a container and returns what the host gets.
func (l *stacked) toHost(p pkt) []pkt {
	l.t.Helper()
	l.none(l.out(p))
	return decodeAll(l.t, l.host.take())
}

// fromHost sends a packet from the host and returns what comes into the network
// and what comes back.
func (l *stacked) fromHost(p pkt) (in, back []pkt) {
	l.t.Helper()
	p.dstMAC, p.srcMAC = macStack, macStack
	w, in := l.push(l.s, p.frame())
	expect(l.t, "frames on the wire", len(w), 0)
	return in, decodeAll(l.t, l.host.take())
}

func (l *stacked) hostDrops(want ...dataplane.Drop) {
	l.t.Helper()
	got := l.s.counters.Totals().Drops
	for _, d := range want {
		if got[d] == 0 {
			l.t.Errorf("%s isn't counted", d)
			continue
		}
		got[d]--
	}
	for d, n := range got {
		if n != 0 {
			l.t.Errorf("%s counted %d times too often", dataplane.Drop(d), n)
		}
	}
	l.s.counters = dataplane.NewCounters(1)
}

// TestContainersReachTheHost: at its own addresses, under theirs, and back.
func TestContainersReachTheHost(t *testing.T) {
	l := newStacked(t, options{})
	for _, x := range []struct{ in, host netip.Addr }{{hostA, ext4}, {hostA6, ext6}, {hostA, ap("192.0.2.99")}} {
		echo, reply := uint8(wire.ICMPEcho), uint8(wire.ICMPEchoReply)
		if x.in.Is6() {
			echo, reply = wire.ICMPv6Echo, wire.ICMPv6EchoReply
		}
		for _, p := range []pkt{
			tcpPkt(x.in, 5000, x.host, 22, wire.TCPSyn, 1, 0),
			tcpPkt(x.in, 80, x.host, 40000, wire.TCPSyn|wire.TCPAck, 1, 0),
			udpPkt(x.in, 5000, x.host, 53),
			ping(x.in, x.host, 9, echo),
			ping(x.in, x.host, 9, reply),
		} {
			got := must1(t, l.toHost(p))
			expect(t, "MAC", got.dstMAC, macStack)
			expect(t, "source", got.src, p.src)
			expect(t, "destination", got.dst, p.dst)
			expect(t, "source port", got.sport, p.sport)
			expect(t, "destination port", got.dport, p.dport)
			expect(t, "TTL", got.ttl, 63)
		}
		in, back := l.fromHost(tcpPkt(x.host, 22, x.in, 5000, wire.TCPSyn|wire.TCPAck, 1, 2))
		got := must1(t, in)
		expect(t, "to", got.dst, x.in)
		expect(t, "from", got.src, x.host)
		expect(t, "MAC", got.dstMAC, macA)
		expect(t, "source MAC", got.srcMAC, macGW)
		expect(t, "frames back", len(back), 0)
	}
	if s := l.n.Stats(); s.Conns != 0 {
		t.Errorf("%d connections for what isn't translated", s.Conns)
	}
	l.drops()
	l.hostDrops()
}

// TestHostCantBeShadowed: what is an uplink's at the host's address stays so,
// and nothing else is.
func TestHostCantBeShadowed(t *testing.T) {
	l := newStacked(t, options{})
	l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(8080), hostB, 80)
	w, in := l.out(tcpPkt(hostA, 5000, ext4, 8080, wire.TCPSyn, 1, 0))
	expect(t, "hairpin: frames on the wire", len(w), 0)
	expect(t, "hairpin: to", must1(t, in).dst, hostB)
	expect(t, "hairpin: from", must1(t, in).src, ext4)
	if got := l.toHost(udpPkt(hostA, 5000, ext4, 8080)); len(got) != 1 {
		t.Errorf("UDP port 8080 is the host's, and got %v", got)
	}
	// A port of the range that nobody has been given.
	if got := l.toHost(udpPkt(hostA, 5001, ext4, 65000)); len(got) != 0 {
		t.Errorf("the host got %v at a port of the uplink's", got)
	}
	l.drops(dataplane.Unsolicited)
	// An error about a connection goes on along it, one about none to the host.
	l.outOne(udpPkt(hostA, 6000, far4, 53))
	l.drops()
	inner := udpPkt(ext4, 53, hostA, 7000)
	got := must1(t, l.toHost(errorAbout(hostA, ext4, wire.ICMPUnreachable, 3, inner, 100)))
	expect(t, "error's source", got.src, hostA)
	l.drops()
}

// TestNothingElseComesByTheHost: what the host only forwards, and networks that
// may not reach the world.
func TestNothingElseComesByTheHost(t *testing.T) {
	l := newStacked(t, options{})
	for _, x := range []struct {
		p    pkt
		want []dataplane.Drop
	}{
		{udpPkt(far4, 53, hostA, 5000), []dataplane.Drop{dataplane.SpoofedSource}},
		{udpPkt(ext4, 53, far4, 5000), []dataplane.Drop{dataplane.NotRoutable}},
		{udpPkt(ext4, 53, ap("198.18.0.255"), 5000), []dataplane.Drop{dataplane.NotRoutable}},
		{pkt{src: ext4, dst: hostA, proto: wire.ProtoUDP, sport: 1, dport: 2, ttl: 1}, []dataplane.Drop{dataplane.TTLExpired}},
	} {
		in, _ := l.fromHost(x.p)
		expect(t, "frames inside", len(in), 0)
		l.hostDrops(x.want...)
	}
	in, back := l.fromHost(ping(ext4, gw4, 3, wire.ICMPEcho))
	expect(t, "frames inside", len(in), 0)
	expect(t, "the gateway's answer", must1(t, back).icmpType, wire.ICMPEchoReply)
	// Another network without a masquerade, and the masquerade taken away.
	bare := newStacked(t, options{noMasq: true})
	if got := bare.toHost(udpPkt(hostA, 5000, ext4, 53)); len(got) != 0 {
		t.Errorf("a network without a masquerade reaches the host: %v", got)
	}
	bare.drops(dataplane.Isolated)
	in, _ = bare.fromHost(udpPkt(ext4, 53, hostA, 5000))
	expect(t, "frames inside", len(in), 0)
	bare.hostDrops(dataplane.Isolated)
}

// TestFragmentsToTheHost: in any order, as they are.
func TestFragmentsToTheHost(t *testing.T) {
	l := newStacked(t, options{})
	p := udpPkt(hostA, 5000, ext4, 53)
	p.payload = make([]byte, 3000)
	fs := cut(p, 77, 1000)
	n := 0
	for _, i := range []int{1, 0, 3, 2} {
		n += len(l.toHost(fs[i]))
	}
	expect(t, "fragments", n, 4)
	p = udpPkt(ext4, 53, hostA, 5000)
	p.payload = make([]byte, 3000)
	for _, f := range cut(p, 78, 1000) {
		in, _ := l.fromHost(f)
		must1(t, in)
	}
	l.drops()
	l.hostDrops()
}

func TestStackIsRefused(t *testing.T) {
	l := newStacked(t, options{})
	c := StackConfig{Name: "two", MAC: macStack, MTU: 1500, Port: l.host}
	if _, err := l.n.AddStack(c); !errors.Is(err, ErrInUse) {
		t.Errorf("a second way to the host: %v", err)
	}
	if err := l.s.SetAddresses([]netip.Addr{ap("127.0.0.1")}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a loopback address: %v", err)
	}
	l.must(l.s.SetAddresses([]netip.Addr{ext6}))
	if got := l.toHost(udpPkt(hostA, 5000, ext4, 53)); len(got) != 0 {
		t.Errorf("at an address that it hasn't any more the host got %v", got)
	}
	l.must(l.n.RemoveStack(l.s))
	if err := l.n.RemoveStack(l.s); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	if got := l.toHost(udpPkt(hostA6, 5000, ext6, 53)); len(got) != 0 {
		t.Errorf("after its removal the host got %v", got)
	}
	c.Port = nil
	if _, err := l.n.AddStack(c); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a port: %v", err)
	}
}
