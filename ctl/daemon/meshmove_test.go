package daemon

import (
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// joined is a pair that is joined already.
func joined(t *testing.T) (one, two *testDaemon) {
	one, two = pair(t, listens)
	two.must("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil)
	await(t, "each has the other's station", func() bool {
		return one.fdb()[two.port("b").MAC] == "host2" && two.fdb()[one.port("a").MAC] == "host1"
	})
	return one, two
}

// arp is a request for an address, from 198.18.0.99 at station src.
func arp(src byte, ip string) []byte {
	b := frame(0xff, src)
	copy(b[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, src, 198, 18, 0, 99, 0, 0, 0, 0, 0, 0})
	a := netipAddr(ip).As4()
	copy(b[38:], a[:])
	return b
}

// TestMeshAnswers: what is announced is answered here and not sent on, and
// nobody asks others for the gateway that is here.
func TestMeshAnswers(t *testing.T) {
	t.Parallel()
	one, two := joined(t)
	gateway := `{"networks":[{"name":"net","subnets":["198.18.0.0/24"],"gateways":["198.18.0.1"]}]}`
	for _, d := range []*testDaemon{one, two} {
		d.must("POST", api.PathConfig, gateway, nil)
	}
	two.must("POST", api.PathPorts, config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c", IPs: []string{"198.18.0.7/24"}}, nil)
	mac := two.port("c").MAC
	await(t, "the station and its address", func() bool {
		m := one.members()["host2"]
		return one.fdb()[mac] == "host2" && slices.ContainsFunc(m.Endpoints, func(e api.Endpoint) bool {
			return e.MAC == mac && slices.Equal(e.IPs, []string{"198.18.0.7"})
		})
	})
	a := one.h.device(linkA).mem
	answered := func(ip string) (from string) {
		t.Helper()
		want := netipAddr(ip).As4()
		await(t, "an answer for "+ip, func() bool {
			a.Inject(0, mem.Frame{Data: arp(9, ip)}) // Again until it is answered, as hosts do.
			for _, f := range a.Sent(0) {
				if len(f.Data) >= 42 && f.Data[12] == 8 && f.Data[13] == 6 && f.Data[21] == 2 && bytes.Equal(f.Data[28:32], want[:]) {
					from = wire.MACAt(f.Data[22:]).String()
				}
			}
			return from != ""
		})
		return from
	}
	await(t, "the address at the tunnel", func() bool { // Which learns it after the switch has the station.
		one.mu.RLock()
		defer one.mu.RUnlock()
		return one.vtep.live.Stats().Announced == 1
	})
	sent := one.members()["host2"].TxFrames
	if from := answered("198.18.0.7"); from != mac {
		t.Errorf("answered by %s, want %s", from, mac)
	}
	if from := answered("198.18.0.1"); from != one.gatewayMAC("net").String() {
		t.Errorf("answered by %s, want this host's gateway", from)
	}
	if n := one.members()["host2"].TxFrames; n != sent {
		t.Errorf("%d requests were sent on", n-sent)
	}
	if status, err := two.call("POST", api.PathConfig, `{"ports":[{"name":"c","network":"net","netns":"/run/netns/c","ips":["198.18.0.8/24"]}]}`, nil); err != nil {
		t.Fatal(status, err)
	}
	await(t, "the new address", func() bool {
		e := one.members()["host2"].Endpoints
		return slices.ContainsFunc(e, func(e api.Endpoint) bool { return slices.Equal(e.IPs, []string{"198.18.0.8"}) })
	})
	if from := answered("198.18.0.8"); from != mac {
		t.Errorf("answered by %s, want %s", from, mac)
	}
}

// TestMeshPort: a port that moves to another host is followed, and comes back.
func TestMeshPort(t *testing.T) {
	t.Parallel()
	one, two := joined(t)
	spec := config.Port{Name: "m", Network: "net", NetNS: "/run/netns/c", MAC: "02:00:00:00:00:55", IPs: []string{"198.18.0.55/24"}}
	at := func(d *testDaemon, want string) {
		t.Helper()
		await(t, "the station at "+want, func() bool { return d.fdb()[spec.MAC] == want })
	}
	for range 2 {
		one.must("POST", api.PathPorts, spec, nil)
		at(two, "host1")
		one.must("DELETE", api.PathPorts+"/m", nil, nil)
		two.must("POST", api.PathPorts, spec, nil)
		at(one, "host2")
		two.must("DELETE", api.PathPorts+"/m", nil, nil)
		at(one, "")
	}
}

// TestMeshDuplicate: a MAC that two hosts have goes to and fro for a while, is
// told of, and then stays where it is.
func TestMeshDuplicate(t *testing.T) {
	t.Parallel()
	one, two := joined(t)
	a, b := one.h.device(linkA).mem, two.h.device(linkB).mem
	told := func(d *testDaemon) bool {
		return slices.ContainsFunc(d.events.kept(), func(e api.Event) bool {
			return e.Kind == eventAddressConflict && strings.Contains(e.Message, "02:00:00:00:00:07")
		})
	}
	const mac = "02:00:00:00:00:07"
	owner := func() (name string) {
		for _, m := range one.members() {
			if slices.ContainsFunc(m.Endpoints, func(e api.Endpoint) bool { return e.MAC == mac }) {
				name = m.Name
			}
		}
		return name
	}
	for i := 0; !told(one) && !told(two); i++ {
		if i > 30 {
			t.Fatal("nobody is told of it")
		}
		from, at := a, "host1"
		if i%2 == 1 {
			from, at = b, "host2"
		}
		await(t, "it at "+at, func() bool {
			from.Inject(0, mem.Frame{Data: frame(9, 7)})
			return owner() == at || told(one) || told(two)
		})
	}
}

// TestLocalEndpoints: one that has moved away comes back when it is heard, or
// when it was gone from here.
func TestLocalEndpoints(t *testing.T) {
	l, k := newLocalEndpoints(), stationKey{7, 0x20000000007}
	silent, heard := localStation{ips: []netip.Addr{netipAddr("198.18.0.7")}}, localStation{ips: []netip.Addr{netipAddr("198.18.0.7")}, seen: true}
	expect := func(what string, s localStation, want bool) {
		t.Helper()
		if l.news(k, s) != want {
			t.Errorf("%s: announced %v", what, !want)
		}
	}
	expect("a new one", silent, true)
	l.told[k] = silent.ips
	expect("an old one", heard, false)
	expect("with other addresses", localStation{}, true)
	l.owned(k, true)
	expect("one that moved away", silent, false)
	expect("one that was heard since", heard, true)
	l.owned(k, false)
	expect("one that vanished where it went", heard, false)
	l.owned(k, true)
	l.forget(k)
	expect("one that was gone", silent, true)
	l.owned(k, true)
	expect("another member's that comes here", silent, true)
}

// TestMeshPartition: the entries of a member that can't be reached go, and come
// back with it, without doubles.
func TestMeshPartition(t *testing.T) {
	t.Parallel()
	one, two := joined(t)
	w, mac := one.h.wire, two.port("b").MAC
	cut := func(yes bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cut["192.0.2.2:7946"] = yes
	}
	begun := time.Now()
	cut(true)
	await(t, "the failed member", func() bool { return one.members()["host2"].State == api.StateDown && one.fdb()[mac] == "" })
	// It takes 5 s, and here what the machine is busy with besides; with
	// memberlist's own times it would be half a minute.
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("after %s", took)
	}
	if o := one.members()["host2"]; o.Reason == "" || len(o.Endpoints) != 0 {
		t.Errorf("%+v", o)
	}
	cut(false)
	await(t, "both again", func() bool {
		return one.fdb()[mac] == "host2" && two.fdb()[one.port("a").MAC] == "host1" && one.mesh().State == api.MeshJoined
	})
	if m := one.members(); len(m) != 2 || len(m["host2"].Endpoints) != 1 {
		t.Errorf("%+v", m)
	}
}

// TestMeshApply: an apply that fails after it has joined leaves no mesh, and one
// that joins needs nobody to answer.
func TestMeshApply(t *testing.T) {
	t.Parallel()
	h := newTestHost()
	newWire(h)
	d := start(t, t.TempDir(), h)
	d.setUpQuiet()
	d.unsaved(func() {
		if status, err := d.call("POST", api.PathConfig, `{"peers":[{"name":"two","address":"192.0.2.2"}],"mesh":{"join":["192.0.2.3"]}}`, nil); err == nil {
			t.Errorf("%d", status)
		}
	})
	if m := d.mesh(); m.State != api.MeshOff || len(m.Join) > 0 || len(d.Peers()) > 0 {
		t.Errorf("%+v", m)
	}
	d.must("POST", api.PathConfig, `{"mesh":{"join":["192.0.2.3"]}}`, nil)
	if m := d.mesh(); m.State != api.MeshAlone || !slices.Equal(m.Join, []string{"192.0.2.3"}) {
		t.Errorf("%+v", m)
	}
	d.must("POST", api.PathConfig, `{"mesh":{"join":["192.0.2.4","192.0.2.5"]}}`, nil)
	if m := d.mesh(); m.State != api.MeshAlone || len(m.Join) != 2 {
		t.Errorf("%+v", m)
	}
	d.must("DELETE", api.PathMesh, nil, nil)
	h.set(func() { h.portTaken = true })
	status, err := d.call("POST", api.PathConfig, `{"mesh":{"join":["192.0.2.3"]}}`, nil)
	if err == nil || status != http.StatusConflict || !strings.Contains(err.Why, "address already in use") {
		t.Errorf("%d %+v", status, err)
	}
	if m := d.mesh(); m.State != api.MeshOff || len(m.Join) > 0 {
		t.Errorf("%+v", m)
	}
}

// TestMeshMoves: when this host's address is another one, the mesh is told so.
func TestMeshMoves(t *testing.T) {
	t.Parallel()
	one, two := joined(t)
	two.h.set(func() { two.h.at = netip.MustParseAddr("192.0.2.22") })
	two.lookAtPaths()
	await(t, "the new address", func() bool { return one.members()["host2"].VTEP == "192.0.2.22:4789" })
	await(t, "the mover in the mesh again", func() bool {
		m := two.mesh()
		return m.VTEP == "192.0.2.22:4789" && m.State == api.MeshJoined
	})
	await(t, "the tunnel to it", func() bool { return one.fdb()[two.port("b").MAC] == "host2" })
}

// unsaved calls f while nothing can be saved.
func (d *testDaemon) unsaved(f func()) {
	set := func(s *state) (was *state) {
		d.change.Lock()
		defer d.change.Unlock()
		was, d.state = d.state, s
		return was
	}
	was := set(&state{path: "/nonexistent/state.yaml"})
	f()
	set(was)
}
