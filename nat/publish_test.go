package nat

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func (l *lab) publish(name string, proto uint8, listen netip.Addr, ports PortRange, to netip.Addr, first uint16) (RuleID, error) {
	return l.n.Publish(PublicationConfig{
		Name: name, Uplink: l.up, Proto: proto, Listen: listen, Ports: ports,
		Gateway: l.gw, To: to, ToPorts: PortRange{first, first + ports.Last - ports.First},
	})
}

func (l *lab) mustPublish(name string, proto uint8, listen netip.Addr, ports PortRange, to netip.Addr, first uint16) RuleID {
	l.t.Helper()
	id, err := l.publish(name, proto, listen, ports, to, first)
	l.must(err)
	return id
}

func one(p uint16) PortRange { return PortRange{p, p} }

func TestPublicationKeepsTheClientsAddress(t *testing.T) {
	for _, tt := range []struct {
		name        string
		proto       uint8
		client, ext netip.Addr
		to          netip.Addr
	}{
		{"TCP over IPv4", wire.ProtoTCP, far4, ext4, hostA},
		{"UDP over IPv4", wire.ProtoUDP, far4, ext4, hostA},
		{"SCTP over IPv4", wire.ProtoSCTP, far4, ext4, hostA},
		{"TCP over IPv6", wire.ProtoTCP, far6, ext6, hostA6},
		{"UDP over IPv6", wire.ProtoUDP, far6, ext6, hostA6},
		{"SCTP over IPv6", wire.ProtoSCTP, far6, ext6, hostA6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, options{})
			id := l.mustPublish("web", tt.proto, netip.Addr{}, one(8080), tt.to, 80)
			p := pkt{src: tt.client, dst: tt.ext, sport: 40000, dport: 8080, proto: tt.proto, flags: wire.TCPSyn, win: 1000}
			p.sctp = initChunk(sctpInit, 111)
			if tt.proto != wire.ProtoTCP {
				p.flags = 0
			}
			in := l.backOne(p)
			expect(t, "source", in.src, tt.client)
			expect(t, "source port", in.sport, 40000)
			expect(t, "destination", in.dst, tt.to)
			expect(t, "port", in.dport, 80)
			r := pkt{src: tt.to, dst: tt.client, sport: 80, dport: 40000, proto: tt.proto, win: 1000}
			if tt.proto == wire.ProtoTCP {
				r.flags, r.ack = wire.TCPSyn|wire.TCPAck, 1
			}
			r.seq, r.sctp = 111*uint32(tt.proto/wire.ProtoSCTP), initChunk(sctpInitAck, 222)
			out := l.outOne(r)
			expect(t, "answer's source", out.src, tt.ext)
			expect(t, "answer's port", out.sport, 8080)
			expect(t, "answer's destination", out.dst, tt.client)
			expect(t, "hits", l.n.Hits(id), 1)
			l.drops()
		})
	}
}

func initChunk(typ byte, tag uint32) []byte {
	return []byte{typ, 0, 0, 20, byte(tag >> 24), byte(tag >> 16), byte(tag >> 8), byte(tag), 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1}
}

func TestPublicationRanges(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("range", wire.ProtoUDP, netip.Addr{}, PortRange{1000, 20000}, hostA, 2000)
	for _, port := range []uint16{1000, 1001, 15000, 20000} {
		expect(t, "port", l.backOne(udpPkt(far4, 9, ext4, port)).dport, port+1000)
	}
	l.none(l.back(udpPkt(far4, 9, ext4, 999)))
	l.none(l.back(udpPkt(far4, 9, ext4, 20001)))
	l.none(l.back(tcpPkt(far4, 9, ext4, 1000, wire.TCPSyn, 1, 0)))
	l.drops(dataplane.Unsolicited, dataplane.Unsolicited, dataplane.Unsolicited)
}

