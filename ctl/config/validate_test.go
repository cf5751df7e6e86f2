package config

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func addrs(s ...string) (a []netip.Addr) {
	for _, s := range s {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func TestNetworkValidate(t *testing.T) {
	for _, c := range []struct {
		n    Network
		want string // Empty if it is valid.
	}{
		{Network{Name: "a"}, ""},
		{Network{Name: "7.up_-x"}, ""},
		{Network{Name: strings.Repeat("x", 63)}, ""},
		{Network{Name: strings.Repeat("x", 64)}, "is no name"},
		{Network{}, "name: missing"},
		{Network{Name: "Blue"}, `name: "Blue" is no name`},
		{Network{Name: "-a"}, "is no name"},
		{Network{Name: "a\n"}, "is no name"},
		{Network{Name: "a/b"}, "is no name"},
		{Network{Name: "a", VNI: MaxVNI}, ""},
		{Network{Name: "a", VNI: MaxVNI + 1}, "vni: 16777216 is out of range: want 1 to 16777215"},
		{Network{Name: "a", MTU: 68}, ""},
		{Network{Name: "a", MTU: 67}, "mtu: 67 is out of range: want 68 to 65521"},
		{Network{Name: "a", MTU: 65521}, ""},
		{Network{Name: "a", MTU: 65522}, "mtu: 65522 is out of range: want 68 to 65521, the most that a TAP can be set to"},
		{Network{Name: "a", MTU: -1}, "mtu: -1 is out of range"},
		{Network{Name: "a", MTU: 1279, Subnets: prefixes("2001:db8::/64")}, "mtu: 1279 is too small for the network's IPv6 subnet"},
		{Network{Name: "a", MTU: 1280, Subnets: prefixes("2001:db8::/64")}, ""},
		{Network{Name: "a", Ageing: Duration(time.Second)}, ""},
		{Network{Name: "a", Ageing: -1}, "ageing: -1ns is out of range: want 1s to"},
		{Network{Name: "a", Ageing: MaxAgeing + 1}, "ageing: "},
		{Network{Name: "a", MaxMACs: -1}, "max_macs: -1 is out of range"},
		{Network{Name: "a", MaxMACs: MaxMACs + 1}, "max_macs: "},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/24", "198.18.1.0/24", "198.18.2.0/31")}, ""},
		{Network{Name: "a", Subnets: prefixes("198.18.0.1/24")}, "subnets[0]: 198.18.0.1/24 is an address in the subnet 198.18.0.0/24"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/16", "198.18.1.0/24")}, "subnets[1]: 198.18.1.0/24 overlaps 198.18.0.0/16"},
		{Network{Name: "a", Subnets: prefixes("0.0.0.0/0")}, "want a prefix length"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.1/32")}, "want a prefix length of 1 to 31"},
		{Network{Name: "a", Subnets: prefixes("224.0.0.0/24")}, "is no subnet that hosts may be in"},
		{Network{Name: "a", Subnets: prefixes("127.0.0.0/8")}, "is no subnet that hosts may be in"},
		{Network{Name: "a", Subnets: prefixes("ff02::/64")}, "is no subnet that hosts may be in"},
		{Network{Name: "a", Subnets: []netip.Prefix{{}}}, "subnets[0]: missing"},
		{Network{Name: "a", Subnets: make([]netip.Prefix, MaxSubnets+1)}, "subnets: 17 subnets: at most 16"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/24", "2001:db8::/64"), Gateways: addrs("198.18.0.1", "2001:db8::1")}, ""},
		{Network{Name: "a", Gateways: addrs("198.18.0.1")}, "gateways[0]: 198.18.0.1 is in none of the network's subnets"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/24"), Gateways: addrs("198.18.0.0")}, "is the network's own address"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/24"), Gateways: addrs("198.18.0.255")}, "is the broadcast address"},
		{Network{Name: "a", Subnets: prefixes("198.18.0.0/24"), Gateways: addrs("198.18.0.1", "198.18.0.2")}, "gateways[1]: 198.18.0.2 is a second gateway"},
		{Network{Name: "a", Subnets: prefixes("2001:db8::/64"), Gateways: addrs("2001:db8::1%eth0")}, "without a zone"},
		{Network{Name: "a", Gateways: []netip.Addr{{}}}, "gateways[0]: missing"},
	} {
		check(t, c.n.Name, c.n.Validate(), c.want)
	}
}

func TestPortValidate(t *testing.T) {
	in := func(p Port) Port {
		p.Name, p.Network, p.NetNS = "p", "n", "/run/netns/c"
		return p
	}
	for _, c := range []struct {
		p    Port
		want string
	}{
		{Port{Name: "p", Network: "n", NetNS: "/run/netns/c"}, ""},
		{Port{Name: "p", Network: "n", PID: 1}, ""},
		{Port{Name: "p", Network: "n", Container: "My_box.1-2"}, ""},
		{Port{Name: "p", Network: "n", Kind: KindVeth, PID: MaxPID}, ""},
		{Port{Name: "p", Network: "n", IfName: "tap0"}, ""},
		{Port{Name: "p", Network: "n", Kind: KindPacket, Interface: "nic0"}, ""},

		{Port{Name: "p", NetNS: "/c"}, "network: missing"},
		{Port{Name: "P", Network: "n", NetNS: "/c"}, "name: "},
		{Port{Name: "p", Network: "n", Kind: "bridge"}, `kind: "bridge" is no kind of port: want tap, veth or packet`},
		{Port{Name: "p", Network: "n"}, "needs an ifname"},
		{Port{Name: "p", Network: "n", Kind: KindVeth, IfName: "x"}, "a veth port needs a namespace"},
		{Port{Name: "p", Network: "n", IfName: "tap0", DefaultRoute: true}, "default_route: the port is in swd's own namespace"},
		{in(Port{PID: 1}), "netns and pid all name the namespace"},
		{in(Port{Interface: "x"}), "interface: only a packet port"},
		{in(Port{DefaultRoute: true}), "default_route: needs an address"},
		{Port{Name: "p", Network: "n", NetNS: "c"}, `netns: "c" is no absolute path`},
		{Port{Name: "p", Network: "n", NetNS: "/c\x00"}, "zero byte"},
		{Port{Name: "p", Network: "n", NetNS: "/" + strings.Repeat("x", MaxNetNS)}, "at most 4095 fit"},
		{Port{Name: "p", Network: "n", PID: -1}, "pid: -1 is no process id"},
		{Port{Name: "p", Network: "n", PID: MaxPID + 1}, "pid: "},
		{Port{Name: "p", Network: "n", Container: "a b"}, "container: "},

		{Port{Name: "p", Network: "n", Kind: KindPacket}, "interface: missing"},
		{Port{Name: "p", Network: "n", Kind: KindPacket, Interface: "x", NetNS: "/c"}, "netns: a packet port takes its interface as it is"},
		{Port{Name: "p", Network: "n", Kind: KindPacket, Interface: "x", MAC: "02:00:00:00:00:01"}, "mac: a packet port"},
		{Port{Name: "p", Network: "n", Kind: KindPacket, Interface: "x", IPs: []string{"auto"}}, "ips: a packet port"},
		{Port{Name: "p", Network: "n", Kind: KindPacket, Interface: "x", IfName: "y"}, "ifname: a packet port"},

		{in(Port{IfName: "123456789012345"}), ""},
		{in(Port{IfName: "1234567890123456"}), "16 bytes long, at most 15 fit"},
		{in(Port{IfName: "a/b"}), "is no interface name"},
		{in(Port{IfName: "a b"}), "is no interface name"},
		{in(Port{IfName: "a:b"}), "is no interface name"},
		{in(Port{IfName: "eth%d"}), "is no interface name"},
		{in(Port{IfName: "a\x01"}), "is no interface name"},
		{in(Port{IfName: "a\xff"}), "is no interface name"},
		{in(Port{IfName: ".."}), "the kernel keeps it"},
		{in(Port{IfName: "all"}), "the kernel keeps it"},

		{in(Port{MAC: "02:00:00:00:00:01"}), ""},
		{in(Port{MAC: "0200.0000.0001"}), ""},
		{in(Port{MAC: "zz"}), `mac: "zz" is no MAC address`},
		{in(Port{MAC: "02:00:00:00:00:00:00:01"}), "is no MAC address"},
		{in(Port{MAC: "01:00:5e:00:00:01"}), "is a multicast address"},
		{in(Port{MAC: "ff:ff:ff:ff:ff:ff"}), "is a multicast address"},
		{in(Port{MAC: "00:00:00:00:00:00"}), "is the zero address"},

		{in(Port{IPs: []string{"198.18.0.2/24", "2001:db8::2/64", "auto", "fe80::1/64", "198.19.0.0/31", "198.19.1.1/32"}}), ""},
		{in(Port{IPs: []string{"198.18.0.2"}}), `ips[0]: "198.18.0.2" lacks its prefix length, as 198.18.0.2/24`},
		{in(Port{IPs: []string{"198.18.0.2/33"}}), "is no address with prefix length"},
		{in(Port{IPs: []string{"198.18.0.2/0"}}), "has no network part"},
		{in(Port{IPs: []string{""}}), "is no address"},
		{in(Port{IPs: []string{"198.18.0.0/24"}}), "is the network's own address"},
		{in(Port{IPs: []string{"198.18.0.255/24"}}), "is the broadcast address"},
		{in(Port{IPs: []string{"2001:db8::/64"}}), "is the routers' anycast address"},
		{in(Port{IPs: []string{"127.0.0.1/8"}}), "is no address that a host may have"},
		{in(Port{IPs: []string{"224.0.0.1/4"}}), "is no address that a host may have"},
		{in(Port{IPs: []string{"::1/128"}}), "is no address that a host may have"},
		{in(Port{IPs: []string{"::ffff:198.18.0.2/120"}}), "is IPv4 in IPv6"},
		{in(Port{IPs: []string{"198.18.0.2/24", "198.18.0.2/16"}}), "ips[1]: 198.18.0.2 is given twice"},
		{in(Port{IPs: []string{"auto", "auto"}}), `ips[1]: "auto" twice`},
		{in(Port{IPs: make([]string, MaxIPs+1)}), "ips: 65 addresses: at most 64"},
	} {
		check(t, c.p.Name, c.p.Validate(), c.want)
	}
}

func TestStaticValidate(t *testing.T) {
	for _, c := range []struct {
		s    Static
		want string
	}{
		{Static{MAC: "02:00:00:00:00:01", Network: "n", Port: "p"}, ""},
		{Static{Network: "n", Port: "p"}, "mac: missing"},
		{Static{MAC: "03:00:00:00:00:01", Network: "n", Port: "p"}, "mac: "},
		{Static{MAC: "02:00:00:00:00:01", Port: "p"}, "network: missing"},
		{Static{MAC: "02:00:00:00:00:01", Network: "n"}, "port: missing"},
		{Static{}, "mac: missing: want an address as 02:00:00:00:00:01; network: missing: name the network of the entry; port: missing: name the port behind which the address is"},
	} {
		check(t, c.s.MAC, c.s.Validate(), c.want)
	}
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want %q", name, err, want)
	case err != nil:
		var all Errors
		var one *FieldError
		if !errors.As(err, &all) || !errors.As(err, &one) || len(Each(err)) != len(all) {
			t.Errorf("%s: %T is no Errors of FieldErrors", name, err)
		}
	}
}

func TestPortValidateOn(t *testing.T) {
	n := &Network{
		Name: "n", Subnets: prefixes("198.18.0.0/24"), Gateways: addrs("198.18.0.1"),
	}
	for _, c := range []struct {
		p    Port
		n    *Network
		want string
	}{
		{Port{IPs: []string{"198.18.0.9/24", "169.254.1.1/16", "2001:db8::1/64"}, DefaultRoute: true}, n, ""},
		{Port{IPs: []string{"auto"}, DefaultRoute: true}, n, ""},
		{Port{IPs: []string{"198.51.100.1/24"}}, n, "ips[0]: 198.51.100.1 is in none of the subnets"},
		{Port{IPs: []string{"198.18.0.129/25"}, DefaultRoute: true}, n, "default_route: none of the port's addresses reaches a gateway"},
		{Port{IPs: []string{"198.51.100.1/24"}}, &Network{Name: "n"}, ""},
		{Port{IPs: []string{"auto"}}, &Network{Name: "n"}, "has no subnet to take an address from"},
	} {
		check(t, c.p.IPs[0], c.p.ValidateOn(c.n), c.want)
	}
}

func TestWithDefaults(t *testing.T) {
	c := &Config{
		Networks: []Network{{Name: "n"}},
		Ports: []Port{
			{Name: "a", Network: "n", PID: 1},
			{Name: "b", Network: "n", IfName: "t"},
			{Name: "c", Network: "n", Kind: KindPacket, Interface: "i"},
			{Name: "d", Network: "n", Kind: KindVeth, PID: 2, IfName: "x"},
		},
	}
	d := c.WithDefaults()
	if n := d.Networks[0]; n.MTU != 1500 || n.Ageing != Duration(300*time.Second) || n.VNI != 0 || n.MaxMACs != 0 {
		t.Errorf("%+v", n)
	}
	for i, want := range []struct{ kind, ifname string }{{"tap", "eth0"}, {"tap", "t"}, {"packet", ""}, {"veth", "x"}} {
		if p := d.Ports[i]; p.Kind != want.kind || p.IfName != want.ifname {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
	if c.Networks[0].MTU != 0 || c.Ports[0].Kind != "" {
		t.Error("WithDefaults changed the original")
	}
}
