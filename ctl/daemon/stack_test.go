package daemon

import (
	"net/netip"
	"reflect"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
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
	d.h.setNIC("up0", attach.UplinkState{})
	await(t, "no way to a host without an address", func() bool { return way() == nil })
	d.h.setNIC("up0", nic())
	await(t, "it is back", func() bool { return reflect.DeepEqual(set(), route("192.0.2.9")) })
	d.must("DELETE", api.PathNAT+"/"+rule.ID, nil, nil)
	if way() != nil {
		t.Error("there is a way to the host after the masquerade")
	}
}
