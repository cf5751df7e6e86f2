package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseNAT(t *testing.T) {
	got, err := Parse([]byte(`
networks:
  - {name: blue, subnets: [198.18.0.0/24, "2001:db8:1::/64"], gateways: [198.18.0.1, "2001:db8:1::1"]}
ports:
  - {name: web, network: blue, netns: /run/netns/web, ips: [198.18.0.2/24]}
uplinks:
  - name: wan
    interface: eth0
  - name: pool
    interface: eth1
    mode: own
    addresses: [203.0.113.2/24, 203.0.113.3/24]
    next_hops: [203.0.113.1]
    ports: 2000-2999
    mac: 02:00:00:00:00:07
nat:
  - {type: masquerade, network: blue, uplink: wan, mapping: address-and-port-dependent, ipv6: route}
  - {type: publish, uplink: wan, listen: 8080/tcp, to: "web:80"}
  - {type: publish, uplink: pool, listen: "203.0.113.2:5000-5003/udp", to: "198.18.0.9:6000-6003"}
nat_settings: {udp: 2m, max_container_conns: 1000}
`))
	if err != nil {
		t.Fatal(err)
	}
	wantUplinks := []Uplink{
		{Name: "wan", Interface: "eth0"},
		{
			Name: "pool", Interface: "eth1", Mode: ModeOwn, Addresses: []string{"203.0.113.2/24", "203.0.113.3/24"},
			NextHops: addrs("203.0.113.1"), Ports: "2000-2999", MAC: "02:00:00:00:00:07",
		},
	}
	wantNAT := []NAT{
		{Type: TypeMasquerade, Network: "blue", Uplink: "wan", Mapping: AddressAndPortDependent, IPv6: IPv6Route},
		{Type: TypePublish, Uplink: "wan", Listen: "8080/tcp", To: "web:80"},
		{Type: TypePublish, Uplink: "pool", Listen: "203.0.113.2:5000-5003/udp", To: "198.18.0.9:6000-6003"},
	}
	wantSettings := NATSettings{UDP: Duration(2 * time.Minute), MaxContainerConns: 1000}
	if !reflect.DeepEqual(got.Uplinks, wantUplinks) || !reflect.DeepEqual(got.NAT, wantNAT) || got.NATSettings != wantSettings {
		t.Errorf("%+v", got)
	}
	text, err := Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(text); err != nil || !reflect.DeepEqual(got, again) {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := Marshal(&Config{Uplinks: wantUplinks[:1]}); err != nil || string(text) != "uplinks:\n  - name: wan\n    interface: eth0\n" {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestParseListen(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // As String writes it; with a blank in it, what the error contains.
	}{
		{"8080/tcp", "8080/tcp"},
		{"1/udp", "1/udp"},
		{"65535/sctp", "65535/sctp"},
		{"8000-8010/udp", "8000-8010/udp"},
		{"8000-8000/udp", "8000/udp"},
		{"192.0.2.1:53/udp", "192.0.2.1:53/udp"},
		{"0.0.0.0:53/udp", "0.0.0.0:53/udp"},
		{"[::]:53/udp", "[::]:53/udp"},
		{"[2001:DB8:0::1]:80-81/tcp", "[2001:db8::1]:80-81/tcp"},
		{"", "want [IP:]PORT[-PORT]/PROTO"},
		{"80", "want [IP:]PORT[-PORT]/PROTO"},
		{"80/TCP", "want [IP:]PORT[-PORT]/PROTO"},
		{"80/icmp", "with tcp, udp or sctp"},
		{"80/tcp/udp", "want [IP:]PORT[-PORT]/PROTO"},
		{"/tcp", "is no port and no range"},
		{"0/tcp", "is no port and no range"},
		{"65536/tcp", "is no port and no range"},
		{"080/tcp", "is no port and no range"},
		{"+80/tcp", "is no port and no range"},
		{" 80/tcp", "is no port and no range"},
		{"80-/tcp", "is no port and no range"},
		{"80-90-100/tcp", "is no port and no range"},
		{"90-80/tcp", "first port is above its last"},
		{":80/tcp", "is no address to listen on"},
		{"web:80/tcp", "is no address to listen on"},
		{"2001:db8::1:80/tcp", "is no address to listen on"},
		{"[192.0.2.1]:80/tcp", "is no address to listen on"},
		{"[2001:db8::1:80/tcp", "is no address to listen on"},
		{"[fe80::1%eth0]:80/tcp", "is no address to listen on"},
		{"127.0.0.1:80/tcp", "is no address that a host may have"},
		{"[::ffff:192.0.2.1]:80/tcp", "is IPv4 in IPv6"},
	} {
		got, err := ParseListen(c.text)
		expectText(t, c.text, got.String(), err, c.want)
		if again, err := ParseListen(got.String()); err == nil && again != got {
			t.Errorf("%q: %+v read again is %+v", c.text, got, again)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"web:80", "web:80"},
		{"7up_-.x:80-90", "7up_-.x:80-90"},
		{"198.18.0.2:80", "198.18.0.2:80"},
		{"[2001:db8::2]:80", "[2001:db8::2]:80"},
		{"", "want PORTNAME:PORT[-PORT] or IP:PORT[-PORT]"},
		{"80", "want PORTNAME:PORT[-PORT] or IP:PORT[-PORT]"},
		{":80", "want PORTNAME:PORT[-PORT] or IP:PORT[-PORT]"},
		{"web", "want PORTNAME:PORT[-PORT] or IP:PORT[-PORT]"},
		{"web:", "is no port and no range"},
		{"web:http", "is no port and no range"},
		{"Web:80", "is neither a port's name nor an address"},
		{"2001:db8::2:80", "an IPv6 address stands in brackets"},
		{"web:80/tcp", "is no port and no range"},
		{"127.0.0.1:80", "is no address that a host may have"},
		{"0.0.0.0:80", "is no address that a host may have"},
	} {
		got, err := ParseTarget(c.text)
		expectText(t, c.text, got.String(), err, c.want)
	}
}

func TestParseMatch(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"198.18.0.2", "198.18.0.2/32"},
		{"198.18.0.0/16", "198.18.0.0/16"},
		{"2001:db8::1", "2001:db8::1/128"},
		{"::ffff:198.18.0.2", "198.18.0.2/32"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"198.18.0.2/16", "write one of the two"},
		{"web", "is no address and no subnet"},
		{"fe80::1%a", "is no address and no subnet"},
	} {
		got, err := ParseMatch(c.text)
		expectText(t, c.text, got.String(), err, c.want)
	}
}

