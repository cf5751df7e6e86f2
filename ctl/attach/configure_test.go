package attach

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func addrs(all ...string) (a []netip.Addr) {
	for _, s := range all {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

// eth0 is what the tests ask for.
func eth0() Interface {
	return Interface{
		Name:          "eth0",
		MAC:           net.HardwareAddr{2, 0, 0, 0, 0, 9},
		MTU:           1400,
		Addresses:     prefixes("198.18.0.2/24", "2001:db8::2/64"),
		DefaultRoutes: addrs("198.18.0.1", "2001:db8::1"),
	}
}

// newContainer makes a namespace with an eth0 whose other end is up.
func newContainer(t *testing.T) *netns {
	t.Helper()
	ns := newNetNS(t)
	ns.addVeth(t, "eth0", "far")
	ns.setUp(t, "far")
	return ns
}

func TestConfigure(t *testing.T) {
	checkLeaks(t)
	ns := newContainer(t)
	if err := ns.Configure(t.Context(), eth0()); err != nil {
		t.Fatal(err)
	}
	if l := ns.link(t, "eth0"); !l.Up || !l.Running || l.MTU != 1400 || l.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("%+v", l)
	}
	if l := ns.link(t, "lo"); !l.Up {
		t.Error("lo is down")
	}
	shown := ns.ip(t, "-o addr show dev eth0")
	for _, want := range []string{"198.18.0.2/24 brd 198.18.0.255", "2001:db8::2/64", "nodad"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	for _, line := range strings.Split(shown, "\n") {
		if strings.Contains(line, "2001:db8::2") && strings.Contains(line, "tentative") {
			t.Errorf("not usable at once: %s", line)
		}
	}
	for _, a := range ns.addresses(t, "eth0") {
		if a.ours == a.prefix.Addr().IsLinkLocalUnicast() {
			t.Errorf("%+v: whose it is isn't known", a)
		}
	}
	if got := ns.ip(t, "-4 route show default"); !strings.Contains(got, "via 198.18.0.1 dev eth0 proto 72") {
		t.Errorf("IPv4 default route: %q", got)
	}
	if got := ns.ip(t, "-6 route show default"); !strings.Contains(got, "via 2001:db8::1 dev eth0 proto 72") {
		t.Errorf("IPv6 default route: %q", got)
	}

	// A second time changes nothing.
	before := ns.state(t)
	if err := ns.Configure(t.Context(), eth0()); err != nil {
		t.Fatal(err)
	}
	if after := ns.state(t); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

func TestConfigureRemovesOnlyWhatIsOursAndStale(t *testing.T) {
	for _, tt := range []struct {
		name       string
		want       func(i *Interface)
		has, lacks []string
	}{
		{
			name:  "other addresses and gateways",
			want:  func(i *Interface) { i.Addresses, i.DefaultRoutes = prefixes("198.18.1.2/24"), addrs("198.18.1.1") },
			has:   []string{"198.18.1.2/24", "198.18.0.77/24", "2001:db8::77/64", "default via 198.18.1.1", "203.0.113.0/24 via 198.18.0.254"},
			lacks: []string{"198.18.0.2/", "2001:db8::2/", "via 2001:db8::1", "default via 198.18.0.1"},
		},
		{
			name: "a longer prefix",
			want: func(i *Interface) { i.Addresses = prefixes("198.18.0.2/25", "2001:db8::2/96") },
			has: []string{"198.18.0.2/25", "2001:db8::2/96", "198.18.0.77/24", "default via 198.18.0.1", "default via 2001:db8::1",
				"203.0.113.0/24 via 198.18.0.254"},
			lacks: []string{"198.18.0.2/24", "2001:db8::2/64"},
		},
		{
			name:  "no default route",
			want:  func(i *Interface) { i.DefaultRoutes = nil },
			has:   []string{"198.18.0.2/24", "2001:db8::2/64", "198.18.0.77/24", "203.0.113.0/24 via 198.18.0.254"},
			lacks: []string{"default via"},
		},
		{
			name: "one address more, of the same subnet, before the others",
			want: func(i *Interface) { i.Addresses = prefixes("198.18.0.3/24", "198.18.0.2/24", "2001:db8::2/64") },
			has:  []string{"198.18.0.3/24", "198.18.0.2/24", "198.18.0.77/24", "default via 198.18.0.1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			ns := newContainer(t)
			if err := ns.Configure(t.Context(), eth0()); err != nil {
				t.Fatal(err)
			}
			// The container's own: secondary addresses of the same subnets,
			// which go along with the primary ones, and a route.
			ns.ip(t, "addr add 198.18.0.77/24 dev eth0")
			ns.ip(t, "addr add 2001:db8::77/64 dev eth0 nodad")
			ns.ip(t, "route add 203.0.113.0/24 via 198.18.0.254")
			i := eth0()
			tt.want(&i)
			if err := ns.Configure(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			state := ns.state(t)
			for _, s := range tt.has {
				if !strings.Contains(state, s) {
					t.Errorf("no %q", s)
				}
			}
			for _, s := range tt.lacks {
				if strings.Contains(state, s) {
					t.Errorf("still %q", s)
				}
			}
			if t.Failed() {
				t.Log(state)
			}
		})
	}
}

// What fails leaves the namespace as it was, whichever step it fails at.
func TestConfigureRefuses(t *testing.T) {
	otherRoute := func(t *testing.T, ns *netns) {
		ns.addVeth(t, "eth1", "far1")
		ns.setUp(t, "eth1", "far1")
		ns.ip(t, "addr add 203.0.113.2/24 dev eth1")
		ns.ip(t, "route add default via 203.0.113.1")
	}
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, ns *netns)
		spec  func(i *Interface)
		want  error
		says  string
	}{
		{name: "no such interface", spec: func(i *Interface) { i.Name = "eth9" }, want: ErrNoLink, says: "interface eth9"},
		{name: "default route there", setup: otherRoute, want: ErrDefaultRoute,
			says: "namespace already has a default route via 203.0.113.1 dev eth1"},
		{name: "default route there, without gateway", want: ErrDefaultRoute, says: "via eth1 ",
			setup: func(t *testing.T, ns *netns) {
				ns.addVeth(t, "eth1", "far1")
				ns.setUp(t, "eth1", "far1")
				ns.ip(t, "-6 route add default dev eth1")
			}},
		{name: "MAC", spec: func(i *Interface) { i.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, says: "set MAC 01:00:00:00:00:01"},
		{name: "MTU", spec: func(i *Interface) { i.MTU = 1 << 20 }, says: "set MTU 1048576"},
		{name: "address", spec: func(i *Interface) { i.Addresses = append(i.Addresses, prefixes("::1/128")...) }, says: "add address ::1/128"},
		{name: "address twice", spec: func(i *Interface) { i.Addresses = append(i.Addresses, prefixes("2001:db8::2/80")...) },
			says: "add address 2001:db8::2/80"},
		{name: "gateway is the broadcast address", spec: func(i *Interface) { i.DefaultRoutes = addrs("198.18.0.255") }, says: "add default route via 198.18.0.255"},
		{name: "the last step", spec: func(i *Interface) { i.DefaultRoutes = addrs("198.18.0.1", "2001:db8::2") },
			says: "add default route via 2001:db8::2"},
		{name: "IPv6 with too small an MTU", spec: func(i *Interface) { i.MTU = 1000 }, says: "IPv6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			ns := newContainer(t)
			if tt.setup != nil {
				tt.setup(t, ns)
			}
			before := ns.state(t)
			i := eth0()
			if tt.spec != nil {
				tt.spec(&i)
			}
			err := ns.Configure(t.Context(), i)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %v saying %q", err, tt.want, tt.says)
			}
			if after := ns.state(t); after != before {
				t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// With what an earlier Configure set in place, a later one that fails puts
// that back.
func TestConfigurePutsStaleThingsBack(t *testing.T) {
	checkLeaks(t)
	ns := newContainer(t)
	if err := ns.Configure(t.Context(), eth0()); err != nil {
		t.Fatal(err)
	}
	before := ns.ip(t, "-4 -br addr show dev eth0") + ns.ip(t, "route show default") + ns.ip(t, "-6 route show default")
	i := eth0()
	i.Addresses = prefixes("198.18.7.2/24", "2001:db8:7::2/64")
	i.DefaultRoutes = addrs("198.18.7.1", "2001:db8:7::2") // The latter is its own.
	if err := ns.Configure(t.Context(), i); err == nil {
		t.Fatal("no error")
	}
	after := ns.ip(t, "-4 -br addr show dev eth0") + ns.ip(t, "route show default") + ns.ip(t, "-6 route show default")
	if after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

func TestConfigureAddsToAnotherFamilysDefaultRoute(t *testing.T) {
	checkLeaks(t)
	ns := newContainer(t)
	ns.addVeth(t, "eth1", "far1")
	ns.setUp(t, "eth1", "far1")
	ns.ip(t, "-6 addr add 2001:db8:9::2/64 dev eth1 nodad")
	ns.ip(t, "-6 route add default via 2001:db8:9::1")
	i := eth0()
	i.DefaultRoutes = addrs("198.18.0.1")
	if err := ns.Configure(t.Context(), i); err != nil {
		t.Error(err)
	}
}

// A gateway outside the container's own prefixes, as of a /32.
func TestConfigureGatewayOffLink(t *testing.T) {
	checkLeaks(t)
	ns := newContainer(t)
	i := eth0()
	i.Addresses = prefixes("198.18.0.2/32", "2001:db8::2/128")
	if err := ns.Configure(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"-4", "-6"} {
		if got := ns.ip(t, family+" route show default"); !strings.Contains(got, "onlink") {
			t.Errorf("%s: %s", family, got)
		}
	}
}

// Container engines switch IPv6 off in namespaces that they give no address.
func TestConfigureSwitchesIPv6On(t *testing.T) {
	checkLeaks(t)
	ns := newContainer(t)
	ns.do(t, func() error { return writeFile(sysctlIPv6("eth0"), "1") })
	i := eth0()
	if err := ns.Configure(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if got := ns.ip(t, "-6 -o addr show dev eth0"); !strings.Contains(got, "2001:db8::2/64") {
		t.Errorf("addresses: %s", got)
	}

	// A failure switches it off again.
	ns.do(t, func() error { return writeFile(sysctlIPv6("eth0"), "1") })
	i.DefaultRoutes = addrs("198.18.0.255")
	if err := ns.Configure(t.Context(), i); err == nil {
		t.Fatal("no error")
	}
	ns.do(t, func() error {
		got, err := readFile(sysctlIPv6("eth0"))
		if got != "1" {
			t.Errorf("disable_ipv6 is %q", got)
		}
		return err
	})
}

// Configure waits for the carrier, and no longer than it may.
func TestConfigureWaits(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "eth0", "far")
	before := ns.state(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	tooLate := errors.New("too late")
	result := make(chan error)
	go func() { result <- ns.Configure(ctx, eth0()) }()
	awaitUp(t, ns)
	cancel(tooLate)
	if err := within(t, result); !errors.Is(err, ErrNotUsable) || !errors.Is(err, tooLate) || !strings.Contains(err.Error(), "no carrier") {
		t.Errorf("%v", err)
	}
	if after := ns.state(t); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}

	go func() { result <- ns.Configure(t.Context(), eth0()) }()
	awaitUp(t, ns)
	ns.setUp(t, "far")
	if err := within(t, result); err != nil {
		t.Error(err)
	}
	if l := ns.link(t, "eth0"); !l.Running {
		t.Errorf("%+v", l)
	}

	// An interface that goes away ends the wait.
	ns.ip(t, "link set far down")
	ns.running(t, "eth0", false)
	go func() { result <- ns.Configure(t.Context(), eth0()) }()
	awaitUp(t, ns)
	ns.ip(t, "link del far")
	if err := within(t, result); err == nil || strings.Contains(err.Error(), "put back") {
		t.Errorf("of an interface that went away: %v", err)
	}
}

// awaitUp returns when eth0 is set up and has its default route: Configure
// waits for nothing but the carrier then.
func awaitUp(t *testing.T, ns *netns) {
	t.Helper()
	events := make(chan netlink.RouteUpdate)
	done := make(chan struct{})
	defer close(done)
	ns.do(t, func() error {
		return netlink.RouteSubscribeWithOptions(events, done, netlink.RouteSubscribeOptions{ListExisting: true})
	})
	for e := range events {
		if e.Type == unix.RTM_NEWROUTE && e.Gw.Equal(net.ParseIP("2001:db8::1")) {
			go func() {
				for range events {
					continue // Until the subscription has ended.
				}
			}()
			return
		}
	}
	t.Fatal("no default route came")
}
