package nat

import (
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func expect[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestMasqueradeOutAndBack(t *testing.T) {
	for _, tt := range []struct {
		name      string
		src, ext  netip.Addr
		dst       netip.Addr
		proto     uint8
		out, back uint8 // ICMP types.
	}{
		{"UDP over IPv4", hostA, ext4, far4, wire.ProtoUDP, 0, 0},
		{"TCP over IPv4", hostA, ext4, far4, wire.ProtoTCP, 0, 0},
		{"ping over IPv4", hostA, ext4, far4, wire.ProtoICMP, wire.ICMPEcho, wire.ICMPEchoReply},
		{"UDP over IPv6", hostA6, ext6, far6, wire.ProtoUDP, 0, 0},
		{"TCP over IPv6", hostA6, ext6, far6, wire.ProtoTCP, 0, 0},
		{"ping over IPv6", hostA6, ext6, far6, wire.ProtoICMPv6, wire.ICMPv6Echo, wire.ICMPv6EchoReply},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, options{})
			p := pkt{src: tt.src, dst: tt.dst, sport: 5000, dport: 80, proto: tt.proto, icmpType: tt.out, payload: []byte("hello")}
			p.flags, p.win = wire.TCPSyn, 1000
			got := l.outOne(p)
			expect(t, "source", got.src, tt.ext)
			expect(t, "destination", got.dst, tt.dst)
			expect(t, "source port", got.sport, 5000)
			expect(t, "TTL", got.ttl, 63)
			expect(t, "next hop", got.dstMAC, macRouter)
			expect(t, "from", got.srcMAC, macUp)
			expect(t, "payload", string(got.payload), "hello")

			r := pkt{src: tt.dst, dst: tt.ext, sport: got.dport, dport: got.sport, proto: tt.proto, icmpType: tt.back, payload: []byte("there")}
			r.flags, r.win, r.seq, r.ack = wire.TCPSyn|wire.TCPAck, 1000, 77, p.seq+1+5
			if tt.out != 0 {
				r.sport = got.sport
			}
			in := l.backOne(r)
			expect(t, "reply's source", in.src, tt.dst)
			expect(t, "reply's destination", in.dst, tt.src)
			expect(t, "reply's TTL", in.ttl, 63)
			expect(t, "reply's MAC", in.dstMAC, macA)
			expect(t, "reply from", in.srcMAC, macGW)
			if tt.out == 0 {
				expect(t, "reply's port", in.dport, 5000)
			} else {
				expect(t, "reply's identifier", in.sport, 5000)
			}
			l.drops()
		})
	}
}

func TestRFC4787REQ1EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, options{})
	a := l.outOne(udpPkt(hostA, 5000, far4, 53))
	b := l.outOne(udpPkt(hostB, 5000, far4, 53)) // A collision: b gets another port.
	if a.sport != 5000 || b.sport == 5000 {
		t.Fatalf("ports %d and %d", a.sport, b.sport)
	}
	for _, dst := range []netip.Addr{far4, far4b} {
		for _, port := range []uint16{53, 54} {
			expect(t, "a's port", l.outOne(udpPkt(hostA, 5000, dst, port)).sport, a.sport)
			expect(t, "b's port", l.outOne(udpPkt(hostB, 5000, dst, port)).sport, b.sport)
		}
	}
	expect(t, "another port", l.outOne(udpPkt(hostA, 5001, far4, 53)).sport, 5001)
}

func TestRFC4787REQ2PairedPooling(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) {
		for i := range 16 {
			c.Addresses = append(c.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + i)}), 24))
		}
	}})
	used := map[netip.Addr]bool{}
	for h := range byte(32) {
		src := netip.AddrFrom4([4]byte{198, 18, 0, 20 + h})
		first := l.outOne(udpPkt(src, 1000, far4, 53))
		used[first.src] = true
		for port := range uint16(8) {
			p := l.outOne(udpPkt(src, 2000+port, far4, 53))
			expect(t, "external address", p.src, first.src)
			q := l.outOne(ping(src, far4, 3000+port, wire.ICMPEcho))
			expect(t, "external address of a ping", q.src, first.src)
		}
	}
	if len(used) < 5 {
		t.Errorf("32 hosts use %d of 17 addresses", len(used))
	}
}