func TestPublicationMostSpecificWins(t *testing.T) {
	other := ap("192.0.2.3")
	l := newLab(t, options{uplink: func(c *UplinkConfig) {
		c.Addresses = append(c.Addresses, netip.PrefixFrom(other, 24))
	}})
	narrow := l.mustPublish("narrow", wire.ProtoUDP, netip.Addr{}, one(1050), hostB, 1)
	l.mustPublish("wide", wire.ProtoUDP, netip.Addr{}, PortRange{1000, 1100}, hostA, 1000)
	addressed := l.mustPublish("addressed", wire.ProtoUDP, other, PortRange{1040, 1060}, hostA, 3040)
	expect(t, "wide", l.backOne(udpPkt(far4, 9, ext4, 1049)).dst, hostA)
	expect(t, "narrow", l.backOne(udpPkt(far4, 9, ext4, 1050)).dst, hostB)
	expect(t, "addressed", l.backOne(udpPkt(far4, 9, other, 1050)).dport, 3050)
	expect(t, "wide at the other", l.backOne(udpPkt(far4, 9, other, 1061)).dport, 1061)
	l.must(l.n.RemoveRule(addressed))
	expect(t, "narrow at the other", l.backOne(udpPkt(far4, 10, other, 1050)).dst, hostB)
	l.must(l.n.RemoveRule(narrow))
	expect(t, "wide again", l.backOne(udpPkt(far4, 11, other, 1050)).dst, hostA)
}

func TestPublicationsThatAreRefused(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("first", wire.ProtoTCP, netip.Addr{}, PortRange{1000, 1010}, hostA, 1000)
	for _, tt := range []struct {
		name   string
		proto  uint8
		listen netip.Addr
		ports  PortRange
		to     netip.Addr
		first  uint16
		want   error
	}{
		{"duplicate", wire.ProtoTCP, netip.Addr{}, PortRange{1000, 1010}, hostB, 1, ErrInUse},
		{"crossing", wire.ProtoTCP, netip.Addr{}, PortRange{1005, 1015}, hostB, 1, ErrInUse},
		{"port 0", wire.ProtoTCP, netip.Addr{}, PortRange{0, 3}, hostB, 1, ErrInvalid},
		{"backwards", wire.ProtoTCP, netip.Addr{}, PortRange{3, 2}, hostB, 1, ErrInvalid},
		{"ICMP", wire.ProtoICMP, netip.Addr{}, one(1), hostB, 1, ErrInvalid},
		{"outside of the network", wire.ProtoTCP, netip.Addr{}, one(1), far4, 1, ErrInvalid},
		{"to the gateway", wire.ProtoTCP, netip.Addr{}, one(1), gw4, 1, ErrInvalid},
		{"not the uplink's", wire.ProtoTCP, far4, one(1), hostB, 1, ErrUnknown},
		{"two families", wire.ProtoTCP, ext4, one(1), hostB6, 1, ErrInvalid},
		{"nobody", wire.ProtoTCP, ext4, one(1), netip.Addr{}, 1, ErrInvalid},
	} {
		_, err := l.publish(tt.name, tt.proto, tt.listen, tt.ports, tt.to, tt.first)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if errors.Is(tt.want, ErrInUse) && !strings.Contains(err.Error(), "first") {
			t.Errorf("%s: %v doesn't name the owner", tt.name, err)
		}
	}
	_, err := l.n.Publish(PublicationConfig{Name: "unequal", Uplink: l.up, Proto: wire.ProtoTCP, Ports: PortRange{1, 2}, Gateway: l.gw, To: hostA, ToPorts: PortRange{1, 3}})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("unequal ranges: %v", err)
	}
	// Another family or protocol is another publication.
	l.mustPublish("six", wire.ProtoTCP, netip.Addr{}, PortRange{1000, 1010}, hostA6, 1000)
	l.mustPublish("udp", wire.ProtoUDP, netip.Addr{}, PortRange{1000, 1010}, hostA, 1000)
}

