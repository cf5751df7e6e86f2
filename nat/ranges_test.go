package nat

import (
	"net/netip"
	"testing"
)

// An uplink with a thousand addresses looks at their subnets only, for a packet.
func TestRangesOfALink(t *testing.T) {
	var l link
	var addresses []netip.Prefix
	for a := netip.MustParseAddr("192.0.2.1"); len(addresses) < 200; a = a.Next() {
		addresses = append(addresses, netip.PrefixFrom(a, 24))
	}
	for _, more := range []string{"198.51.100.7/32", "198.51.100.9/32", "203.0.113.1/25", "203.0.113.2/24", "2001:db8::1/64", "2001:db8::2/64", "2001:db8:1::1/128"} {
		addresses = append(addresses, netip.MustParsePrefix(more))
	}
	for range 2 { // Setting it anew forgets what it was.
		if err := l.set(0x02000000bb01, 1500, addresses); err != nil {
			t.Fatal(err)
		}
		l.addLinkLocal()
	}
	if len(l.subnets) != 208 || len(l.own) != 208 || len(l.ranges) != 5 {
		t.Errorf("%d subnets, %d own addresses, %d ranges; want 208, 208, 5", len(l.subnets), len(l.own), len(l.ranges))
	}
	for a, near := range map[string]bool{
		"192.0.2.250": true, "192.0.3.1": false, "198.51.100.8": false, "203.0.113.200": true,
		"2001:db8::99": true, "2001:db8:1::2": false, "fe80::5": true, "2001:db8:2::1": false,
	} {
		if got := l.isNear(addrOf(netip.MustParseAddr(a))); got != near {
			t.Errorf("%s is near: %v, want %v", a, got, near)
		}
	}
}