func TestRFC4787REQ3NoOverloading(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.Ports = PortRange{2000, 2003} }, config: Config{HostPorts: 100}})
	seen := map[uint16]bool{}
	for i := range uint16(4) {
		p := l.outOne(udpPkt(hostA, 2001+i%2, far4, 100+i))
		q := l.outOne(udpPkt(hostB, 2001+i%2, far4, 100+i))
		seen[p.sport], seen[q.sport] = true, true
	}
	expect(t, "ports", len(seen), 4)
	l.drops()
	w, in := l.out(udpPkt(hostA, 3000, far4, 53))
	if len(w) != 0 || len(in) != 1 || in[0].icmpType != wire.ICMPUnreachable || in[0].code != 13 {
		t.Errorf("without a port: %v %v, want ICMP 3/13", w, in)
	}
	l.drops(dataplane.NoFreePort)
}

func TestAddressAndPortDependentMappingSharesPorts(t *testing.T) {
	l := newLab(t, options{
		uplink: func(c *UplinkConfig) { c.Ports = PortRange{2000, 2000} },
		masq:   func(c *MasqueradeConfig) { c.DependentMapping = true },
		config: Config{HostPorts: 100},
	})
	expect(t, "a to 53", l.outOne(udpPkt(hostA, 5000, far4, 53)).sport, 2000)
	expect(t, "b to 54", l.outOne(udpPkt(hostB, 5000, far4, 54)).sport, 2000)
	w, _ := l.out(udpPkt(hostB, 5000, far4, 53))
	if len(w) != 0 {
		t.Errorf("two endpoints have one port to one destination: %v", w)
	}
	expect(t, "back to a", l.backOne(udpPkt(far4, 53, ext4, 2000)).dst, hostA)
	expect(t, "back to b", l.backOne(udpPkt(far4, 54, ext4, 2000)).dst, hostB)
}

func TestRFC4787REQ5LifetimesOfUDP(t *testing.T) {
	for _, tt := range []struct {
		name     string
		reply    bool
		lifetime time.Duration
	}{{"one way", false, 30 * time.Second}, {"both ways", true, 300 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, options{})
			l.outOne(udpPkt(hostA, 5000, far4, 53))
			if tt.reply {
				l.backOne(udpPkt(far4, 53, ext4, 5000))
			}
			l.now += tt.lifetime
			l.backOne(udpPkt(far4, 53, ext4, 5000)) // Not early. It is a reply: 300 s from the last outbound on.
			l.now += 300*time.Second - tt.lifetime + 500*time.Millisecond
			l.none(l.back(udpPkt(far4, 53, ext4, 5000)))
			l.drops(dataplane.Unsolicited)
		})
	}
}

func TestRFC4787REQ6OnlyOutboundRefreshes(t *testing.T) {
	l := newLab(t, options{})
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.backOne(udpPkt(far4, 53, ext4, 5000))
	for range 5 {
		l.now += 59 * time.Second
		l.backOne(udpPkt(far4, 53, ext4, 5000))
	}
	l.now += 6 * time.Second
	l.none(l.back(udpPkt(far4, 53, ext4, 5000)))

	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.backOne(udpPkt(far4, 53, ext4, 5000))
	for range 5 {
		l.now += 200 * time.Second
		l.outOne(udpPkt(hostA, 5000, far4, 53))
	}
	l.now += 200 * time.Second
	l.backOne(udpPkt(far4, 53, ext4, 5000))
}

func TestRFC4787REQ8FilteringAddressAndPortDependent(t *testing.T) {
	l := newLab(t, options{})
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.none(l.back(udpPkt(far4, 54, ext4, 5000)))
	l.none(l.back(udpPkt(far4b, 53, ext4, 5000)))
	l.none(l.back(udpPkt(far4, 53, ext4, 5001)))
	l.drops(dataplane.Unsolicited, dataplane.Unsolicited, dataplane.Unsolicited)
	l.backOne(udpPkt(far4, 53, ext4, 5000))
}

