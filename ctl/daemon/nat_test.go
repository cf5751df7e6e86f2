package daemon

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
)

// nic is an interface with an address and a router.
func nic() attach.UplinkState {
	return attach.UplinkState{
		Present: true, Index: 7, MAC: net.HardwareAddr{2, 0, 0, 0, 0xee, 1}, MTU: 1500, Up: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")},
		NextHops:  []attach.NextHop{{Addr: netip.MustParseAddr("192.0.2.1")}},
	}
}

// startNAT starts a daemon with ports a and b and a shared uplink.
func startNAT(t *testing.T) *testDaemon {
	t.Helper()
	h := newTestHost()
	h.setNIC("up0", nic())
	d := start(t, t.TempDir(), h)
	d.setUp()
	d.must("POST", api.PathUplinks, `{"name":"wan","interface":"up0"}`, nil)
	return d
}

const (
	masquerade = `{"type":"masquerade","network":"net","uplink":"wan"}`
	publish    = `{"type":"publish","uplink":"wan","listen":"8080/tcp","to":"a:80"}`
)

func (d *testDaemon) uplink() (u api.Uplink) {
	d.t.Helper()
	d.must("GET", api.PathUplinks+"/wan", nil, &u)
	return u
}

func TestNATRefusals(t *testing.T) {
	d := startNAT(t)
	d.h.set(func() { d.h.held[22] = true })
	d.must("POST", api.PathNAT, masquerade, nil)
	var made api.NAT
	d.must("POST", api.PathNAT, publish, &made)
	if made.State != api.StateUp || made.Network != "net" || len(made.ToAddresses) != 1 {
		t.Errorf("%+v", made)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", api.PathNAT, masquerade, 409, "has a masquerade already"},
		{"POST", api.PathNAT, publish, 409, "published on uplink wan already, to a:80 (" + made.ID},
		{"POST", api.PathNAT, `{"type":"publish","uplink":"wan","listen":"22/tcp","to":"a:80"}`, 409, "in use"},
		{"POST", api.PathNAT, `{"type":"publish","uplink":"nope","listen":"23/tcp","to":"a:80"}`, 404, "no uplink nope"},
		{"POST", api.PathNAT, `{"type":"publish","uplink":"wan","listen":"23/tcp","to":"c:80"}`, 409, `no port "c"`},
		{"POST", api.PathNAT, `{"type":"masquerade","network":"nope","uplink":"wan"}`, 404, "no network nope"},
		{"POST", api.PathUplinks, `{"name":"wan","interface":"up0"}`, 409, "it exists"},
		{"POST", api.PathUplinks, `{"name":"two","interface":"up0"}`, 409, "is taken by uplink"},
		{"POST", api.PathUplinks, `{"name":"two","interface":"nope"}`, 422, "interface nope"},
		{"DELETE", api.PathUplinks + "/wan", "", 409, "NAT uses it"},
		{"DELETE", api.PathUplinks + "/two", "", 404, "no uplink two"},
		{"DELETE", api.PathNAT + "/0123456789ab", "", 404, "no NAT"},
		{"GET", api.PathConns + "?proto=x", "", 400, "proto"},
		{"GET", api.PathConns + "?src=x", "", 400, "src"},
		{"GET", api.PathConns + "?limit=-1", "", 400, "limit"},
		{"GET", api.PathConns + "?network=x", "", 404, "no network"},
	} {
		var in any
		if c.body != "" {
			in = c.body
		}
		if status, err := d.call(c.method, c.path, in, nil); status != c.status || err == nil || !strings.Contains(err.Why, c.says) {
			t.Errorf("%s %s %s: %d %v, want %d %s", c.method, c.path, c.body, status, err, c.status, c.says)
		}
	}
	if n := len(d.NATs()); n != 2 {
		t.Errorf("%d rules after refusals", n)
	}
	d.must("DELETE", api.PathConns+"?network=net&proto=icmp&src=198.18.0.0/24&dst=192.0.2.1", nil, nil)
	if status := d.Status(); status.Uplinks != 1 || status.MaxConns != 1000 || status.MACs != 0 {
		t.Errorf("%+v", status)
	}
}

