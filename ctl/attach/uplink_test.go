package attach

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// watchUplink watches, and checks that the first state is there at once.
func watchUplink(t *testing.T, ns *netns, name string) *UplinkWatcher {
	t.Helper()
	w, err := ns.WatchUplink(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, w) })
	return w
}

// awaitState reads states until one that is wanted.
func awaitState(t *testing.T, w *UplinkWatcher, want func(s UplinkState) bool) UplinkState {
	t.Helper()
	for {
		if s := within(t, w.States()); want(s) {
			return s
		}
	}
}

// hops are next hops as `ADDR MAC`.
func hops(s UplinkState) (all []string) {
	for _, h := range s.NextHops {
		all = append(all, fmt.Sprint(h.Addr, " ", h.MAC))
	}
	return all
}

// client's eth0 is the router of the host's uplink; see newShared.
func TestUplink(t *testing.T) {
	checkLeaks(t)
	router, host := newShared(t)
	host.ip(t, "addr add 2001:db8::dead/64 dev up nodad preferred_lft 0")
	host.ip(t, "route add default via 192.0.2.1 dev up metric 20")
	host.ip(t, "route add default via 192.0.2.9 dev up metric 50")
	host.ip(t, "route add default via 192.0.2.8 dev up table 7")
	host.ip(t, "-6 route add default via 2001:db8::1 dev up")
	l := host.link(t, "up")
	s, err := host.Uplink("up")
	if err != nil {
		t.Fatal(err)
	}
	s.Addresses = slices.DeleteFunc(s.Addresses, isLinkLocal)
	want := UplinkState{
		Present: true, Index: l.Index, MAC: l.MAC, MTU: 1500, Up: true,
		Addresses: prefixes("192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64"),
		NextHops:  []NextHop{{Addr: addrs("192.0.2.1")[0]}, {Addr: addrs("2001:db8::1")[0]}},
	}
	if !s.equal(&want) {
		t.Errorf("%+v, want %+v", s, want)
	}

	// A multipath route: of each, the hop by the interface.
	host.addVeth(t, "other", "end")
	host.setUp(t, "other", "end")
	host.ip(t, "addr add 198.51.100.10/24 dev other")
	host.ip(t, "route replace default metric 10 nexthop via 198.51.100.1 dev other nexthop via 192.0.2.7 dev up")
	for name, want := range map[string]string{"up": "192.0.2.7 ", "other": "198.51.100.1 "} {
		s, err := host.Uplink(name)
		if err != nil || len(s.NextHops) == 0 || hops(s)[0] != want {
			t.Errorf("%s: next hops %q, %v", name, hops(s), err)
		}
	}
	if s, err := router.Uplink("none"); err != nil || !s.equal(&UplinkState{}) {
		t.Errorf("none: %+v, %v", s, err)
	}
}

