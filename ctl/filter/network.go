package filter

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// inDirections makes one node of the source's and the destination's, as the
// direction says.
func inDirections(dir string, one func(src bool) (node, error)) (node, error) {
	switch dir {
	case "src":
		return one(true)
	case "dst":
		return one(false)
	}
	s, err1 := one(true)
	d, err2 := one(false)
	if dir == "src and dst" && err1 == nil && err2 == nil {
		return andNode{s, d}, nil
	}
	return either(s, err1, d, err2)
}

// networkNode makes `net` for IPv6 networks and networks of every address.
func networkNode(q qualifiers, pfx netip.Prefix) (node, error) {
	if pfx.Bits() == 0 {
		if q.proto != "" {
			return protocolNode(q.proto)
		}
		if pfx.Addr().Is6() {
			return protocolNode("ip6")
		}
		ip, err1 := protocolNode("ip")
		arp, err2 := protocolNode("arp")
		both, err3 := either(ip, err1, arp, err2)
		rarp, err4 := protocolNode("rarp")
		return either(both, err3, rarp, err4)
	}
	return inDirections(q.dir, func(src bool) (node, error) {
		off := uint32(offIP6Dst)
		if src {
			off = offIP6Src
		}
		fields := []field{etherType(etherTypes["ip6"])}
		addr := pfx.Addr().As16()
		for i, bits := 0, pfx.Bits(); bits > 0; i, bits = i+4, bits-32 {
			f := field{off: off + uint32(i), size: 4, cond: bpf.JumpEqual, val: binary.BigEndian.Uint32(addr[i:])}
			if bits < 32 {
				f.mask = ^uint32(0) << (32 - bits)
			}
			fields = append(fields, f)
		}
		return all(fields...)
	})
}

// portRangeNode makes `portrange`, and `port` for SCTP.
func portRangeNode(q qualifiers, lo, hi uint32) (node, error) {
	protos := []uint32{6, 17, 132}
	switch q.proto {
	case "":
	case "tcp", "udp", "sctp":
		protos = []uint32{ipProtocols[q.proto]}
	default:
		return nil, fmt.Errorf("filter: %s: ports go with tcp, udp or sctp", q)
	}
	var n node
	for _, proto := range protos {
		one, err := inDirections(q.dir, func(src bool) (node, error) { return portsOf(proto, src, lo, hi) })
		if err != nil {
			return nil, err
		}
		if n == nil {
			n = one
		} else {
			n = orNode{n, one}
		}
	}
	return n, nil
}

// portsOf finds one protocol's source or destination port in a range, behind
// an IPv4 header that isn't a later fragment's or right behind an IPv6 header.
func portsOf(proto uint32, src bool, lo, hi uint32) (node, error) {
	off := uint32(2)
	if src {
		off = 0
	}
	v6, err6 := all(etherType(etherTypes["ip6"]),
		field{off: offIP6Next, size: 1, cond: bpf.JumpEqual, val: proto},
		field{off: offIP6Data + off, size: 2, cond: bpf.JumpGreaterOrEqual, val: lo},
		field{off: offIP6Data + off, size: 2, cond: bpf.JumpLessOrEqual, val: hi})
	v4, err4 := program([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offEtherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypes["ip"], SkipFalse: 9},
		bpf.LoadAbsolute{Off: offIP4Proto, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: proto, SkipFalse: 7},
		bpf.LoadAbsolute{Off: offIP4Frag, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 5},
		bpf.LoadMemShift{Off: 14},
		bpf.LoadIndirect{Off: 14 + off, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: lo, SkipFalse: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 1},
		bpf.RetConstant{Val: 1},
		bpf.RetConstant{},
	})
	return either(v4, err4, v6, err6)
}