// TestNATEndsWithItsPort: what names a port goes with it, and what was asked
// for comes back with a restart.
func TestNATEndsWithItsPort(t *testing.T) {
	d := startNAT(t)
	d.must("POST", api.PathNAT, masquerade, nil)
	d.must("POST", api.PathNAT, publish, nil)
	if claim := d.h.uplinks["up0"].o.claim; len(claim.Published) != 1 || claim.Ports != (attach.PortRange{First: 61000, Last: 65535}) {
		t.Errorf("claim %+v", claim)
	}
	exported := d.Export()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	h := newTestHost()
	h.setNIC("up0", nic())
	again := start(t, d.dir, h)
	again.allUp()
	if got := again.Export(); len(got.NAT) != 2 || got.NAT[0] != exported.NAT[0] || got.NAT[1] != exported.NAT[1] {
		t.Errorf("%+v after a restart, %+v before", got.NAT, exported.NAT)
	}
	for _, n := range again.NATs() {
		if n.State != api.StateUp {
			t.Errorf("after a restart: %+v", n)
		}
	}
	again.must("DELETE", api.PathPorts+"/a", nil, nil)
	if n := again.NATs(); len(n) != 1 || n[0].Type != config.TypeMasquerade || h.held[8080] {
		t.Errorf("after the port: %+v", n)
	}
}

// TestUplinkFollowsItsInterface: addresses, link, and an interface that goes
// and comes back.
func TestUplinkFollowsItsInterface(t *testing.T) {
	d := startNAT(t)
	d.must("POST", api.PathNAT, publish, nil)
	d.must("POST", api.PathNAT, `{"type":"publish","uplink":"wan","listen":"192.0.2.9:81/tcp","to":"b:80"}`, nil)
	s := nic()
	s.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}
	d.h.setNIC("up0", s)
	await(t, "the new address", func() bool { u := d.uplink(); return len(u.Addresses) == 1 && u.Addresses[0] == "192.0.2.10/24" })
	down := func() (n int) {
		for _, r := range d.NATs() {
			if r.State == api.StateDown {
				n++
			}
		}
		return n
	}
	await(t, "the rule without its address is down", func() bool { return down() == 1 })
	d.h.setNIC("up0", attach.UplinkState{})
	await(t, "gone", func() bool { u := d.uplink(); return u.State == api.StateDown && strings.Contains(u.Reason, "gone") })
	await(t, "the rules know", func() bool { return down() == 2 })
	s = nic()
	s.Index = 8
	d.h.setNIC("up0", s)
	await(t, "back", func() bool { return d.uplink().State == api.StateUp && down() == 0 })
}

// TestNATApplyIsAtomic: an apply whose last step fails leaves nothing, and a
// changed rule is another.
func TestNATApplyIsAtomic(t *testing.T) {
	h := newTestHost()
	h.setNIC("up0", nic())
	d := start(t, t.TempDir(), h)
	d.setUp()
	file := func(listen string) string {
		return `{"uplinks":[{"name":"wan","interface":"up0"}],"nat":[` + masquerade + `,` + strings.Replace(publish, "8080/tcp", listen, 1) + `],"nat_settings":{"udp":"60s"}}`
	}
	h.set(func() { h.held[22] = true })
	if status, err := d.call("POST", api.PathConfig, file("22/tcp"), nil); status != 409 || !strings.Contains(err.Why, attach.ErrPortInUse.Error()) {
		t.Errorf("%d %v", status, err)
	}
	if c := d.Export(); len(c.Uplinks)+len(c.NAT) > 0 || c.NATSettings != (config.NATSettings{}) || len(h.uplinks) > 0 {
		t.Errorf("left: %+v", c)
	}
	var done api.Applied
	d.must("POST", api.PathConfig, file("8080/tcp"), &done)
	if len(done.Created) != 3 {
		t.Errorf("%+v", done)
	}
	d.must("POST", api.PathConfig, file("8080/tcp"), &done)
	if len(done.Created)+len(done.Changed) != 0 {
		t.Errorf("a second time: %+v", done)
	}
	d.must("POST", api.PathConfig, `{"nat":[`+strings.Replace(publish, "a:80", "b:80", 1)+`]}`, &done)
	if len(done.Changed) != 1 {
		t.Errorf("another target: %+v", done)
	}
	h.setNIC("up1", nic())
	h.set(func() { h.failOpen = errors.New("no more sockets") })
	if status, _ := d.call("POST", api.PathConfig, `{"uplinks":[{"name":"wan","interface":"up1"}]}`, nil); status < 400 {
		t.Errorf("an uplink that can't be opened: %d", status)
	}
	h.set(func() { h.failOpen = nil })
	await(t, "it comes back", func() bool { u := d.uplink(); return u.State == api.StateUp && u.Interface == "up0" })
}