// expectText holds a value against what is wanted, or, where that has a blank
// in it, an error.
func expectText(t *testing.T, text, got string, err error, want string) {
	t.Helper()
	if strings.Contains(want, " ") {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	} else if err != nil || got != want {
		t.Errorf("%q: %q, %v, want %q", text, got, err, want)
	}
}

func TestUplinkValidate(t *testing.T) {
	own := func(u Uplink) Uplink {
		u.Name, u.Interface, u.Mode = "u", "eth0", ModeOwn
		if u.Addresses == nil {
			u.Addresses = []string{"203.0.113.2/24", "2001:db8::2/64"}
		}
		return u
	}
	shared := func(u Uplink) Uplink {
		u.Name, u.Interface = "u", "eth0"
		return u
	}
	for _, c := range []struct {
		u    Uplink
		want string
	}{
		{shared(Uplink{}), ""},
		{shared(Uplink{Mode: ModeShared, Addresses: []string{"203.0.113.2/24"}, NextHops: addrs("203.0.113.1", "fe80::1"), Ports: "50000-50999"}), ""},
		{shared(Uplink{NextHops: addrs("203.0.113.1")}), ""},
		{own(Uplink{NextHops: addrs("203.0.113.1", "2001:db8::1"), MAC: "02:00:00:00:00:01", Ports: "1024-65535"}), ""},
		{Uplink{Interface: "eth0"}, "name: missing"},
		{Uplink{Name: "u"}, "interface: missing"},
		{Uplink{Name: "u", Interface: "a/b"}, "interface: "},
		{shared(Uplink{Mode: "nat"}), `mode: "nat" is no mode: want shared or own`},
		{shared(Uplink{MAC: "02:00:00:00:00:01"}), "mac: a shared uplink has its interface's"},
		{Uplink{Name: "u", Interface: "eth0", Mode: ModeOwn}, "addresses: missing"},
		{own(Uplink{MAC: "03:00:00:00:00:01"}), "mac: "},
		{own(Uplink{Ports: "1023-2000"}), "ports: 1023-2000 is out of range: want a part of 1024-65535"},
		{own(Uplink{Ports: "3000-2000"}), "ports: "},
		{own(Uplink{Ports: "x"}), "ports: "},
		{own(Uplink{Addresses: []string{"203.0.113.2"}}), "lacks its prefix length"},
		{own(Uplink{Addresses: []string{"auto"}}), `addresses[0]: "auto" is no address`},
		{own(Uplink{Addresses: []string{"203.0.113.2/24", "203.0.113.2/25"}}), "addresses[1]: 203.0.113.2 is given twice"},
		{own(Uplink{Addresses: []string{"fe80::2/64"}}), "is link-local"},
		{own(Uplink{Addresses: make([]string, MaxAddresses+1)}), "addresses: 1025 addresses: at most 1024"},
		{own(Uplink{NextHops: addrs("198.51.100.1")}), "next_hops[0]: 198.51.100.1 is in none of the subnets"},
		{own(Uplink{Addresses: []string{"203.0.113.2/32"}, NextHops: addrs("172.31.1.1")}), ""},
		{own(Uplink{Addresses: []string{"203.0.113.2/32"}, NextHops: addrs("2001:db8::1")}), "next_hops[0]: 2001:db8::1 is in none of the subnets"},
		{own(Uplink{NextHops: addrs("203.0.113.2")}), "next_hops[0]: 203.0.113.2 is an address of the uplink itself"},
		{own(Uplink{NextHops: addrs("203.0.113.255")}), "is the broadcast address"},
		{own(Uplink{NextHops: addrs("203.0.113.1", "203.0.113.3")}), "next_hops[1]: 203.0.113.3 is a second next hop"},
		{own(Uplink{NextHops: addrs("fe80::1%eth0")}), "without a zone"},
		{shared(Uplink{NextHops: addrs("127.0.0.1")}), "is no address that a host may have"},
		{shared(Uplink{NextHops: []netip.Addr{{}}}), "next_hops[0]: missing"},
	} {
		check(t, fmt.Sprintf("%+v", c.u), c.u.Validate(), c.want)
	}
}

