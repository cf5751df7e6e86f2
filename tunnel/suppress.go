// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"encoding/binary"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// What ARP and ND over Ethernet are made of.
const (
	arpFrame = wire.EthHdrLen + wire.ARPLen
	// ndLen is a neighbour advertisement with one option, a MAC (RFC 4861 4.4).
	ndLen   = wire.ICMPHdrLen + 16 + 8
	ndFrame = wire.EthHdrLen + wire.IPv6HdrLen + ndLen
	// ndAt is the offset of an ICMPv6 message that follows its IPv6 header, and
	// ndTarget that of the target in it.
	ndAt        = wire.EthHdrLen + wire.IPv6HdrLen
	ndTarget    = wire.ICMPHdrLen
	ndTargetMAC = 2   // The option (RFC 4861 4.6.1).
	ndTTL       = 255 // What was forwarded has less (RFC 4861 4).
	// Flags of an advertisement (RFC 4861 4.4).
	naSolicited, naOverride = 0x40, 0x20
)

// claim is what an untagged ARP or ND packet is about.
type claim struct {
	asks     bool // It is a request, and wants an answer.
	asker    addr // Who asks; no address in a probe (RFC 5227, RFC 4862 5.4).
	askerMAC wire.MAC
	target   addr // What it asks for, or tells of.
	tells    addr // Whose MAC it tells.
}

// read fills in c from a frame and tells whether it is ARP or ND at all.
func (c *claim) read(data []byte) bool {
	switch binary.BigEndian.Uint16(data[wire.EthTypeOff:]) {
	case wire.EtherTypeARP:
		p, ok := wire.ARPAt(data, wire.EthHdrLen)
		if !ok {
			return false
		}
		c.asks = p.Op() == wire.ARPRequest
		c.asker, c.askerMAC, c.target = v4(p.SenderIP()), p.SenderMAC(), v4(p.TargetIP())
		c.tells = c.asker
		return true
	case wire.EtherTypeIPv6:
		return len(data) >= ndAt+ndTarget+16 && data[wire.EthHdrLen+6] == wire.ProtoICMPv6 && c.readND(data)
	}
	return false
}

func (c *claim) readND(data []byte) bool {
	m := data[ndAt:]
	h, ok := wire.IPv6At(data, wire.EthHdrLen)
	if !ok || h.HopLimit() != ndTTL || m[1] != 0 {
		return false
	}
	c.asks = m[0] == wire.ICMPv6NeighSolicit
	if !c.asks && m[0] != wire.ICMPv6NeighAdvert {
		return false
	}
	c.asker, c.askerMAC, c.target = v6(h.Src()), wire.SrcMAC(data), v6((*[16]byte)(m[ndTarget:]))
	c.tells = c.target
	if c.asks {
		c.tells = c.asker
	}
	return true
}

// settles tells whether a flooded frame need not go to the peer: it asks for,
// or tells of, a gateway of this host's, or asks for an address whose MAC is
// known. The tunnel that leads to that MAC answers.
//
// Probes for an address that nobody may have (RFC 5227 2.1.1, RFC 4862 5.4) and
// gratuitous ARP are for everybody, and go.
func (t *Tunnel) settles(w *worker, b *dataplane.Batch, data []byte) bool {
	var c claim
	if !c.read(data) {
		return false
	}
	if g := t.gates.Load(); g != nil && (g.have(c.target) || !c.asks && g.have(c.tells)) {
		return true
	}
	if !c.asks || c.asker.isNone() || c.asker == c.target {
		return false
	}
	mac, id, ok := t.vtep.known.find(t.vni, c.target)
	if !ok || mac == c.askerMAC {
		return false
	}
	if id == t.id {
		t.answer(w, b, &c, mac)
	}
	return true
}

// have tells whether an address is a gateway's.
func (g *gates) have(a addr) bool {
	for i := range g.addrs {
		if g.addrs[i] == a {
			return true
		}
	}
	return false
}

// answer makes the reply of the station mac.
func (t *Tunnel) answer(w *worker, b *dataplane.Batch, c *claim, mac wire.MAC) {
	if c.target.is4() {
		data, own := w.made(t, b, arpFrame)
		if data == nil {
			return
		}
		putEth(data, c.askerMAC, mac, wire.EtherTypeARP)
		a := (*wire.ARPPacket)(data[wire.EthHdrLen:])
		a.Init(wire.ARPReply)
		a.SetSender(mac, c.target.addr4())
		a.SetTarget(c.askerMAC, c.asker.addr4())
		own.Add()
	} else {
		data, own := w.made(t, b, ndFrame)
		if data == nil {
			return
		}
		putEth(data, c.askerMAC, mac, wire.EtherTypeIPv6)
		m := putIPv6(data, wire.EthHdrLen, c.target, c.asker, wire.ProtoICMPv6, ndTTL, ndLen)
		clear(m)
		m[0], m[4] = wire.ICMPv6NeighAdvert, naSolicited|naOverride
		c.target.put6((*[16]byte)(m[ndTarget:]))
		m[ndTarget+16], m[ndTarget+17] = ndTargetMAC, 1
		mac.Put(m[ndTarget+18:])
		sumICMPv6(data, wire.EthHdrLen, m)
		own.Add()
	}
	count(&w.answered, 1)
}

// lies tells whether a frame from the peer speaks for a gateway of this host's.
func (g *gates) lies(data []byte) bool {
	var c claim
	return c.read(data) && g.have(c.tells)
}

func putEth(b []byte, dst, src wire.MAC, etherType uint16) {
	dst.Put(b[wire.EthDst:])
	src.Put(b[wire.EthSrc:])
	binary.BigEndian.PutUint16(b[wire.EthTypeOff:], etherType)
}

// putIPv6 writes an IPv6 header at l3 and returns its payload of n bytes.
func putIPv6(b []byte, l3 int, src, dst addr, proto, ttl uint8, n int) []byte {
	h := b[l3:]
	binary.BigEndian.PutUint32(h, 6<<28)
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	h[6], h[7] = proto, ttl
	src.put6((*[16]byte)(h[8:]))
	dst.put6((*[16]byte)(h[24:]))
	return h[wire.IPv6HdrLen : wire.IPv6HdrLen+n]
}

// putIPv4 writes an IPv4 header at l3 and returns its payload of n bytes.
func putIPv4(b []byte, l3 int, src, dst addr, proto, ttl uint8, n int) []byte {
	h := b[l3:]
	clear(h[:wire.IPv4MinHdrLen])
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(wire.IPv4MinHdrLen+n))
	h[8], h[9] = ttl, proto
	binary.BigEndian.PutUint32(h[12:], src.addr4())
	binary.BigEndian.PutUint32(h[16:], dst.addr4())
	binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:wire.IPv4MinHdrLen], 0)))
	return h[wire.IPv4MinHdrLen : wire.IPv4MinHdrLen+n]
}

// sumICMPv6 writes the checksum of the message m, 0 so far, of the packet at l3.
func sumICMPv6(b []byte, l3 int, m []byte) {
	h := (*wire.IPv6Header)(b[l3:])
	binary.BigEndian.PutUint16(m[wire.ICMPCsumOff:],
		^wire.Fold(wire.Sum(m, wire.PseudoSum6(h.Src(), h.Dst(), wire.ProtoICMPv6, len(m)))))
}
