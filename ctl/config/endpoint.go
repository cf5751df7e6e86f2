package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The protocols of ports. Connections have ProtoICMP as well.
const (
	ProtoTCP  = "tcp"
	ProtoUDP  = "udp"
	ProtoSCTP = "sctp"
	// ProtoICMP stands for ICMP's and ICMPv6's queries.
	ProtoICMP = "icmp"
)

// PortRange is ports First to Last, both included.
type PortRange struct{ First, Last uint16 }

// String writes the range as PORT or PORT-PORT.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Len returns how many ports the range has.
func (r PortRange) Len() int { return int(r.Last) - int(r.First) + 1 }

// ParsePortRange reads PORT or PORT-PORT, ports from 1 to 65535 with the lower
// one first.
func ParsePortRange(s string) (PortRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	first, ok1 := parsePort(low)
	last, ok2 := parsePort(high)
	switch {
	case !ok1 || !ok2:
		return PortRange{}, fmt.Errorf("%s is no port and no range of ports: want 1 to 65535, as 8080 or 8000-8010", quote(s))
	case first > last:
		return PortRange{}, fmt.Errorf("%s: the range's first port is above its last", quote(s))
	}
	return PortRange{first, last}, nil
}

var portRE = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)

func parsePort(s string) (uint16, bool) {
	if !portRE.MatchString(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

// Listen is where a publication listens.
type Listen struct {
	// Addr is one of the uplink's addresses. The zero Addr is all of them,
	// 0.0.0.0 all of IPv4, :: all of IPv6.
	Addr  netip.Addr
	Ports PortRange
	Proto string // ProtoTCP, ProtoUDP or ProtoSCTP.
}

// String writes it as ParseListen reads it.
func (l Listen) String() string { return hostPort(l.Addr, "", l.Ports) + "/" + l.Proto }

// IsAny tells whether it listens on more than one address.
func (l Listen) IsAny() bool { return !l.Addr.IsValid() || l.Addr.IsUnspecified() }

// ParseListen reads [IP:]PORT[-PORT]/PROTO, an IPv6 address in brackets.
func ParseListen(s string) (Listen, error) {
	var l Listen
	rest, proto, ok := strings.Cut(s, "/")
	if !ok || !slices.Contains([]string{ProtoTCP, ProtoUDP, ProtoSCTP}, proto) {
		return l, fmt.Errorf("%s: want [IP:]PORT[-PORT]/PROTO with tcp, udp or sctp, as 8080/tcp or 192.0.2.1:8000-8010/udp", quote(s))
	}
	l.Proto = proto
	host, ports := cutHost(rest)
	var err error
	if l.Ports, err = ParsePortRange(ports); err != nil {
		return Listen{}, err
	}
	if host == "" && ports == rest {
		return l, nil
	}
	if l.Addr, ok = parseHost(host); !ok {
		return Listen{}, fmt.Errorf("%s is no address to listen on: want one as 192.0.2.1 or [2001:db8::1]", quote(host))
	}
	if !l.Addr.IsUnspecified() {
		if err := checkHost(l.Addr, netip.PrefixFrom(l.Addr, l.Addr.BitLen())); err != nil {
			return Listen{}, err
		}
	}
	return l, nil
}

// canonicalListen writes what ParseListen refuses as it is.
func canonicalListen(s string) string {
	if l, err := ParseListen(s); err == nil {
		return l.String()
	}
	return s
}

// Target is where a publication leads: a port's address, or an address.
type Target struct {
	Port  string     // Empty if Addr is valid.
	Addr  netip.Addr // Valid if Port is empty.
	Ports PortRange
}

// String writes it as ParseTarget reads it.
func (t Target) String() string { return hostPort(t.Addr, t.Port, t.Ports) }

// ParseTarget reads PORTNAME:PORT[-PORT] or IP:PORT[-PORT], an IPv6 address in
// brackets. What reads as an address is one, even if a port has that name.
func ParseTarget(s string) (Target, error) {
	var t Target
	host, ports := cutHost(s)
	if host == "" {
		return t, fmt.Errorf("%s: want PORTNAME:PORT[-PORT] or IP:PORT[-PORT], as web:80 or [2001:db8::2]:80", quote(s))
	}
	var err error
	if t.Ports, err = ParsePortRange(ports); err != nil {
		return Target{}, err
	}
	if addr, ok := parseHost(host); ok {
		t.Addr = addr
		return t, checkHost(addr, netip.PrefixFrom(addr, addr.BitLen()))
	}
	if err := CheckName(host); err != nil {
		return Target{}, fmt.Errorf("%s is neither a port's name nor an address: an IPv6 address stands in brackets, as [2001:db8::2]", quote(host))
	}
	t.Port = host
	return t, nil
}

// cutHost cuts what is before the last colon from what is behind it. An address
// keeps its brackets.
func cutHost(s string) (host, ports string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// parseHost reads an address, IPv6 in brackets.
func parseHost(s string) (netip.Addr, bool) {
	inner, bracket := strings.CutPrefix(s, "[")
	if bracket {
		inner, bracket = strings.CutSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(inner)
	return a, err == nil && a.Zone() == "" && bracket == a.Is6()
}

// hostPort joins an address or name, where there is one, to ports.
func hostPort(a netip.Addr, name string, ports PortRange) string {
	switch {
	case a.Is6():
		return "[" + a.String() + "]:" + ports.String()
	case a.IsValid():
		return a.String() + ":" + ports.String()
	case name != "":
		return name + ":" + ports.String()
	}
	return ports.String()
}

// ParseMatch reads an address, or a subnet, that connections are looked for by.
func ParseMatch(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, fmt.Errorf("%s is no address and no subnet: want one as 198.18.0.2 or 2001:db8::/64", quote(s))
	case p != p.Masked():
		return p, fmt.Errorf("%s is an address in the subnet %s: write one of the two", p, p.Masked())
	}
	return p, nil
}

// CheckProto says what is wrong with the protocol of connections; nil if it is
// good.
func CheckProto(s string) error {
	if !slices.Contains([]string{ProtoTCP, ProtoUDP, ProtoICMP, ProtoSCTP}, s) {
		return fmt.Errorf("%s is no protocol of connections: want tcp, udp, icmp or sctp", quote(s))
	}
	return nil
}

// CheckNATID says what is wrong with the id of a NAT; nil if it is good.
func CheckNATID(s string) error {
	if !natIDRE.MatchString(s) {
		return fmt.Errorf("%s is no id: want %d hexadecimal digits, as swctl nat ls shows them", quote(s), 2*idBytes)
	}
	return nil
}

var natIDRE = regexp.MustCompile(`^[0-9a-f]{12}$`)
