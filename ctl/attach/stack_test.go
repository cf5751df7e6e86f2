package attach

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestConfigureStack(t *testing.T) {
	checkLeaks(t)
	_, host := newShared(t)
	host.ip(t, "link add hd0 type veth peer name other")
	host.ip(t, "link set other up")
	host.ip(t, "route add 198.18.2.0/24 dev other") // The host's own way there wins.
	routes := []StackRoute{
		{netip.MustParsePrefix("198.18.0.1/24"), netip.MustParseAddr("192.0.2.10"), 1450},
		{netip.MustParsePrefix("198.18.2.0/24"), netip.MustParseAddr("192.0.2.10"), 1500},
		{netip.MustParsePrefix("2001:db8:18::/64"), netip.MustParseAddr("2001:db8::10"), 1450},
	}
	for range 2 {
		if err := host.ConfigureStack("hd0", Stack{MTU: 1500, Routes: routes}); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(command string, want ...string) {
		t.Helper()
		got := host.ip(t, command)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("ip %s: no %q in\n%s", command, w, got)
			}
		}
	}
	shows("-d link show dev hd0", "NOARP", "UP", "mtu 1500", "addrgenmode none")
	shows("route get 198.18.0.9", "dev hd0 src 192.0.2.10", "mtu 1450")
	shows("route get 198.18.2.9", "dev other")
	shows("-6 route get 2001:db8:18::9", "dev hd0", "src 2001:db8::10")

	routes = routes[:1]
	routes[0].Source = netip.MustParseAddr("192.0.2.11")
	if err := host.ConfigureStack("hd0", Stack{MTU: 1500, Routes: routes}); err != nil {
		t.Fatal(err)
	}
	shows("route get 198.18.0.9", "dev hd0 src 192.0.2.11")
	if got := host.ip(t, "-6 route show dev hd0") + host.ip(t, "route show dev hd0"); strings.Contains(got, "2001:db8:18") || strings.Contains(got, "198.18.2") {
		t.Errorf("routes that are wanted no more:\n%s", got)
	}
	// With the address the kernel takes its route; the next one brings it back.
	host.ip(t, "addr del 192.0.2.11/24 dev up")
	host.ip(t, "addr add 192.0.2.11/24 dev up")
	if err := host.ConfigureStack("hd0", Stack{MTU: 1500, Routes: routes}); err != nil {
		t.Fatal(err)
	}
	shows("route get 198.18.0.9", "dev hd0 src 192.0.2.11")

	if err := host.ConfigureStack("nope", Stack{MTU: 1500}); !errors.Is(err, ErrNoLink) {
		t.Errorf("an interface that isn't there: %v", err)
	}
	routes[0].Source = netip.MustParseAddr("192.0.2.77")
	if err := host.ConfigureStack("hd0", Stack{MTU: 1500, Routes: routes}); err == nil || !strings.Contains(err.Error(), "198.18.0.1/24 from 192.0.2.77") {
		t.Errorf("an address that the host hasn't: %v", err)
	}
}
