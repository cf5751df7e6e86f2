package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/capture"
	"heddle/dataplane/mem"
)

// pair starts two daemons on one wire, host1 at 192.0.2.1 and host2 at .2, each
// with network net and a port, a on one and b on the other.
func pair(t *testing.T, change ...func(*Options)) (one, two *testDaemon) {
	h1, h2 := newTestHost(), newTestHost()
	newWire(h1, h2)
	named := func(name string) func(*Options) {
		return func(o *Options) {
			o.Node = name
			o.Log = o.Log.Named(name)
			for _, f := range change {
				f(o)
			}
		}
	}
	one, two = start(t, t.TempDir(), h1, named("host1")), start(t, t.TempDir(), h2, named("host2"))
	for d, port := range map[*testDaemon]string{one: "a", two: "b"} {
		d.must("POST", api.PathNetworks, `{"name":"net","subnets":["198.18.0.0/24"]}`, nil)
		d.must("POST", api.PathPorts, config.Port{Name: port, Network: "net", NetNS: "/run/netns/" + port}, nil)
	}
	return one, two
}

func (d *testDaemon) peer(name string) api.Peer {
	d.t.Helper()
	var p api.Peer
	d.must("GET", api.PathPeers+"/"+name, nil, &p)
	return p
}

func (d *testDaemon) fdb() map[string]string {
	d.t.Helper()
	var all []api.Entry
	d.must("GET", api.PathFDB, nil, &all)
	ports := make(map[string]string, len(all))
	for _, e := range all {
		ports[e.MAC] = e.Port
	}
	return ports
}

// announced returns where another member has told a station to be, and data
// hasn't moved it since; empty if nowhere.
func (d *testDaemon) announced(mac string) string {
	told := false
	for e := range d.sw.Entries(d.now()) {
		told = told || e.Announced && e.MAC.String() == mac
	}
	if !told {
		return ""
	}
	return d.fdb()[mac]
}

// TestStaticPeers: frames pass between two hosts that are each other's peers,
// what is learnt shows the peer's name, and everything ends with the peer.
func TestStaticPeers(t *testing.T) {
	one, two := pair(t)
	var made api.Peer
	one.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, &made)
	if made.Address != "192.0.2.2:4789" || made.State != api.StateUp || made.MTU != 1500 || !slices.Equal(made.Networks, []string{"net"}) {
		t.Errorf("%+v", made)
	}
	a, b := one.h.device(linkA).mem, two.h.device(linkB).mem
	a.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame on its way to who isn't there", func() bool { return one.peer("two").TxFrames == 1 })
	if len(b.Sent(0)) != 0 {
		t.Error("two takes frames of a stranger")
	}
	two.must("POST", api.PathPeers, config.Peer{Name: "one", Address: "192.0.2.1:4789", Networks: []string{"net"}}, nil)
	a.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame at b", func() bool { return len(b.Sent(0)) == 1 })
	b.Inject(0, mem.Frame{Data: frame(1, 2)})
	await(t, "a frame at a", func() bool { return len(a.Sent(0)) == 1 })
	if fdb := one.fdb(); fdb["02:00:00:00:00:01"] != "a" || fdb["02:00:00:00:00:02"] != "two" {
		t.Errorf("fdb %v", fdb)
	}
	await(t, "both counted", func() bool { return one.peer("two").RxFrames == 1 })
	if p := one.peer("two"); p.TxFrames != 2 {
		t.Errorf("%+v", p)
	}

	// A network that comes later is shared as well, by those without a list.
	one.must("POST", api.PathNetworks, `{"name":"later"}`, nil)
	two.must("POST", api.PathNetworks, `{"name":"later"}`, nil)
	if p := one.peer("two"); !slices.Equal(p.Networks, []string{"later", "net"}) {
		t.Errorf("%+v", p)
	}
	if p := two.peer("one"); !slices.Equal(p.Networks, []string{"net"}) {
		t.Errorf("%+v", p)
	}
	if status, err := two.call("DELETE", api.PathNetworks+"/net", nil, nil); status != http.StatusConflict {
		t.Errorf("%d %v", status, err)
	}
	one.must("DELETE", api.PathNetworks+"/later", nil, nil)
	one.must("DELETE", api.PathPeers+"/two", nil, nil)
	if fdb := one.fdb(); fdb["02:00:00:00:00:02"] != "" {
		t.Errorf("fdb %v", fdb)
	}
	if one.h.wire.port(netipAddrPort("192.0.2.1:4789")) != nil {
		t.Error("the underlay stays open without peers")
	}
	if status, _ := one.call("DELETE", api.PathPeers+"/two", nil, nil); status != http.StatusNotFound {
		t.Error(status)
	}
}