func TestWatchUplink(t *testing.T) {
	checkLeaks(t)
	router, host := newShared(t)
	w := watchUplink(t, host, "up")
	s := within(t, w.States())
	if !s.Present || !s.Up || len(s.NextHops) != 0 {
		t.Errorf("first: %+v", s)
	}
	mac := router.link(t, "eth0").MAC.String()
	await := func(what string, want func(s UplinkState) bool) {
		t.Helper()
		t.Log(what)
		awaitState(t, w, want)
	}
	step := func(args string, want func(s UplinkState) bool) {
		t.Helper()
		host.ip(t, args)
		await(args, want)
	}
	// The kernel is made to find the MACs.
	step("route add default via 192.0.2.1 dev up", func(s UplinkState) bool {
		return slices.Equal(hops(s), []string{"192.0.2.1 " + mac})
	})
	step("-6 route add default via 2001:db8::1 dev up", func(s UplinkState) bool {
		return slices.Equal(hops(s), []string{"192.0.2.1 " + mac, "2001:db8::1 " + mac})
	})
	step("link set dev up mtu 1400", func(s UplinkState) bool { return s.MTU == 1400 })
	step("link set dev up address 02:00:00:00:00:77", func(s UplinkState) bool { return s.MAC.String() == "02:00:00:00:00:77" })
	step("addr add 192.0.2.12/24 dev up", func(s UplinkState) bool { return slices.Contains(s.Addresses, prefixes("192.0.2.12/24")[0]) })
	step("addr del 192.0.2.12/24 dev up", func(s UplinkState) bool { return !slices.Contains(s.Addresses, prefixes("192.0.2.12/24")[0]) })
	step("route replace default via 192.0.2.2 dev up", func(s UplinkState) bool { return slices.Contains(hops(s), "192.0.2.2 ") })
	// Nobody was there; the kernel is made to ask until somebody is.
	router.ip(t, "addr add 192.0.2.2/24 dev eth0")
	await("192.0.2.2 answers", func(s UplinkState) bool { return slices.Contains(hops(s), "192.0.2.2 "+mac) })
	// It gets another MAC, and the kernel has forgotten the one before.
	router.ip(t, "link set dev eth0 address 02:00:00:00:00:88")
	host.ip(t, "neigh del 192.0.2.2 dev up")
	await("another MAC", func(s UplinkState) bool { return slices.Contains(hops(s), "192.0.2.2 02:00:00:00:00:88") })
	router.ip(t, "link set dev eth0 down")
	await("no carrier", func(s UplinkState) bool { return s.Present && !s.Up })
	router.ip(t, "link set dev eth0 up")
	await("carrier", func(s UplinkState) bool { return s.Up })
	step("link set dev up down", func(s UplinkState) bool { return !s.Up && len(s.NextHops) == 0 })
	step("link set dev up name away", func(s UplinkState) bool { return !s.Present })
	host.ip(t, "link set dev away name up")
	s = awaitState(t, w, func(s UplinkState) bool { return s.Present })
	step("link del dev up", func(s UplinkState) bool { return !s.Present })
	host.addVeth(t, "up", "end")
	if again := awaitState(t, w, func(s UplinkState) bool { return s.Present }); again.Index == s.Index {
		t.Errorf("another interface with the same index %d", s.Index)
	}
}

// What changes while the state is asked for is told, also of an interface that
// is new.
func TestWatchUplinkChangesWhileItAsks(t *testing.T) {
	checkLeaks(t)
	host := newNetNS(t)
	asked, goOn := make(chan struct{}, 1), make(chan struct{})
	resume := sync.OnceFunc(func() { close(goOn) })
	var once sync.Once
	w, err := host.watchUplink("up", func(name string) (UplinkState, error) {
		s, err := uplinkState(name)
		if s.Present {
			once.Do(func() {
				asked <- struct{}{}
				<-goOn
			})
		}
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, w) })
	t.Cleanup(resume)
	host.addVeth(t, "up", "end")
	within(t, asked)
	select {
	case <-w.dirty: // The interface came with several messages.
	default:
	}
	host.ip(t, "addr add 192.0.2.10/24 dev up")
	await(t, "the message is taken for news", func() bool { return len(w.dirty) > 0 })
	resume()
	awaitState(t, w, func(s UplinkState) bool { return len(s.Addresses) == 1 })
}

// A reader that is behind gets the newest state, though messages were lost.
func TestWatchUplinkBehind(t *testing.T) {
	checkLeaks(t)
	_, host := newShared(t)
	w := watchUplink(t, host, "up")
	for i := range 60 {
		host.ip(t, fmt.Sprintf("link set dev up mtu %d", 1400+i%2))
	}
	host.ip(t, "link set dev up mtu 1300")
	states := 0
	for s := (UplinkState{}); s.MTU != 1300; states++ {
		s = within(t, w.States())
	}
	if states > 30 {
		t.Errorf("%d states for 61 changes in quick succession", states)
	}
	for range 2 {
		closing(t, w)
	}
	for range w.States() { // One may have come last. The channel is closed.
		continue
	}
	closing(t, host)
	if _, err := host.WatchUplink("up"); err == nil {
		t.Error("of a closed namespace: no error")
	}
}

func isLinkLocal(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() }