func TestRemovingAPublicationEndsItsFlows(t *testing.T) {
	l := newLab(t, options{})
	id := l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(53), hostA, 53)
	l.backOne(udpPkt(far4, 9, ext4, 53))
	l.outOne(udpPkt(hostA, 53, far4, 9))
	l.must(l.n.RemoveRule(id))
	expect(t, "connections", l.n.Stats().Conns, 0)
	l.none(l.back(udpPkt(far4, 9, ext4, 53)))
	l.drops(dataplane.Unsolicited)
	if err := l.n.RemoveRule(id); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestRemovalEndsBothHalvesOfAHairpin(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(l *lab, id RuleID)
	}{
		{"publication", func(l *lab, id RuleID) { l.must(l.n.RemoveRule(id)) }},
		{"who is reached", func(l *lab, _ RuleID) { expect(l.t, "ended", l.n.RemoveHost(l.gw, hostB), 2) }},
		{"who reaches", func(l *lab, _ RuleID) { expect(l.t, "ended", l.n.RemoveHost(l.gw, hostA), 2) }},
		{"a flush", func(l *lab, _ RuleID) { expect(l.t, "ended", l.n.Flush(Filter{Dst: ext4}), 2) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, options{})
			id := l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(8080), hostB, 80)
			l.out(tcpPkt(hostA, 5000, ext4, 8080, syn, 10, 0))
			expect(t, "connections", l.n.Stats().Conns, 2)
			tt.end(l, id)
			expect(t, "connections after", l.n.Stats().Conns, 0)
		})
	}
	// A container that talks to its own mapping is both halves.
	l := newLab(t, options{})
	l.out(udpPkt(hostA, 5000, ext4, 5000))
	expect(t, "ended", l.n.Flush(Filter{}), 1)
	expect(t, "connections after", l.n.Stats().Conns, 0)
}

func TestPublicationHairpin(t *testing.T) {
	for _, masq := range []bool{true, false} {
		l := newLab(t, options{noMasq: !masq})
		l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(8080), hostB, 80)
		// From a to the external address: b sees the external address.
		w, in := l.out(tcpPkt(hostA, 5000, ext4, 8080, wire.TCPSyn, 10, 0))
		if len(w) != 0 {
			t.Fatalf("hairpin went to the wire")
		}
		p := must1(t, in)
		expect(t, "source", p.src, ext4)
		expect(t, "destination", p.dst, hostB)
		expect(t, "port", p.dport, 80)
		_, in = l.out(tcpPkt(hostB, 80, ext4, p.sport, wire.TCPSyn|wire.TCPAck, 20, 11))
		p = must1(t, in)
		expect(t, "answer's source", p.src, ext4)
		expect(t, "answer's source port", p.sport, 8080)
		expect(t, "answer's destination", p.dst, hostA)
		expect(t, "answer's port", p.dport, 5000)
		// The container that is published reaches itself, too.
		_, in = l.out(tcpPkt(hostB, 6000, ext4, 8080, wire.TCPSyn, 10, 0))
		p = must1(t, in)
		expect(t, "itself", p.dst, hostB)
		l.drops()
	}
}

func TestPublishedPortIsNobodysMapping(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("web", wire.ProtoUDP, netip.Addr{}, one(5000), hostB, 80)
	if p := l.outOne(udpPkt(hostA, 5000, far4, 53)); p.sport == 5000 {
		t.Errorf("a container got a published port")
	}
}

func TestNothingPassesBetweenNetworks(t *testing.T) {
	l := newLab(t, options{})
	second := &capture{counters: dataplane.NewCounters(1)}
	_, err := l.n.AddGateway(GatewayConfig{
		Name: "second", MAC: macGW + 1, Addresses: []netip.Prefix{pp("198.18.1.1/24"), pp("2001:db8:7::1/64")},
		MTU: 1500, Network: second, Port: 9,
	})
	l.must(err)
	l.none(l.out(udpPkt(hostA, 1, ap("198.18.1.10"), 1)))
	l.none(l.out(udpPkt(hostA, 1, ap("198.18.1.1"), 1)))
	l.none(l.out(udpPkt(hostA6, 1, ap("2001:db8:7::a"), 1)))
	l.drops(dataplane.Isolated, dataplane.Isolated, dataplane.Isolated)
	expect(t, "frames in the second network", len(second.got), 0)
}