// TestPeersRefused: what can't be a peer leaves nothing.
func TestPeersRefused(t *testing.T) {
	h := newTestHost()
	newWire(h)
	d := start(t, t.TempDir(), h)
	d.setUpQuiet()
	d.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	for _, c := range []struct {
		body   string
		status int
		why    string
	}{
		{`{"name":"two","address":"192.0.2.3"}`, 409, "it exists"},
		{`{"name":"other","address":"192.0.2.2:8472"}`, 409, `192.0.2.2 is the address of peer "two"`},
		{`{"name":"six","address":"2001:db8::2"}`, 409, "the address is IPv6, and the tunnels' end on this host is IPv4"},
		{`{"name":"self","address":"192.0.2.1"}`, 409, "this host takes frames itself"},
		{`{"name":"x","address":"host2.example"}`, 400, "a host's name is not looked up"},
		{`{"name":"x","address":"224.0.0.1"}`, 400, "no address that a host may have"},
		{`{"name":"x","address":"192.0.2.9:0"}`, 400, "nobody listens at port 0"},
		{`{"name":"x"}`, 400, "missing"},
		{`{"name":"x","address":"192.0.2.9","networks":["none"]}`, 404, "there is no network none"},
		{`{"name":"x","address":"192.0.2.9","networks":["net","net"]}`, 400, "given twice"},
	} {
		status, err := d.call("POST", api.PathPeers, c.body, nil)
		if err == nil || status != c.status || !strings.Contains(err.Why, c.why) {
			t.Errorf("%s: %d %v, want %d %s", c.body, status, err, c.status, c.why)
		}
	}
	var all []api.Peer
	d.must("GET", api.PathPeers, nil, &all)
	if len(all) != 1 || all[0].State != api.StateUp {
		t.Errorf("%+v", all)
	}
	d.must("DELETE", api.PathPeers+"/two", nil, nil)
	// Without peers of the other family it can be the first.
	d.must("POST", api.PathPeers, `{"name":"six","address":"[2001:db8::2]:4789"}`, nil)
	d.must("DELETE", api.PathPeers+"/six", nil, nil)

	h.set(func() { h.portTaken = true })
	status, err := d.call("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	if err == nil || status != http.StatusConflict || !strings.Contains(err.Hint, "--vtep") {
		t.Errorf("a port that is taken: %d %+v", status, err)
	}
	d.must("GET", api.PathPeers, nil, &all)
	if len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestPeersSurvive: peers come back with swd, also when the port is taken at
// first, and an export is an apply's file.
func TestPeersSurvive(t *testing.T) {
	h, dir := newTestHost(), t.TempDir()
	newWire(h)
	d := start(t, dir, h)
	d.setUpQuiet()
	d.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2","networks":["net"]}`, nil)
	var spec config.Config
	d.must("GET", api.PathConfig, nil, &spec)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	h.set(func() { h.portTaken = true })
	d = start(t, dir, h)
	if p := d.peer("two"); p.State != api.StateDown || !strings.Contains(p.Reason, "address already in use") {
		t.Errorf("%+v", p)
	}
	h.set(func() { h.portTaken = false })
	d.lookAtPaths()
	if p := d.peer("two"); p.State != api.StateUp || len(p.Networks) != 1 {
		t.Errorf("%+v", p)
	}
	var done api.Applied
	d.must("POST", api.PathConfig, spec, &done)
	if len(done.Created)+len(done.Changed) > 0 || !slices.Contains(done.Unchanged, "peer two") {
		t.Errorf("%+v", done)
	}
	spec.Peers[0].Address = "192.0.2.3"
	spec.Peers = append(spec.Peers, config.Peer{Name: "three", Address: "192.0.2.2"})
	d.must("POST", api.PathConfig, spec, &done)
	if !slices.Equal(done.Changed, []string{"peer two"}) || !slices.Equal(done.Created, []string{"peer three"}) {
		t.Errorf("%+v", done)
	}
	// A config that fails leaves the peers as they were.
	bad := config.Config{
		Peers: []config.Peer{{Name: "two", Address: "192.0.2.9"}, {Name: "six", Address: "2001:db8::6"}},
	}
	if status, err := d.call("POST", api.PathConfig, bad, nil); err == nil || status != http.StatusConflict {
		t.Errorf("%d %v", status, err)
	}
	var all []api.Peer
	d.must("GET", api.PathPeers, nil, &all)
	if got := fmt.Sprint(all[0].Name, all[0].Address, all[0].State, all[1].Name, all[1].Address, all[1].State); len(all) != 2 || got != "three192.0.2.2:4789uptwo192.0.2.3:4789up" {
		t.Errorf("%+v", all)
	}
}

// TestPaths: the path MTU is followed and has a floor, and a peer without a way
// to it is down until there is one.
func TestPaths(t *testing.T) {
	h := newTestHost()
	newWire(h)
	d := start(t, t.TempDir(), h)
	d.setUpQuiet()
	two := netipAddr("192.0.2.2")
	h.set(func() { h.paths[two] = 0 })
	d.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	for _, c := range []struct {
		path  int
		mtu   int
		state string
	}{{0, 0, api.StateDown}, {9000, 9000, api.StateUp}, {1400, 1400, api.StateUp}, {552, 1280, api.StateUp}, {0, 0, api.StateDown}} {
		h.set(func() { h.paths[two] = c.path })
		d.lookAtPaths()
		if p := d.peer("two"); p.MTU != c.mtu || p.State != c.state || (p.Reason == "") != (c.state == api.StateUp) {
			t.Errorf("%+v, want %+v", p, c)
		}
	}
	var s api.Status
	d.must("GET", api.PathStatus, nil, &s)
	if s.Peers != 1 || s.PeersDown != 1 || s.Mesh != api.MeshOff {
		t.Errorf("%+v", s)
	}
}

// vxlanFrame is a container's own VXLAN datagram to an address.
func vxlanFrame(to string) []byte {
	b := make([]byte, 14+20+8+8+14)
	copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0})
	ip := b[14:]
	copy(ip, []byte{0x45, 0, 0, byte(len(ip)), 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1})
	a := netipAddr(to).As4()
	copy(ip[16:], a[:])
	copy(ip[20:], []byte{0xc0, 0, 4789 >> 8, 4789 & 0xff, 0, byte(len(ip) - 20), 0, 0, 8, 0, 0, 0, 0, 0, 1, 0})
	return b
}

