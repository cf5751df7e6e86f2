package nat

import (
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// errorAbout makes an ICMP error that carries the first n bytes of a packet.
func errorAbout(src, dst netip.Addr, typ, code uint8, about pkt, n int) pkt {
	e := pkt{src: src, dst: dst, proto: wire.ProtoICMP, icmpType: typ, code: code, word: 1200}
	if src.Is6() {
		e.proto = wire.ProtoICMPv6
	}
	b := about.frame().data[14:]
	e.payload = b[:min(n, len(b))]
	return e
}

func TestRFC5508REQ4ErrorsFromOutside(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		src, dst, ext, reporter netip.Addr
		proto                   uint8
		typ, code               uint8
		n                       int
	}{
		{"UDP unreachable", hostA, far4, ext4, far4, wire.ProtoUDP, 3, 3, 1000},
		{"UDP from a router", hostA, far4, ext4, router, wire.ProtoUDP, 11, 0, 1000},
		{"TCP too big", hostA, far4, ext4, router, wire.ProtoTCP, 3, 4, 1000},
		{"TCP, 8 bytes of it", hostA, far4, ext4, router, wire.ProtoTCP, 3, 4, 28},
		{"ping", hostA, far4, ext4, router, wire.ProtoICMP, 11, 0, 1000},
		{"UDP over IPv6", hostA6, far6, ext6, far6, wire.ProtoUDP, 1, 4, 1000},
		{"TCP over IPv6", hostA6, far6, ext6, ap("2001:db8:2::1"), wire.ProtoTCP, 2, 0, 1000},
		{"ping over IPv6", hostA6, far6, ext6, ap("2001:db8:2::1"), wire.ProtoICMPv6, 3, 0, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, options{})
			l.outOne(udpPkt(hostB, 5000, far4, 99)) // Takes port 5000 first.
			p := pkt{src: tt.src, dst: tt.dst, sport: 5000, dport: 80, proto: tt.proto, payload: []byte("question")}
			p.flags, p.icmpType = syn, wire.ICMPEcho
			if tt.src.Is6() {
				p.icmpType = wire.ICMPv6Echo
			}
			seen := l.outOne(p)
			e := errorAbout(tt.reporter, tt.ext, tt.typ, tt.code, seen, tt.n)
			got := l.backOne(e)
			expect(t, "type", got.icmpType, tt.typ)
			expect(t, "code", got.code, tt.code)
			expect(t, "second word", got.word, 1200)
			expect(t, "source", got.src, tt.reporter)
			expect(t, "destination", got.dst, tt.src)
			if tt.n > 100 {
				in := got.embedded(t) // Which checks its checksums.
				expect(t, "inner source", in.src, tt.src)
				expect(t, "inner port", in.sport, 5000)
				expect(t, "inner destination", in.dst, tt.dst)
			} else {
				expect(t, "inner port", [2]byte(got.payload[20:]), [2]byte{5000 >> 8, 5000 & 0xff})
			}
			l.drops()
		})
	}
}

func TestRFC5508REQ5ErrorsFromInside(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(5353), hostA, 53)
	l.mustPublish("dns6", wire.ProtoUDP, netip.Addr{}, one(5353), hostA6, 53)
	for _, x := range []struct{ client, ext, host netip.Addr }{{far4, ext4, hostA}, {far6, ext6, hostA6}} {
		asked := l.backOne(udpPkt(x.client, 7777, x.ext, 5353))
		typ, code := uint8(3), uint8(3)
		if x.client.Is6() {
			typ, code = 1, 4
		}
		got := l.outOne(errorAbout(x.host, x.client, typ, code, asked, 1000))
		expect(t, "source", got.src, x.ext)
		expect(t, "destination", got.dst, x.client)
		in := got.embedded(t)
		expect(t, "inner source", in.src, x.client)
		expect(t, "inner destination", in.dst, x.ext)
		expect(t, "inner port", in.dport, 5353)
	}
	l.drops()
}

func TestRFC5508REQ3ErrorsThatAreDropped(t *testing.T) {
	l := newLab(t, options{})
	seen := l.outOne(udpPkt(hostA, 5000, far4, 80))
	e := errorAbout(far4, ext4, 3, 3, seen, 1000)
	e.dstMAC, e.srcMAC = macUp, macRouter
	f := e.frame()
	f.data[14+20+2]++
	l.none(l.push(l.up, f))
	l.drops(dataplane.BadChecksum)

	seen.raw = nil
	other := seen
	other.dport = 81
	l.none(l.back(errorAbout(far4, ext4, 3, 3, other, 1000)))
	l.drops(dataplane.ICMPNoConn)
	forged := seen
	forged.src = far4b
	l.none(l.back(errorAbout(far4, ext4, 3, 3, forged, 1000)))
	l.drops(dataplane.ICMPNoConn)
	l.none(l.back(errorAbout(far4, ext4, 3, 3, seen, 24)))
	l.drops(dataplane.BadPacket)
	l.none(l.out(errorAbout(hostA, far4, 3, 3, udpPkt(far4, 1, hostA, 2), 1000)))
	l.drops(dataplane.ICMPNoConn)
}

func TestRFC5508REQ6ErrorsNeitherRefreshNorEnd(t *testing.T) {
	l := newLab(t, options{})
	seen := l.outOne(udpPkt(hostA, 5000, far4, 80))
	for range 3 {
		l.now += 10 * time.Second
		l.backOne(errorAbout(far4, ext4, 3, 3, seen, 1000))
	}
	l.now += 500 * time.Millisecond
	l.none(l.back(errorAbout(far4, ext4, 3, 3, seen, 1000)))
	l.drops(dataplane.ICMPNoConn)
}

func TestRFC5508REQ7HairpinnedError(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("dns", wire.ProtoUDP, netip.Addr{}, one(5353), hostB, 53)
	_, in := l.out(udpPkt(hostA, 5000, ext4, 5353))
	asked := must1(t, in)
	w, in := l.out(errorAbout(hostB, ext4, 3, 3, asked, 1000))
	expect(t, "frames on the wire", len(w), 0)
	got := must1(t, in)
	expect(t, "destination", got.dst, hostA)
	expect(t, "source", got.src, ext4)
	e := got.embedded(t)
	expect(t, "inner source", e.src, hostA)
	expect(t, "inner port", e.sport, 5000)
	expect(t, "inner destination", e.dst, ext4)
	expect(t, "inner destination port", e.dport, 5353)
}
