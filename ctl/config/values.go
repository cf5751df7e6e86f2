package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// AutoIP in Port.IPs stands for free addresses of the network's subnets, one of
// each family that it has subnets of.
const AutoIP = "auto"

var (
	nameRE      = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	containerRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
)

// CheckName says what is wrong with the name of a network or port; nil if it
// is good.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("missing: give it a name")
	case !nameRE.MatchString(name):
		return fmt.Errorf("%s is no name: want 1 to %d of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit", quote(name), MaxName)
	}
	return nil
}

// CheckIfName says what is wrong with the name of an interface, by the rules of
// the kernel's dev_valid_name (net/core/dev.c), without '%', which the kernel
// would expand, and the names that /proc/sys/net/*/conf reserves; nil if it is
// good.
func CheckIfName(name string) error {
	switch {
	case len(name) > MaxIfName:
		return fmt.Errorf("%s is no interface name: %d bytes long, at most %d fit", quote(name), len(name), MaxIfName)
	case name == "", name == ".", name == "..", name == "all", name == "default":
		return fmt.Errorf("%s is no interface name: the kernel keeps it for itself", quote(name))
	case strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}):
		return fmt.Errorf("%s is no interface name: it must not contain '/', ':', '%%', blanks or control characters", quote(name))
	}
	return nil
}

// NumberError says in a user's words why package strconv can't read a text as a
// number or as true or false. Any other error it returns as it is.
func NumberError(err error) error {
	var n *strconv.NumError
	if !errors.As(err, &n) {
		return err
	}
	switch {
	case errors.Is(n, strconv.ErrRange):
		return fmt.Errorf("%s is too far from 0", quote(n.Num))
	case n.Func == "ParseBool":
		return fmt.Errorf("%s is neither true nor false", quote(n.Num))
	case n.Func == "ParseUint":
		return fmt.Errorf("%s is no whole number from 0 up", quote(n.Num))
	}
	return fmt.Errorf("%s is no number", quote(n.Num))
}

// ParseMAC reads a station's address of 48 bits in any of the notations of
// net.ParseMAC. It refuses the zero address and multicast (IEEE 802 clause 8),
// which no station has.
func ParseMAC(s string) ([6]byte, error) {
	a, err := net.ParseMAC(s)
	if err != nil || len(a) != 6 {
		return [6]byte{}, fmt.Errorf("%s is no MAC address: want six bytes in hex, as 02:00:00:00:00:01", quote(s))
	}
	mac := [6]byte(a)
	switch {
	case mac == [6]byte{}:
		return mac, fmt.Errorf("%s is the zero address, which no station may have", quote(s))
	case mac[0]&1 != 0:
		return mac, fmt.Errorf("%s is a multicast address: the first byte of a station's address is even", quote(s))
	}
	return mac, nil
}

// ParseIP reads an address of an interface with its prefix length. It refuses
// what no host may have: a network's own and its broadcast address, multicast,
// loopback, the unspecified address, IPv4 in IPv6.
func ParseIP(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			return netip.Prefix{}, fmt.Errorf("%s lacks its prefix length, as %s/%d", quote(s), a, a.BitLen()*3/4)
		}
		return netip.Prefix{}, fmt.Errorf("%s is no address with prefix length: want one as 198.18.0.2/24 or 2001:db8::2/64", quote(s))
	}
	a := p.Addr()
	if p.Bits() == 0 {
		return p, fmt.Errorf("%s has no network part: want a prefix length of 1 to %d", p, a.BitLen())
	}
	if err := checkHost(a, p.Masked()); err != nil {
		return p, err
	}
	return p, nil
}

// ParseSubnet reads a subnet; Network.Validate says whether it is one that
// hosts may be in.
func ParseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is no subnet: want one as 198.18.0.0/24 or 2001:db8::/64", quote(s))
	}
	return p, nil
}

// ParseGateway reads an address without prefix length; Network.Validate says
// whether it is one of the network's.
func ParseGateway(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%s is no address: want one as 198.18.0.1 or 2001:db8::1", quote(s))
	}
	return a, nil
}

// checkHost says why no host of the subnet may have the address.
func checkHost(a netip.Addr, subnet netip.Prefix) error {
	switch {
	case a.Is4In6():
		return fmt.Errorf("%s is IPv4 in IPv6: write it as %s", a, a.Unmap())
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4() && a.As4()[0] >= 240, a.Is4() && a.As4()[0] == 0, a.Is4() && a.As4()[0] == 127:
		return fmt.Errorf("%s is no address that a host may have (unspecified, loopback, multicast or reserved)", a)
	case subnet.Bits() >= a.BitLen()-1:
		return nil // RFC 3021, RFC 6164: both addresses of a link of two are hosts'.
	case a == subnet.Addr() && a.Is4():
		return fmt.Errorf("%s is the network's own address in %s", a, subnet)
	case a == subnet.Addr():
		return fmt.Errorf("%s is the routers' anycast address in %s (RFC 4291 section 2.6.1)", a, subnet)
	case a.Is4() && a == lastAddr(subnet):
		return fmt.Errorf("%s is the broadcast address of %s", a, subnet)
	}
	return nil
}

// checkSubnet says what is wrong with a network's subnet.
func checkSubnet(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid():
		return errors.New("missing: want a subnet as 198.18.0.0/24")
	case a.Is4In6():
		return fmt.Errorf("%s is IPv4 in IPv6: write it as IPv4", p)
	case p != p.Masked():
		return fmt.Errorf("%s is an address in the subnet %s: write the subnet", p, p.Masked())
	case p.Bits() == 0, p.Bits() >= a.BitLen():
		return fmt.Errorf("%s: want a prefix length of 1 to %d", p, a.BitLen()-1)
	case a.IsMulticast(), a.IsLoopback(), a.Is4() && (a.As4()[0] == 0 || a.As4()[0] == 127 || a.As4()[0] >= 240):
		return fmt.Errorf("%s is no subnet that hosts may be in (unspecified, loopback, multicast or reserved)", p)
	}
	return nil
}

// lastAddr returns the highest address of an IPv4 subnet.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// checkNetNS says what is wrong with the path of a namespace.
func checkNetNS(path string) error {
	switch {
	case len(path) > MaxNetNS:
		return fmt.Errorf("a path of %d bytes: at most %d fit", len(path), MaxNetNS)
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("%s is no path: it contains a zero byte", quote(path))
	case !filepath.IsAbs(path):
		return fmt.Errorf("%s is no absolute path: a namespace that `ip netns add` made is /run/netns/NAME", quote(path))
	}
	return nil
}

// quote shows what the user wrote, shortened to what fits a line.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
