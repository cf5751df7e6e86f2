package daemon

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// TestWayToTheHost: there is one while a network is masqueraded and an uplink
// shared, and it follows the interface's addresses.
func TestWayToTheHost(t *testing.T) {
	d := startNAT(t)
	way := func() *fakeStack {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		return d.h.stack
	}
	if way() != nil {
		t.Error("there is a way to the host without a masquerade")
	}
	// An uplink that isn't the network's, and comes before it by name.
	other := nic()
	other.Addresses, other.NextHops = []netip.Prefix{netip.MustParsePrefix("203.0.113.9/24")}, nil
	d.h.setNIC("up1", other)
	d.must("POST", api.PathUplinks, `{"name":"another","interface":"up1"}`, nil)
	var rule api.NAT
	d.must("POST", api.PathNAT, masquerade, &rule)
	route := func(source string) attach.Stack {
		return attach.Stack{MTU: 1500, Routes: []attach.StackRoute{
			{Subnet: netip.MustParsePrefix("198.18.0.0/24"), Source: netip.MustParseAddr(source), MTU: 1500},
		}}
	}
	set := func() (s attach.Stack) {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		if d.h.stack != nil {
			s = d.h.stack.set
		}
		return s
	}
	if got := set(); !reflect.DeepEqual(got, route("192.0.2.9")) {
		t.Errorf("the way to the host is %+v", got)
	}
	moved := nic()
	moved.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24")}
	d.h.setNIC("up0", moved)
	await(t, "the route has the new address as its source", func() bool {
		return reflect.DeepEqual(set(), route("192.0.2.77"))
	})
	d.must("DELETE", api.PathUplinks+"/another", nil, nil)
	d.h.setNIC("up0", attach.UplinkState{})
	await(t, "no way to a host without an address", func() bool { return way() == nil })
	d.h.setNIC("up0", nic())
	await(t, "it is back", func() bool { return reflect.DeepEqual(set(), route("192.0.2.9")) })
	d.must("DELETE", api.PathNAT+"/"+rule.ID, nil, nil)
	if way() != nil {
		t.Error("there is a way to the host after the masquerade")
	}
}

// TestWayToTheHostIsGuarded: a container's own VXLAN datagrams don't reach the
// host's stack while there are tunnels; other ports' do.
func TestWayToTheHostIsGuarded(t *testing.T) {
	h := newTestHost()
	newWire(h)
	has := nic()
	has.Addresses, has.NextHops = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}, nil
	h.setNIC("up0", has)
	d := start(t, t.TempDir(), h)
	d.setUp()
	d.must("POST", api.PathUplinks, `{"name":"wan","interface":"up0"}`, nil)
	d.must("POST", api.PathNAT, masquerade, nil)
	a, host := h.device(linkA).mem, h.stack.mem
	send := func(port uint16, want int) {
		t.Helper()
		b := vxlanFrame("192.0.2.1")
		d.gatewayMAC("net").Put(b)
		copy(b[26:], []byte{198, 18, 0, 99})
		binary.BigEndian.PutUint16(b[36:], port)
		binary.BigEndian.PutUint16(b[24:], 0)
		binary.BigEndian.PutUint16(b[24:], ^wire.Fold(wire.Sum(b[14:34], 0)))
		before := d.port("a").RxFrames
		a.Inject(0, mem.Frame{Data: b})
		await(t, "the frame has come", func() bool { return d.port("a").RxFrames == before+1 })
		d.engine.Do(func(int) {}) // The batch has gone to all ports.
		if got := len(host.Sent(0)); got != want {
			t.Errorf("port %d: %d frames at the host, want %d", port, got, want)
		}
	}
	send(4789, 1)
	d.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	send(4789, 0)
	send(4790, 1)
	var drops []api.DropCount
	d.must("GET", api.PathDrops, nil, &drops)
	if !slices.ContainsFunc(drops, func(c api.DropCount) bool { return c.Reason == "underlay-guard" && c.Count == 1 }) {
		t.Errorf("dropped %+v", drops)
	}
	d.must("DELETE", api.PathPeers+"/two", nil, nil)
	send(4789, 1)
}