// TestAChangedUplinkGoesOn: other ports, addresses or next hops on the same
// interface end nothing.
func TestAChangedUplinkGoesOn(t *testing.T) {
	d := startNAT(t)
	d.must("POST", api.PathNAT, masquerade, nil)
	d.must("POST", api.PathNAT, publish, nil)
	was := d.uplinks["wan"].live
	d.h.set(func() { d.h.held[62500] = true })
	if status, err := d.call("POST", api.PathConfig, `{"uplinks":[{"name":"wan","interface":"up0","ports":"62000-63000"}]}`, nil); status != 409 || !strings.Contains(err.Why, "in use") {
		t.Errorf("a port that the host uses: %d %v", status, err)
	}
	if u := d.uplink(); u.State != api.StateUp || u.Ports != config.DefaultSharedPorts {
		t.Errorf("after a refusal: %+v", u)
	}
	var done api.Applied
	d.must("POST", api.PathConfig, `{"uplinks":[{"name":"wan","interface":"up0","ports":"63001-64000","next_hops":["192.0.2.7"]}]}`, &done)
	u := d.uplink()
	if len(done.Changed) != 1 || u.State != api.StateUp || u.Ports != "63001-64000" || len(u.NextHops) != 1 || u.NextHops[0].Address != "192.0.2.7" {
		t.Errorf("%+v, the uplink is %+v", done, u)
	}
	if claim := d.h.uplinks["up0"].o.claim; claim.Ports != (attach.PortRange{First: 63001, Last: 64000}) || len(claim.Published) != 1 {
		t.Errorf("claim %+v", claim)
	}
	// One that fails later on takes it back.
	if status, _ := d.call("POST", api.PathConfig, `{"uplinks":[{"name":"wan","interface":"up0"}],"nat":[{"type":"publish","uplink":"wan","listen":"62500/tcp","to":"a:80"}]}`, nil); status != 409 {
		t.Errorf("a port that the host uses: %d", status)
	}
	if u := d.uplink(); u.Ports != "63001-64000" || d.uplinks["wan"].live != was {
		t.Errorf("after a refusal: %+v, another uplink: %v", u, d.uplinks["wan"].live != was)
	}
	if exported := d.Export(); len(exported.Uplinks) != 1 || exported.Uplinks[0].Ports != "63001-64000" {
		t.Errorf("exported %+v", exported.Uplinks)
	}
}

// TestGatewayStaysHere: a gateway that a network gets while it has tunnels doesn't
// announce itself by them, not even at once: each host has its own.
func TestGatewayStaysHere(t *testing.T) {
	one, _ := pair(t)
	one.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	a := one.h.device(linkA).mem
	func() {
		one.change.Lock()
		defer one.change.Unlock()
		n := one.networks["net"]
		spec := n.spec
		spec.Gateways = []netip.Addr{netipAddr("198.18.0.1")}
		one.setNetworkSpec(n, spec)
		one.settleGateways()
		one.engine.Do(func(worker int) { one.nat.Tick(worker, one.now()) })
		if n.gateway == nil || len(a.Sent(0)) == 0 {
			t.Error("no gateway has announced itself")
		}
	}()
	if n := one.peer("two").TxFrames; n != 0 {
		t.Errorf("%d frames left by the tunnel", n)
	}
}