func TestNATValidate(t *testing.T) {
	masquerade := func(n NAT) NAT {
		n.Type, n.Network, n.Uplink = TypeMasquerade, "n", "u"
		return n
	}
	publish := func(listen, to string) NAT {
		return NAT{Type: TypePublish, Uplink: "u", Listen: listen, To: to}
	}
	for _, c := range []struct {
		n    NAT
		want string
	}{
		{masquerade(NAT{}), ""},
		{masquerade(NAT{Mapping: EndpointIndependent, Filtering: EndpointIndependent, IPv6: IPv6Route}), ""},
		{masquerade(NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent}), ""},
		{masquerade(NAT{Mapping: AddressAndPortDependent, Filtering: EndpointIndependent}), "filtering: endpoint-independent filtering needs endpoint-independent mapping"},
		{masquerade(NAT{Mapping: "full-cone"}), `mapping: "full-cone": want endpoint-independent or address-and-port-dependent`},
		{masquerade(NAT{IPv6: "yes"}), `ipv6: "yes": want translate or route`},
		{masquerade(NAT{Listen: "80/tcp", To: "web:80"}), "listen: type masquerade has none: leave it out; to: type masquerade"},
		{NAT{Type: TypeMasquerade}, "uplink: missing: name the uplink; network: missing"},
		{NAT{Uplink: "u"}, "type: missing: want masquerade or publish"},
		{NAT{Type: "dnat", Uplink: "u"}, `type: "dnat" is no type of NAT`},
		{publish("80/tcp", "web:80"), ""},
		{publish("[::]:80-90/tcp", "[2001:db8::2]:180-190"), ""},
		{publish("", ""), "listen: missing: want [IP:]PORT[-PORT]/PROTO, as 8080/tcp; to: missing"},
		{publish("80", "web"), "listen: \"80\": want"},
		{publish("80-90/tcp", "web:80"), "to: 80-90 and 80 differ in length, 11 and 1 ports"},
		{publish("0.0.0.0:80/tcp", "[2001:db8::2]:80"), "to: 2001:db8::2 is no IPv4 address"},
		{NAT{Type: TypePublish, Uplink: "u", Listen: "80/tcp", To: "web:80", Network: "n", Mapping: "x"}, "network: type publish has none: leave it out; mapping: type publish"},
	} {
		check(t, fmt.Sprintf("%+v", c.n), c.n.Validate(), c.want)
	}
}