func TestRFC4787REQ8FilteringEndpointIndependent(t *testing.T) {
	l := newLab(t, options{masq: func(c *MasqueradeConfig) { c.OpenFiltering = true }})
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	p := l.backOne(udpPkt(far4b, 99, ext4, 5000))
	expect(t, "destination", p.dst, hostA)
	expect(t, "port", p.dport, 5000)
	expect(t, "source", p.src, far4b)
	r := l.outOne(udpPkt(hostA, 5000, far4b, 99))
	expect(t, "answer's port", r.sport, 5000)
	l.none(l.back(udpPkt(far4b, 99, ext4, 5001)))
}

func TestRFC4787REQ9Hairpinning(t *testing.T) {
	l := newLab(t, options{masq: func(c *MasqueradeConfig) { c.OpenFiltering = true }})
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.outOne(udpPkt(hostB, 5000, far4, 53))
	xa := uint16(5000)
	w, in := l.out(udpPkt(hostB, 5000, ext4, xa))
	if len(w) != 0 {
		t.Fatalf("hairpin went to the wire: %v", w)
	}
	p := must1(t, in)
	expect(t, "source is the external address", p.src, ext4)
	expect(t, "destination", p.dst, hostA)
	expect(t, "port", p.dport, 5000)
	expect(t, "TTL", p.ttl, 63)
	expect(t, "MAC", p.dstMAC, macA)
	w, in = l.out(udpPkt(hostA, 5000, ext4, p.sport))
	if len(w) != 0 {
		t.Fatalf("hairpin went to the wire: %v", w)
	}
	p = must1(t, in)
	expect(t, "answer's source", p.src, ext4)
	expect(t, "answer's source port", p.sport, xa)
	expect(t, "answer's destination", p.dst, hostB)
}

// TestHairpinIsFilteredAsFromOutside: with the default filter a container that
// was mapped is reached by another only from where it has sent to itself, which
// is the other's external endpoint.
func TestHairpinIsFilteredAsFromOutside(t *testing.T) {
	l := newLab(t, options{})
	xa, xb := l.outOne(udpPkt(hostA, 5000, far4, 53)).sport, l.outOne(udpPkt(hostB, 5000, far4, 53)).sport
	l.none(l.out(udpPkt(hostB, 5000, ext4, xa)))
	l.drops(dataplane.Unsolicited)
	// The other has been sent to by then: both holes are there.
	_, in := l.out(udpPkt(hostA, 5000, ext4, xb))
	p := must1(t, in)
	expect(t, "to", p.dst, hostB)
	expect(t, "from", netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(ext4, xa))
	_, in = l.out(udpPkt(hostB, 5000, ext4, xa))
	expect(t, "to the first", must1(t, in).dst, hostA)
	l.drops()
}

func TestRFC5508REQ2QueryLifetime(t *testing.T) {
	l := newLab(t, options{})
	l.outOne(ping(hostA, far4, 7, wire.ICMPEcho))
	l.now += 60 * time.Second
	id := uint16(7)
	r := ping(far4, ext4, id, wire.ICMPEchoReply)
	// Identifier 7 is outside of the pool of 1024-65535: a is mapped.
	l.none(l.back(r))
	l.drops(dataplane.Unsolicited)
	out := l.outOne(ping(hostA, far4, 7000, wire.ICMPEcho))
	expect(t, "identifier", out.sport, 7000)
	l.now += 60 * time.Second
	expect(t, "identifier of the reply", l.backOne(ping(far4, ext4, 7000, wire.ICMPEchoReply)).sport, 7000)
	l.now += 500 * time.Millisecond
	l.none(l.back(ping(far4, ext4, 7000, wire.ICMPEchoReply)))
	l.drops(dataplane.Unsolicited)
}
