package filter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	pcapfilter "github.com/packetcap/go-pcap/filter"
	"golang.org/x/net/bpf"
)

// Offsets in an untagged Ethernet frame, in bytes.
const (
	offEtherType = 12
	offIP4Frag   = 20
	offIP4Proto  = 23
	offIP4Dst    = 30
	offIP6Next   = 20
	offIP6Src    = 22
	offIP6Dst    = 38
	offIP6Data   = 54
	ip6Fragment  = 44 // Next header of a fragment.
)

var etherTypes = map[string]uint32{"ip": 0x0800, "ip6": 0x86dd, "arp": 0x0806, "rarp": 0x8035}

var ipProtocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132,
}

// vmNode is a primitive as a BPF program.
type vmNode struct{ vm *bpf.VM }

func (n vmNode) match(v *view) bool {
	keep, err := n.vm.Run(v.untagged)
	return err == nil && keep > 0
}

// identified makes the node of an address, network, port or port range.
func identified(q qualifiers, id string) (node, error) {
	if q.kind == "host" && q.proto == "ether" {
		mac, err := net.ParseMAC(id)
		if err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("filter: %s: %q is not a MAC address", q, id)
		}
		return compilePrimitive(q, mac.String())
	}
	switch q.kind {
	case "host":
		a, err := netip.ParseAddr(id)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("filter: %q is neither a keyword nor an IP address (host names are not looked up)", id)
		}
		if err := checkFamily(q, a); err != nil {
			return nil, err
		}
		return compilePrimitive(q, a.String())
	case "net":
		pfx, err := netip.ParsePrefix(id)
		if a, aerr := netip.ParseAddr(id); aerr == nil && a.Zone() == "" {
			pfx, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("filter: %s: %q is not a network such as 198.18.0.0/24", q, id)
		}
		if err := checkFamily(q, pfx.Addr()); err != nil {
			return nil, err
		}
		if pfx != pfx.Masked() {
			return nil, fmt.Errorf("filter: %s: %s has host bits set: write %s", q, id, pfx.Masked())
		}
		if pfx.Addr().Is6() || pfx.Bits() == 0 {
			return networkNode(q, pfx)
		}
		return compilePrimitive(q, pfx.String())
	case "port":
		port, err := portNumber(q, id)
		if err != nil {
			return nil, err
		}
		if q.proto == "sctp" {
			return portRangeNode(q, port, port)
		}
		return compilePrimitive(q, strconv.FormatUint(uint64(port), 10))
	default: // portrange
		a, b, ok := strings.Cut(id, "-")
		lo, err1 := strconv.ParseUint(a, 10, 16)
		hi, err2 := strconv.ParseUint(b, 10, 16)
		if !ok || err1 != nil || err2 != nil || lo > hi {
			return nil, fmt.Errorf("filter: %s: %q is not a range such as 8000-8099", q, id)
		}
		return portRangeNode(q, uint32(lo), uint32(hi))
	}
}

// checkFamily holds an address against the protocol that qualifies it.
func checkFamily(q qualifiers, a netip.Addr) error {
	switch q.proto {
	case "":
		return nil
	case "ip6":
		if a.Is6() {
			return nil
		}
	case "ip", "arp", "rarp":
		if a.Is4() {
			return nil
		}
	}
	return fmt.Errorf("filter: %s doesn't go with the address %s", q, a)
}

// portNumber reads a port's number or its name in /etc/services.
func portNumber(q qualifiers, id string) (uint32, error) {
	if n, err := strconv.ParseUint(id, 10, 16); err == nil {
		return uint32(n), nil
	}
	if _, err := strconv.Atoi(id); err != nil {
		proto := q.proto
		if proto == "" {
			proto = "tcp"
		}
		if n, err := net.LookupPort(proto, id); err == nil {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("filter: %s: %q is no port", q, id)
}

// compilePrimitive has the library compile a qualified id.
func compilePrimitive(q qualifiers, id string) (node, error) {
	switch q.proto {
	case "", "ether", "ip", "ip6", "arp", "rarp", "tcp", "udp":
	default:
		return nil, fmt.Errorf("filter: %s %s: not supported", q, id)
	}
	if q.kind == "port" && q.proto != "" && q.proto != "tcp" && q.proto != "udp" {
		return nil, fmt.Errorf("filter: %s %s: ports go with tcp, udp or sctp", q, id)
	}
	return byLibrary(q.String() + " " + id)
}

// byLibrary has the library compile one primitive; its panics are errors.
func byLibrary(expr string) (n node, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("filter: %s: the compiler failed: %v", expr, r)
		}
	}()
	ins, err := pcapfilter.NewExpression(expr).Compile().Compile()
	if err != nil {
		return nil, fmt.Errorf("filter: %s: %w", expr, err)
	}
	return program(ins)
}