// TestGuard: a container's own VXLAN datagrams to a tunnel's end leave neither
// by a host port nor by a packet port while there are tunnels; to a container
// they go.
func TestGuard(t *testing.T) {
	h := newTestHost()
	newWire(h)
	d := start(t, t.TempDir(), h)
	d.setUpQuiet()
	d.must("POST", api.PathPorts, config.Port{Name: "host", Network: "net", IfName: "heddle0"}, nil)
	a, b, host := h.device(linkA).mem, h.device(linkB).mem, h.device("|heddle0").mem
	send := func(to string, want int) {
		t.Helper()
		a.Inject(0, mem.Frame{Data: vxlanFrame(to)})
		await(t, "the frame at b", func() bool { return len(b.Sent(0)) == 1 })
		d.engine.Do(func(int) {}) // The batch has gone to all ports.
		if got := len(host.Sent(0)); got != want {
			t.Errorf("to %s: %d frames at the host, want %d", to, got, want)
		}
	}
	send("192.0.2.2", 1)
	d.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	send("192.0.2.2", 0)
	send("192.0.2.1", 0)
	send("192.0.2.7", 1)
	if n := d.port("host").Drops["underlay-guard"]; n != 2 {
		t.Errorf("%d drops", n)
	}
	// A port that comes while there are tunnels is guarded too.
	d.must("POST", api.PathPorts, config.Port{Name: "nic", Network: "net", Kind: config.KindPacket, Interface: "eth7"}, nil)
	nic := h.device("|eth7").mem
	send("192.0.2.2", 0)
	if len(nic.Sent(0)) != 0 {
		t.Error("it left by the NIC")
	}
	// An address that the host gets by a port is guarded at once.
	send("198.18.0.9", 1)
	d.must("POST", api.PathPorts, config.Port{Name: "own", Network: "net", IfName: "heddle1", IPs: []string{"198.18.0.9/24"}}, nil)
	send("198.18.0.9", 0)
	d.must("DELETE", api.PathPeers+"/two", nil, nil)
	send("192.0.2.2", 1)
}