func TestNATSettingsValidate(t *testing.T) {
	for _, c := range []struct {
		s    NATSettings
		want string
	}{
		{NATSettings{}, ""},
		{NATSettings{TCPEstablished: MaxLifetime, UDP: MinLifetime, MaxContainerConns: MaxConns, MaxContainerPorts: MaxContainerPorts}, ""},
		{NATSettings{TCPTransitory: 1}, "tcp_transitory: 1ns is out of range: want 1s to 8760h0m0s"},
		{NATSettings{ICMP: -1}, "icmp: -1ns is out of range"},
		{NATSettings{TCPReset: MaxLifetime + 1}, "tcp_reset: "},
		{NATSettings{MaxContainerConns: -1}, "max_container_conns: -1 is out of range: want 1 to 16777215"},
		{NATSettings{MaxContainerPorts: MaxContainerPorts + 1}, "max_container_ports: 262145 is out of range"},
	} {
		check(t, fmt.Sprintf("%+v", c.s), c.s.Validate(), c.want)
	}
	for _, l := range new(NATSettings).lifetimes() {
		if i := slices.Index(fieldNames(reflect.TypeFor[NATSettings]()), l.name); i < 0 {
			t.Errorf("there is no field %s", l.name)
		}
	}
}

func TestNATWithDefaults(t *testing.T) {
	c := &Config{
		Uplinks: []Uplink{{Name: "a"}, {Name: "b", Mode: ModeOwn}, {Name: "c", Ports: "2000-2000"}},
		NAT: []NAT{
			{Type: TypeMasquerade, Network: "n"},
			{Type: TypePublish, Listen: "[2001:DB8::1]:80-80/tcp", To: "[2001:DB8::2]:80-80"},
		},
	}
	d := c.WithDefaults()
	for i, want := range []struct{ mode, ports string }{{"shared", "61000-65535"}, {"own", "1024-65535"}, {"shared", "2000"}} {
		if u := d.Uplinks[i]; u.Mode != want.mode || u.Ports != want.ports {
			t.Errorf("%+v, want %+v", u, want)
		}
	}
	if want := []NAT{
		{Type: TypeMasquerade, Network: "n", Mapping: EndpointIndependent, Filtering: AddressAndPortDependent, IPv6: IPv6Translate},
		{Type: TypePublish, Listen: "[2001:db8::1]:80/tcp", To: "[2001:db8::2]:80"},
	}; !slices.Equal(d.NAT, want) {
		t.Errorf("%+v", d.NAT)
	}
	if s := d.NATSettings; s.TCPEstablished != Duration(7440*time.Second) || s.TCPTransitory != Duration(240*time.Second) ||
		s.TCPReset != Duration(10*time.Second) || s.UDP != Duration(300*time.Second) || s.UDPOneWay != Duration(30*time.Second) ||
		s.ICMP != Duration(60*time.Second) || s.MaxContainerConns != 0 || c.NATSettings != (NATSettings{}) {
		t.Errorf("%+v", s)
	}
	if c.Uplinks[0].Mode != "" || c.NAT[0].Mapping != "" {
		t.Error("WithDefaults changed the original")
	}
}

// TestNATID: an id follows from what makes a NAT the one it is, and from
// nothing else; scripts keep ids, so they never change.
func TestNATID(t *testing.T) {
	for _, c := range []struct {
		n    NAT
		want string
	}{
		{NAT{Type: TypeMasquerade, Network: "blue", Uplink: "wan"}, "e83756f20108"},
		{NAT{Type: TypeMasquerade, Network: "blue", Uplink: "lan", Mapping: AddressAndPortDependent}, "e83756f20108"},
		{NAT{Type: TypePublish, Uplink: "wan", Listen: "8080/tcp", To: "web:80"}, "500b014917c1"},
		{NAT{Type: TypePublish, Uplink: "wan", Listen: "8080-8080/tcp", To: "db:90"}, "500b014917c1"},
	} {
		if got := c.n.ID(); got != c.want || CheckNATID(got) != nil {
			t.Errorf("%+v: %s, want %s", c.n, got, c.want)
		}
	}
	seen := map[string]NAT{}
	for _, n := range []NAT{
		{Type: TypeMasquerade, Network: "blue"},
		{Type: TypeMasquerade, Network: "red"},
		{Type: TypePublish, Uplink: "wan", Listen: "8080/tcp"},
		{Type: TypePublish, Uplink: "wan", Listen: "8080/udp"},
		{Type: TypePublish, Uplink: "wan", Listen: "0.0.0.0:8080/tcp"},
		{Type: TypePublish, Uplink: "lan", Listen: "8080/tcp"},
		{Type: TypePublish, Uplink: "wan", Listen: "8080-8081/tcp"},
	} {
		if other, twice := seen[n.ID()]; twice {
			t.Errorf("%+v and %+v have the id %s", n, other, n.ID())
		}
		seen[n.ID()] = n
	}
	for _, bad := range []string{"", "500b", "500B014917C1", "500b014917c1\n", "../../../etc"} {
		if CheckNATID(bad) == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}