func program(ins []bpf.Instruction) (node, error) {
	vm, err := bpf.NewVM(ins)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return vmNode{vm}, nil
}

// field is one comparison: the size bytes at off, masked, against val.
type field struct {
	off  uint32
	size int
	mask uint32
	cond bpf.JumpTest
	val  uint32
}

// all assembles a program that wants every field to compare true.
func all(fields ...field) (node, error) {
	var ins []bpf.Instruction
	for _, f := range fields {
		ins = append(ins, bpf.LoadAbsolute{Off: f.off, Size: f.size})
		if f.mask != 0 {
			ins = append(ins, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: f.mask})
		}
		ins = append(ins, bpf.JumpIf{Cond: f.cond, Val: f.val, SkipTrue: 1}, bpf.RetConstant{})
	}
	return program(append(ins, bpf.RetConstant{Val: 1}))
}

// either joins two nodes by or.
func either(a node, err1 error, b node, err2 error) (node, error) {
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return orNode{a, b}, nil
}

func etherType(t uint32) field { return field{off: offEtherType, size: 2, cond: bpf.JumpEqual, val: t} }

// protocolNode makes the node of a protocol that stands alone.
func protocolNode(proto string) (node, error) {
	if t, ok := etherTypes[proto]; ok {
		return all(etherType(t))
	}
	switch proto {
	case "tcp", "udp":
		return byLibrary(proto)
	case "icmp", "igmp":
		return numberedProtocol("ip", proto)
	case "icmp6":
		return numberedProtocol("ip6", proto)
	}
	return numberedProtocol("", proto)
}

// numberedProtocol makes `[ether|ip|ip6] proto N`, N a number or a name.
func numberedProtocol(layer, id string) (node, error) {
	if layer == "ether" {
		t, ok := etherTypes[id]
		if !ok {
			n, err := strconv.ParseUint(id, 0, 16)
			if err != nil || n < 0x600 {
				return nil, fmt.Errorf("filter: ether proto %q: want an EtherType such as 0x88cc", id)
			}
			t = uint32(n)
		}
		return all(etherType(t))
	}
	proto, ok := ipProtocols[id]
	if !ok {
		n, err := strconv.ParseUint(id, 0, 8)
		if err != nil {
			return nil, fmt.Errorf("filter: %s proto %q: want a number or a name such as tcp", layer, id)
		}
		proto = uint32(n)
	}
	v4, err4 := all(etherType(etherTypes["ip"]), field{off: offIP4Proto, size: 1, cond: bpf.JumpEqual, val: proto})
	v6, err6 := ip6Protocol(proto)
	switch layer {
	case "ip":
		return v4, err4
	case "ip6":
		return v6, err6
	case "":
		return either(v4, err4, v6, err6)
	}
	return nil, fmt.Errorf("filter: %s proto: want ether, ip or ip6 before proto", layer)
}

// ip6Protocol finds a protocol behind the IPv6 header or a fragment header.
func ip6Protocol(proto uint32) (node, error) {
	ip6 := etherType(etherTypes["ip6"])
	plain, err1 := all(ip6, field{off: offIP6Next, size: 1, cond: bpf.JumpEqual, val: proto})
	frag, err2 := all(ip6, field{off: offIP6Next, size: 1, cond: bpf.JumpEqual, val: ip6Fragment},
		field{off: offIP6Data, size: 1, cond: bpf.JumpEqual, val: proto})
	return either(plain, err1, frag, err2)
}

// groupNode makes `[ether] broadcast` and `[ether|ip|ip6] multicast`.
func groupNode(proto, word string) (node, error) {
	switch {
	case word == "broadcast" && (proto == "" || proto == "ether"):
		return all(field{off: 0, size: 4, cond: bpf.JumpEqual, val: 0xffffffff},
			field{off: 4, size: 2, cond: bpf.JumpEqual, val: 0xffff})
	case word == "multicast" && (proto == "" || proto == "ether"):
		return all(field{off: 0, size: 1, cond: bpf.JumpBitsSet, val: 1})
	case word == "multicast" && proto == "ip":
		return all(etherType(etherTypes["ip"]), field{off: offIP4Dst, size: 1, cond: bpf.JumpGreaterOrEqual, val: 224})
	case word == "multicast" && proto == "ip6":
		return all(etherType(etherTypes["ip6"]), field{off: offIP6Dst, size: 1, cond: bpf.JumpEqual, val: 0xff})
	}
	return nil, fmt.Errorf("filter: %s %s is not supported", proto, word)
}
