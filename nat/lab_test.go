package nat

import (
	"encoding/binary"
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

// pkt is a packet in its parts. Zero fields take defaults: TTL 64.
type pkt struct {
	dstMAC, srcMAC wire.MAC
	src, dst       netip.Addr
	proto          uint8
	sport, dport   uint16 // ICMP echo: sport is the identifier.
	flags          uint8
	seq, ack       uint32
	win            uint16
	options        []byte
	icmpType, code uint8
	word           uint32 // ICMP errors: the second word.
	ttl            uint8
	payload        []byte

	df        bool
	id        uint16
	fragOff   int
	more      bool
	raw       []byte // L4 as it is, for fragments.
	partial   bool
	noCsum    bool // UDP without a checksum.
	gso       int
	sctp      []byte // Chunks; seq is the tag.
	etherType uint16
}

func (p pkt) String() string {
	return fmt.Sprintf("%v:%d>%v:%d proto %d ttl %d type %d flags %#x seq %d ack %d %d B",
		p.src, p.sport, p.dst, p.dport, p.proto, p.ttl, p.icmpType, p.flags, p.seq, p.ack, len(p.payload))
}

func (p *pkt) v6() bool { return p.src.Is6() }

func (p *pkt) pseudo(n int) uint32 {
	if p.v6() {
		s, d := p.src.As16(), p.dst.As16()
		return wire.PseudoSum6(&s, &d, p.proto, n)
	}
	return wire.PseudoSum4(addrOf(p.src).addr4(), addrOf(p.dst).addr4(), p.proto, n)
}

// l4 builds the L4 header and payload.
func (p *pkt) l4() ([]byte, int) {
	var b []byte
	csum := 0
	switch p.proto {
	case wire.ProtoTCP:
		b = make([]byte, 20+len(p.options))
		binary.BigEndian.PutUint32(b[4:], p.seq)
		binary.BigEndian.PutUint32(b[8:], p.ack)
		b[12], b[13] = byte(len(b)/4)<<4, p.flags
		binary.BigEndian.PutUint16(b[14:], p.win)
		copy(b[20:], p.options)
		csum = wire.TCPCsumOff
	case wire.ProtoUDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(p.payload)))
		csum = wire.UDPCsumOff
	case wire.ProtoSCTP:
		b = make([]byte, 12)
		binary.BigEndian.PutUint32(b[4:], p.seq)
		b = append(b, p.sctp...)
	case wire.ProtoICMP, wire.ProtoICMPv6:
		b = make([]byte, 8)
		b[0], b[1] = p.icmpType, p.code
		binary.BigEndian.PutUint32(b[4:], p.word)
		if wire.IsEcho(p.icmpType, p.v6()) {
			binary.BigEndian.PutUint16(b[4:], p.sport)
		}
		csum = wire.ICMPCsumOff
	default:
		return p.payload, 0
	}
	if p.proto != wire.ProtoICMP && p.proto != wire.ProtoICMPv6 {
		binary.BigEndian.PutUint16(b, p.sport)
		binary.BigEndian.PutUint16(b[2:], p.dport)
	}
	b = append(b, p.payload...)
	if p.proto == wire.ProtoSCTP {
		binary.LittleEndian.PutUint32(b[8:], sctpSum(b))
		return b, 0
	}
	acc := p.pseudo(len(b))
	if p.proto == wire.ProtoICMP {
		acc = 0
	}
	switch {
	case p.noCsum:
	case p.partial:
		binary.BigEndian.PutUint16(b[csum:], wire.Fold(acc))
	default:
		v := ^wire.Fold(wire.Sum(b, acc))
		if p.proto == wire.ProtoUDP {
			v = wire.UDPChecksum(v)
		}
		binary.BigEndian.PutUint16(b[csum:], v)
	}
	return b, csum
}

// frame builds the packet, with right checksums.
func (p pkt) frame() sent {
	if p.ttl == 0 {
		p.ttl = 64
	}
	l4, csum := p.l4()
	if p.raw != nil {
		l4 = p.raw
	}
	b := make([]byte, wire.EthHdrLen)
	p.dstMAC.Put(b)
	p.srcMAC.Put(b[6:])
	hdr := wire.IPv4MinHdrLen
	if p.v6() {
		hdr = wire.IPv6HdrLen
		binary.BigEndian.PutUint16(b[12:], wire.EtherTypeIPv6)
		h := make([]byte, 40)
		h[0] = 0x60
		h[6], h[7] = p.proto, p.ttl
		s, d := p.src.As16(), p.dst.As16()
		copy(h[8:], s[:])
		copy(h[24:], d[:])
		if p.more || p.fragOff > 0 {
			f := make([]byte, 8)
			f[0], h[6] = p.proto, 44
			v := uint16(p.fragOff)
			if p.more {
				v |= 1
			}
			binary.BigEndian.PutUint16(f[2:], v)
			binary.BigEndian.PutUint32(f[4:], uint32(p.id))
			h = append(h, f...)
			hdr += 8
		}
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+len(l4)))
		b = append(b, h...)
	} else {
		binary.BigEndian.PutUint16(b[12:], wire.EtherTypeIPv4)
		h := make([]byte, 20)
		h[0] = 0x45
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		binary.BigEndian.PutUint16(h[4:], p.id)
		v := uint16(p.fragOff / 8)
		if p.more {
			v |= wire.IPv4MoreFragments
		}
		if p.df {
			v |= wire.IPv4DontFragment
		}
		binary.BigEndian.PutUint16(h[6:], v)
		h[8], h[9] = p.ttl, p.proto
		s, d := p.src.As4(), p.dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h, 0)))
		b = append(b, h...)
	}
	s := sent{data: append(b, l4...)}
	if p.partial {
		s.owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: uint16(14 + hdr), CsumOffset: uint16(csum)}
	}
	if p.gso > 0 {
		s.owes.GSOType, s.owes.GSOSize = wire.VNetGSOTCP4, uint16(p.gso)
	}
	return s
}

