// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// addr is an IPv6 address as two big-endian words, or an IPv4 address as the
// IPv4-mapped one (RFC 4291 2.5.5.2). The zero addr is no address.
type addr struct{ hi, lo uint64 }

const mapped = 0xffff << 32

func v4(a uint32) addr { return addr{lo: mapped | uint64(a)} }

func v6(b *[16]byte) addr {
	return addr{hi: binary.BigEndian.Uint64(b[:]), lo: binary.BigEndian.Uint64(b[8:])}
}

// addrOf turns what people write into an addr; the zero Addr into none.
func addrOf(a netip.Addr) addr {
	if !a.IsValid() {
		return addr{}
	}
	b := a.As16()
	return v6(&b)
}

func (a addr) is4() bool { return a.hi == 0 && a.lo>>32 == 0xffff }

// addr4 is the IPv4 address; valid only if is4.
func (a addr) addr4() uint32 { return uint32(a.lo) }

func (a addr) put6(b *[16]byte) {
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
}

// netip is the address for people, IPv4's unmapped; the zero Addr for none.
func (a addr) netip() netip.Addr {
	if a == (addr{}) {
		return netip.Addr{}
	}
	var b [16]byte
	a.put6(&b)
	return netip.AddrFrom16(b).Unmap()
}

// isMulticast tells IPv4 224.0.0.0/4, the limited broadcast, and IPv6 ff00::/8.
func (a addr) isMulticast() bool {
	if a.is4() {
		return a.addr4()>>28 == 0xe || a.addr4() == 0xffffffff
	}
	return a.hi>>56 == 0xff
}

// isLocal tells addresses that no router forwards: unspecified, loopback and
// link-local (RFC 6890).
func (a addr) isLocal() bool {
	if a.is4() {
		v := a.addr4()
		return v>>24 == 0 || v>>24 == 127 || v>>16 == 0xa9fe
	}
	return a.hi == 0 && a.lo <= 1 || a.isLinkLocal6()
}

func (a addr) isLinkLocal6() bool { return a.hi>>54 == 0xfe80>>6 }

// prefix is a subnet: an address belongs to it if its masked words are equal.
type prefix struct {
	addr, mask addr
	host       addr // The address that was written with the prefix.
}

func prefixOf(p netip.Prefix) prefix {
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	m := addr{hi: ^uint64(0), lo: ^uint64(0)}
	if n < 64 {
		m = addr{hi: ^uint64(0) << (64 - n)}
	} else if n < 128 {
		m.lo <<= 128 - n
	}
	h := addrOf(p.Addr())
	return prefix{addr: addr{h.hi & m.hi, h.lo & m.lo}, mask: m, host: h}
}

func (p *prefix) contains(a addr) bool {
	return a.hi&p.mask.hi == p.addr.hi && a.lo&p.mask.lo == p.addr.lo
}

// isBroadcast tells the directed broadcast address of an IPv4 subnet with more
// than two addresses.
func (p *prefix) isBroadcast(a addr) bool {
	return a.is4() && ^p.mask.lo > 1 && p.contains(a) && a.lo|p.mask.lo == ^uint64(0)
}

func containedIn(ps []prefix, a addr) bool {
	for i := range ps {
		if ps[i].contains(a) {
			return true
		}
	}
	return false
}

// The secrets of hash: odd numbers with about half of their bits set, the
// fractional parts of the square roots of 11, 13, 17 and 19.
const (
	secret0 = 0x510e527fade682d1
	secret1 = 0x9b05688c2b3e6c1f
	secret2 = 0x1f83d9abfb41bd6b
	secret3 = 0x5be0cd19137e2179
)

// hash mixes two addresses and a word (the construction of wyhash, Wang Yi
// 2019) at about 4 ns. The seed is secret, so strangers can't aim.
func hash(seed uint64, a, b addr, word uint64) uint64 {
	turned := bits.RotateLeft64(seed, 32)
	x := mix(a.hi^seed^secret0, a.lo^turned^secret1)
	y := mix(b.hi^seed^secret2, b.lo^turned^secret3)
	return mix(x^word^seed^secret1, y^bits.RotateLeft64(word, 32)^turned^secret0)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
