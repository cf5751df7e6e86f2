package tap

import (
	"regexp"
	"testing"

	"heddle/bench/lab"
)

// TestRoutedOn: what is written as one the kernel of a container that routes cuts
// to fit the next interface, and drops nothing.
//
//	a: t0 ── port ── relay ── port ── t0 :r: t1 ── port ── relay ── port ── t0 :b
//	198.18.0.1           198.18.0.254    198.18.1.254                  198.18.1.1
func TestRoutedOn(t *testing.T) {
	l := lab.New(t)
	a, r, b := l.NewNetNS("a"), l.NewNetNS("r"), l.NewNetNS("b")
	open := func(n *lab.NetNS, name string, addresses ...string) *Port {
		p := openIn(l, n, Config{Name: name, GROMax: BigTCP})
		l.NoError(n.AddAddress(name, addresses...))
		return p
	}
	startRelay(l, open(a, "t0", "198.18.0.1/24", "2001:db8::1/64"), open(r, "t0", "198.18.0.254/24", "2001:db8::fe/64"))
	startRelay(l, open(r, "t1", "198.18.1.254/24", "2001:db8:1::fe/64"), open(b, "t0", "198.18.1.1/24", "2001:db8:1::1/64"))
	l.NoError(r.Sysctl("net/ipv4/ip_forward", "1"))
	l.NoError(r.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	l.Run(a, "ip", "route", "add", "default", "via", "198.18.0.254")
	l.Run(a, "ip", "route", "add", "default", "via", "2001:db8::fe")
	l.Run(b, "ip", "route", "add", "default", "via", "198.18.1.254")
	l.Run(b, "ip", "route", "add", "default", "via", "2001:db8:1::fe")
	l.Run(a, "ping", "-c", "1", "-w", "20", "198.18.1.1")
	l.Run(a, "ping", "-c", "1", "-w", "20", "2001:db8:1::1")

	arrived := startWatch(l, openSocket(l, r, "t0"))
	awaitJoined(l, arrived, func() {
		pass(l, a, b, "198.18.1.1:7000")
		pass(l, a, b, "[2001:db8:1::1]:7000")
	})
	counts := l.Run(r, "nstat", "-asz", "IpFragFails", "Ip6InTooBigErrors", "Ip6FragFails")
	if zero := regexp.MustCompile(`(?m)^Ip\w+\s+0\s`); len(zero.FindAllString(counts, -1)) != 3 {
		t.Errorf("the router found packets too long:\n%s", counts)
	}
}
