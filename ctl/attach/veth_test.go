package attach

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// pairOf is the spec that the tests make: port web between two namespaces.
func pairOf(container, host *netns) Veth {
	return Veth{
		Port:      "web",
		Container: container.Namespace,
		Inner:     "eth0",
		MAC:       net.HardwareAddr{2, 0, 0, 0, 0, 7},
		Host:      host.Namespace,
		Outer:     HostName("web"),
		MTU:       1400,
	}
}

func create(t *testing.T, v Veth, wantAdopted bool) {
	t.Helper()
	adopted, err := CreateVeth(v)
	if err != nil {
		t.Fatal(err)
	}
	if adopted != wantAdopted {
		t.Errorf("adopted: %v, want %v", adopted, wantAdopted)
	}
}

func TestCreateVeth(t *testing.T) {
	checkLeaks(t)
	container, host := newNetNS(t), newNetNS(t)
	v := pairOf(container, host)
	create(t, v, false)

	inner, outer := container.link(t, "eth0"), host.link(t, "hd-web")
	if inner.Kind != "veth" || inner.MTU != 1400 || inner.MAC.String() != "02:00:00:00:00:07" || inner.Up || inner.Alias != "heddle:web" {
		t.Errorf("container's end: %+v", inner)
	}
	if outer.Kind != "veth" || outer.MTU != 1400 || !outer.Up || outer.Alias != "heddle:web" || !outer.Ethernet {
		t.Errorf("host's end: %+v", outer)
	}
	if port, ours := outer.Port(); port != "web" || !ours {
		t.Errorf("Port() = %q, %v", port, ours)
	}
	container.setUp(t, "eth0")
	shown := host.ip(t, "-d link show hd-web")
	for _, want := range []string{"NOARP", "addrgenmode none", "group default", "UP"} {
		if !strings.Contains(shown, want) {
			t.Errorf("host's end has no %q:\n%s", want, shown)
		}
	}
	if got := host.ip(t, "-o addr show dev hd-web"); got != "" {
		t.Errorf("host's end has an address: %s", got)
	}
	owned, err := host.Owned()
	if err != nil || len(owned) != 1 || owned[0].Name != "hd-web" {
		t.Errorf("Owned: %+v, %v", owned, err)
	}
	for _, end := range []struct {
		ns   *netns
		name string
	}{{container, "eth0"}, {host, "hd-web"}} {
		on := features(t, end.ns, end.name)
		for _, f := range inexpressible {
			if on[f] {
				t.Errorf("%s: %s is on", end.name, f)
			}
		}
		for _, f := range []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation", "tx-checksum-ip-generic"} {
			if !on[f] && !slices.Contains(inexpressible, f) {
				t.Errorf("%s: %s is off", end.name, f)
			}
		}
	}

	if err := host.Delete("hd-web", "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := container.Link("eth0"); !errors.Is(err, ErrNoLink) {
		t.Errorf("container's end after Delete: %v", err)
	}
}

// A swd that was killed leaves its pair; the next one takes it over without a
// break, and puts right what was changed meanwhile.
func TestVethTakeover(t *testing.T) {
	checkLeaks(t)
	container, host := newNetNS(t), newNetNS(t)
	v := pairOf(container, host)
	create(t, v, false)
	before := host.link(t, "hd-web")
	host.do(t, func() error {
		l, err := netlink.LinkByName("hd-web")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetARPOn(l), netlink.LinkSetMTU(l, 1000))
	})
	create(t, v, true)
	after := host.link(t, "hd-web")
	if after.Index != before.Index || !after.Up || after.MTU != 1400 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if !strings.Contains(host.ip(t, "link show hd-web"), "NOARP") {
		t.Error("ARP is on")
	}
}

// A swd that was killed between making the pair and marking it.
func TestVethHalfMade(t *testing.T) {
	for _, mark := range []string{"", "heddle:web"} {
		t.Run("alias="+mark, func(t *testing.T) {
			checkLeaks(t)
			container, host := newNetNS(t), newNetNS(t)
			v := pairOf(container, host)
			container.do(t, func() error {
				return container.fd(func(fd int) error {
					return host.Do(func() error {
						a := netlink.NewLinkAttrs()
						a.Name, a.Group = v.Outer, halfMade
						pair := netlink.NewVeth(a)
						pair.PeerName, pair.PeerNamespace = v.Inner, netlink.NsFd(fd)
						err := netlink.LinkAdd(pair)
						if err == nil && mark != "" {
							err = netlink.LinkSetAlias(pair, mark)
						}
						return err
					})
				})
			})
			create(t, v, false)
			if l := container.link(t, "eth0"); l.Alias != "heddle:web" {
				t.Errorf("%+v", l)
			}
		})
	}
}

// A container that was restarted has a new namespace: the old pair is of no
// use even where its end hasn't died yet.
func TestVethOfAnotherNamespaceIsReplaced(t *testing.T) {
	checkLeaks(t)
	old, container, host := newNetNS(t), newNetNS(t), newNetNS(t)
	create(t, pairOf(old, host), false)
	create(t, pairOf(container, host), false)
	if _, err := old.Link("eth0"); !errors.Is(err, ErrNoLink) {
		t.Errorf("in the old namespace: %v", err)
	}
	container.link(t, "eth0")
}