// TestTunnelsShow: drops and captures know a peer by its name, and totals keep
// what it has counted.
func TestTunnelsShow(t *testing.T) {
	one, two := pair(t)
	one.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	two.must("POST", api.PathPeers, `{"name":"one","address":"192.0.2.1"}`, nil)
	a, b := one.h.device(linkA).mem, two.h.device(linkB).mem
	record := one.capture("network=net&count=2")
	a.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame at b", func() bool { return len(b.Sent(0)) == 1 })
	if got := strings.Join(record.frames(), ","); got != "a in 60 60,two out 60 60" {
		t.Errorf("captured %s", got)
	}
	// The tunnel goes on after the capture.
	a.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame at b", func() bool { return len(b.Sent(0)) == 1 })

	long := frame(0xff, 1)
	long = append(long, make([]byte, 1600)...)
	a.Inject(0, mem.Frame{Data: long})
	var drops []api.DropCount
	await(t, "a drop", func() bool {
		one.must("GET", api.PathDrops+"?port=two", nil, &drops)
		return len(drops) == 1 && drops[0].Reason == "exceeds-mtu" && drops[0].Port == "two"
	})
	if n := one.peer("two").Drops["exceeds-mtu"]; n != 1 {
		t.Errorf("%d", n)
	}
	one.must("DELETE", api.PathPeers+"/two", nil, nil)
	drops = nil
	one.must("GET", api.PathDrops, nil, &drops)
	if !slices.ContainsFunc(drops, func(o api.DropCount) bool { return o.Reason == "exceeds-mtu" && o.Count == 1 }) {
		t.Errorf("%+v", drops)
	}
	// What a stranger sends counts.
	b.Inject(0, mem.Frame{Data: frame(0xff, 2)})
	one.must("POST", api.PathPeers, `{"name":"three","address":"192.0.2.3"}`, nil)
	b.Inject(0, mem.Frame{Data: frame(0xff, 2)})
	await(t, "a stranger's frame dropped", func() bool {
		one.must("GET", api.PathDrops, nil, &drops)
		return slices.ContainsFunc(drops, func(o api.DropCount) bool { return o.Reason == "unknown-peer" })
	})
}

// TestTunnelsAreCapturedWhileTheyChange: a capture begins and ends while peers
// come and go; the race detector watches.
func TestTunnelsAreCapturedWhileTheyChange(t *testing.T) {
	t.Parallel()
	one, _ := pair(t)
	one.must("POST", api.PathPeers, `{"name":"two","address":"192.0.2.2"}`, nil)
	tunnel := one.remoteNamed("two").tunnels["net"].id
	done := make(chan error, 1)
	go func() {
		var errs []error
		for range 20 {
			errs = append(errs, one.AddPeer(config.Peer{Name: "three", Address: "192.0.2.3"}), one.RemovePeer("three"))
		}
		done <- errors.Join(errs...)
	}()
	for range 20 {
		c, err := capture.New(capture.Config{Workers: one.engine.Workers(), RingBytes: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		a := &activeCapture{c: c, network: "net", names: make(map[dataplane.PortID]string)}
		if err := errors.Join(one.startCapture(a), one.stopCapture(a), c.Close()); err != nil {
			t.Error(err)
		}
		if got := a.name(tunnel); got != "two" {
			t.Errorf("the tunnel's name is %q", got)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