// TestNetworksWithTheSameSubnet: each is a world of its own, also where their
// containers have the same address and port.
func TestNetworksWithTheSameSubnet(t *testing.T) {
	l := newStacked(t, options{})
	net2 := &capture{counters: dataplane.NewCounters(1)}
	gw2, err := l.n.AddGateway(GatewayConfig{
		Name: "second", MAC: macGW + 1, Addresses: []netip.Prefix{pp("198.18.0.1/24")}, MTU: 1500, Network: net2, Port: 9,
	})
	l.must(err)
	l.must(gw2.SetNeighbour(hostA, macB))
	_, err = l.n.AddMasquerade(MasqueradeConfig{Name: "masq2", Gateway: gw2, Uplink: l.up})
	l.must(err)
	out2 := func(p pkt) []pkt {
		p.dstMAC, p.srcMAC = macGW+1, macB
		w, _ := l.push(gw2, p.frame())
		return w
	}
	first := l.outOne(udpPkt(hostA, 61000, far4, 53))
	second := must1(t, out2(udpPkt(hostA, 61000, far4, 53)))
	if first.sport == second.sport {
		t.Fatalf("both networks got port %d", first.sport)
	}
	expect(t, "first's MAC", l.backOne(udpPkt(far4, 53, ext4, first.sport)).dstMAC, macA)
	l.none(l.back(udpPkt(far4, 53, ext4, second.sport)))
	expect(t, "second's MAC", must1(t, decodeAll(t, net2.take())).dstMAC, macB)
	// The host has one way to an address: to the first.
	must1(t, l.toHost(udpPkt(hostA, 5000, ext4, 53)))
	out2(udpPkt(hostA, 5000, ext4, 53))
	expect(t, "the second's frames to the host", len(l.host.take()), 0)
	in, _ := l.fromHost(udpPkt(ext4, 53, hostA, 5000))
	expect(t, "the host's frames to the first", len(in), 1)
	l.drops()
	l.must(l.n.RemoveRule(RuleID(l.gw.masquerade.rule)))
	out2(udpPkt(hostA, 5000, ext4, 53))
	expect(t, "the second's frames to the host now", len(l.host.take()), 1)
}

func TestSharedUplinkLeavesTheHostAlone(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.Mode = Shared; c.Addresses = c.Addresses[:1]; c.NextHop6 = netip.Addr{} }})
	l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(8080), hostA, 80)
	p := l.outOne(udpPkt(hostA, 5000, far4, 53))
	if p.sport < 61000 {
		t.Errorf("port %d is the host's", p.sport)
	}
	l.backOne(udpPkt(far4, 53, ext4, p.sport))
	l.backOne(tcpPkt(far4, 53, ext4, 8080, wire.TCPSyn, 1, 0))
	l.drops()
	// All of this is the host's affair: silence, and nothing counted.
	l.none(l.back(udpPkt(far4, 53, ext4, 5353)))
	l.none(l.back(tcpPkt(far4, 53, ext4, 22, wire.TCPSyn, 1, 0)))
	l.none(l.back(ping(far4, ext4, 1, wire.ICMPEcho)))
	l.none(l.back(ping(far4, ext4, 1, wire.ICMPEchoReply)))
	l.none(l.back(pkt{src: far4, dst: ext4, proto: 47, payload: make([]byte, 20)}))
	l.none(l.push(l.up, arpFrame4(wire.Broadcast, macRouter, wire.ARPRequest, router, 0, ext4)))
	l.drops()
	// This isn't.
	l.none(l.back(udpPkt(far4, 99, ext4, p.sport)))
	l.drops(dataplane.Unsolicited)
	o := l.up.Owned(wire.ProtoTCP)
	for _, x := range []struct {
		port uint16
		want bool
	}{{22, false}, {8080, true}, {60999, false}, {61000, true}, {65535, true}} {
		expect(t, "owned", o[x.port/64]>>(x.port%64)&1 != 0, x.want)
	}
}

func arpFrame4(dst, src wire.MAC, op uint16, sender netip.Addr, targetMAC wire.MAC, target netip.Addr) sent {
	b := make([]byte, arpFrame)
	setMACs(b, dst, src)
	b[12], b[13] = 8, 6
	a := (*wire.ARPPacket)(b[14:])
	a.Init(op)
	a.SetSender(src, addrOf(sender).addr4())
	a.SetTarget(targetMAC, addrOf(target).addr4())
	return sent{data: b}
}