// Two swds may share a namespace: the second, with a port of the same name,
// takes nothing from the first, neither the pair nor the half of it that a
// third container would need.
func TestVethOfARunningSwdIsTaken(t *testing.T) {
	checkLeaks(t)
	container, other, host := newNetNS(t), newNetNS(t), newNetNS(t)
	create(t, pairOf(container, host), false)
	silence, err := host.Silence("hd-web")
	if err != nil {
		t.Fatal(err)
	}
	before := container.state(t) + other.state(t) + host.state(t)
	for _, in := range []*netns{container, other} {
		_, err := CreateVeth(pairOf(in, host))
		if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "a running swd uses it") {
			t.Errorf("CreateVeth: %v", err)
		}
	}
	if err := host.Delete("hd-web", "web"); !errors.Is(err, ErrTaken) {
		t.Errorf("Delete: %v", err)
	}
	if after := container.state(t) + other.state(t) + host.state(t); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
	if err := silence.Close(); err != nil {
		t.Fatal(err)
	}
	create(t, pairOf(container, host), true)
}

// A TAP that a process has open isn't deleted; one that was left behind is.
func TestDeleteOfAnOpenTAP(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	tap := &netlink.Tuntap{Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS}
	tap.Name = "tap0"
	ns.do(t, func() error { return netlink.LinkAdd(tap) })
	if err := ns.Claim("tap0", "web"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete("tap0", "web"); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "has it open") {
		t.Errorf("while it is open: %v", err)
	}
	ns.link(t, "tap0")
	for _, f := range tap.Fds {
		closing(t, f)
	}
	if err := ns.Delete("tap0", "web"); err != nil {
		t.Errorf("left behind: %v", err)
	}
}

func TestCreateVethRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, container, host *netns)
		spec  func(v *Veth)
		want  error
		says  string
	}{
		{
			name:  "container has such an interface",
			setup: func(t *testing.T, container, _ *netns) { container.addVeth(t, "eth0", "x") },
			want:  ErrLinkExists, says: "has a eth0",
		},
		{
			name:  "host has such an interface",
			setup: func(t *testing.T, _, host *netns) { host.addVeth(t, "hd-web", "x") },
			want:  ErrTaken, says: "hd-web",
		},
		{
			name: "host's end is another port's",
			setup: func(t *testing.T, _, host *netns) {
				host.addVeth(t, "hd-web", "x")
				if err := host.Claim("hd-web", "db"); err != nil {
					t.Fatal(err)
				}
			},
			want: ErrTaken,
		},
		{name: "MTU too small", spec: func(v *Veth) { v.MTU = 1 }, says: "create"},
		{name: "name too long", spec: func(v *Veth) { v.Inner = "sixteen-letters-" }, says: "create"},
		{name: "no name", spec: func(v *Veth) { v.Inner = "a/b" }, says: "create"},
		{name: "multicast MAC", spec: func(v *Veth) { v.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, says: "create"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			container, host := newNetNS(t), newNetNS(t)
			if tt.setup != nil {
				tt.setup(t, container, host)
			}
			v := pairOf(container, host)
			if tt.spec != nil {
				tt.spec(&v)
			}
			before := container.state(t) + host.state(t)
			_, err := CreateVeth(v)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %v saying %q", err, tt.want, tt.says)
			}
			if after := container.state(t) + host.state(t); after != before {
				t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

func TestDeleteRefuses(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "hd-db", "b")
	if err := ns.Delete("hd-db", "web"); !errors.Is(err, ErrTaken) {
		t.Errorf("of an interface that nobody claimed: %v", err)
	}
	if err := ns.Claim("hd-db", "db"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete("hd-db", "web"); !errors.Is(err, ErrTaken) {
		t.Errorf("of another port's: %v", err)
	}
	if err := ns.Claim("hd-db", "web"); !errors.Is(err, ErrTaken) {
		t.Errorf("Claim of another port's: %v", err)
	}
	if err := ns.Delete("none", "web"); !errors.Is(err, ErrNoLink) {
		t.Errorf("of none: %v", err)
	}
	if err := ns.Claim("hd-db", "db"); err != nil {
		t.Errorf("Claim again: %v", err)
	}
	if err := ns.Claim("b", "db"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete("b", "db"); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "hd-db on the host") {
		t.Errorf("of the container's end: %v", err)
	}
	if err := ns.Delete("hd-db", "db"); err != nil {
		t.Errorf("by its owner: %v", err)
	}
}

func TestFree(t *testing.T) {
	checkLeaks(t)
	ns := newNetNS(t)
	ns.addVeth(t, "slave", "free")
	ns.addVeth(t, "ported", "silent")
	ns.do(t, func() error {
		a := netlink.NewLinkAttrs()
		a.Name = "br7"
		bridge := &netlink.Bridge{LinkAttrs: a}
		l, err := netlink.LinkByName("slave")
		return errors.Join(err, netlink.LinkAdd(bridge), netlink.LinkSetMaster(l, bridge))
	})
	if err := ns.Claim("ported", "web"); err != nil {
		t.Fatal(err)
	}
	silence, err := ns.Silence("silent")
	if err != nil {
		t.Fatal(err)
	}
	defer silence.Close()
	for _, tt := range []struct {
		name string
		want error
		says string
	}{
		{"slave", ErrTaken, "it is part of bridge br7"},
		{"ported", ErrTaken, "made for port web"},
		{"silent", ErrTaken, "a running swd"},
		{"none", ErrNoLink, "interface none"},
		{"lo", nil, "no Ethernet"},
	} {
		if _, err := ns.Free(tt.name); err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Free(%s): %v, want %v saying %q", tt.name, err, tt.want, tt.says)
		}
	}
	l, err := ns.Free("free")
	if err != nil || l.Name != "free" || l.Kind != "veth" || l.MTU != 1500 {
		t.Errorf("%+v, %v", l, err)
	}
}