func decodeAll(t testing.TB, frames []sent) (ps []pkt) {
	t.Helper()
	for _, f := range frames {
		ps = append(ps, decode(t, f))
	}
	return ps
}

// decode takes a frame apart and checks every checksum by computing it anew.
func decode(t testing.TB, s sent) (p pkt) {
	t.Helper()
	p.dstMAC, p.srcMAC = wire.DstMAC(s.data), wire.SrcMAC(s.data)
	var l wire.Layers
	p.etherType = binary.BigEndian.Uint16(s.data[12:])
	if !l.Parse(s.data) {
		p.payload = s.data[14:]
		return p
	}
	p.partial = s.owes.Partial()
	p.gso = int(s.owes.GSOSize)
	p.decodeIP(t, s.data, &l)
	return p
}

func (p *pkt) decodeIP(t testing.TB, data []byte, l *wire.Layers) {
	t.Helper()
	if l.V6 {
		h, _ := wire.IPv6At(data, l.L3)
		p.src, p.dst, p.ttl = netip.AddrFrom16(*h.Src()), netip.AddrFrom16(*h.Dst()), h.HopLimit()
	} else {
		if !wire.IPv4Verify(data, l.L3) {
			t.Errorf("wrong IPv4 header checksum: % x", data[l.L3:l.L4])
		}
		h, _ := wire.IPv4At(data, l.L3)
		p.src, p.dst, p.ttl = v4(h.Src()).netip(), v4(h.Dst()).netip(), h.TTL()
		p.id, p.df = h.ID(), h.FlagsFrag()&wire.IPv4DontFragment != 0
	}
	p.proto, p.fragOff, p.more = l.Proto, l.FragOff, l.MoreFrags
	b := data[l.L4:l.End]
	p.raw = b
	if l.FragOff != 0 {
		p.payload = b
		return
	}
	acc := p.pseudo(len(b))
	field := 0
	switch p.proto {
	case wire.ProtoTCP:
		p.seq, p.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		p.flags, p.win = b[13], binary.BigEndian.Uint16(b[14:])
		n := int(b[12]>>4) * 4
		p.options, p.payload = b[20:n], b[n:]
		field = wire.TCPCsumOff
	case wire.ProtoUDP:
		p.payload = b[8:]
		field = wire.UDPCsumOff
		p.noCsum = b[6] == 0 && b[7] == 0
	case wire.ProtoICMP, wire.ProtoICMPv6:
		p.icmpType, p.code, p.word = b[0], b[1], binary.BigEndian.Uint32(b[4:])
		p.payload, field = b[8:], wire.ICMPCsumOff
		if wire.IsEcho(p.icmpType, l.V6) {
			p.sport = binary.BigEndian.Uint16(b[4:])
		}
		if p.proto == wire.ProtoICMP {
			acc = 0
		}
	case wire.ProtoSCTP:
		p.seq, p.payload = binary.BigEndian.Uint32(b[4:]), b[12:]
		if binary.LittleEndian.Uint32(b[8:]) != sctpSum(b) {
			t.Errorf("wrong SCTP checksum")
		}
	}
	if p.proto != wire.ProtoICMP && p.proto != wire.ProtoICMPv6 {
		p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	if l.MoreFrags || p.proto == wire.ProtoSCTP || p.noCsum {
		return
	}
	switch {
	case p.partial:
		if got := binary.BigEndian.Uint16(b[field:]); got%0xffff != wire.Fold(acc)%0xffff {
			t.Errorf("partial checksum %#x, want %#x: %v", got, wire.Fold(acc), p)
		}
	case wire.Fold(wire.Sum(b, acc)) != 0xffff:
		t.Errorf("wrong checksum: %v", p)
	}
}

// embedded takes apart the packet that an ICMP error carries.
func (p *pkt) embedded(t testing.TB) (in pkt) {
	t.Helper()
	etherType := uint16(wire.EtherTypeIPv4)
	if p.v6() {
		etherType = wire.EtherTypeIPv6
	}
	b := make([]byte, 14, 14+len(p.payload))
	binary.BigEndian.PutUint16(b[12:], etherType)
	b = append(b, p.payload...)
	var l wire.Layers
	if !l.Parse(b) {
		t.Fatalf("what the error carries is no packet: % x", p.payload)
	}
	in.decodeIP(t, b, &l)
	return in
}

func udpPkt(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) pkt {
	return pkt{src: src, dst: dst, sport: sport, dport: dport, proto: wire.ProtoUDP, payload: []byte("hello")}
}

func tcpPkt(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, flags uint8, seq, ack uint32) pkt {
	return pkt{
		src: src, dst: dst, sport: sport, dport: dport, proto: wire.ProtoTCP,
		flags: flags, seq: seq, ack: ack, win: 65000,
	}
}

func ping(src, dst netip.Addr, id uint16, typ uint8) pkt {
	p := pkt{src: src, dst: dst, sport: id, proto: wire.ProtoICMP, icmpType: typ, payload: []byte("abcdefgh")}
	if src.Is6() {
		p.proto = wire.ProtoICMPv6
	}
	return p
}
