package daemon

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane/mem"
	"heddle/tunnel/mesh"
)

func (d *testDaemon) members() map[string]api.Member {
	d.t.Helper()
	var all []api.Member
	d.must("GET", api.PathMembers+"?endpoints=1", nil, &all)
	byName := make(map[string]api.Member, len(all))
	for _, m := range all {
		byName[m.Name] = m
	}
	return byName
}

func (d *testDaemon) mesh() api.Mesh {
	d.t.Helper()
	var m api.Mesh
	d.must("GET", api.PathMesh, nil, &m)
	return m
}

// gather returns all metrics.
func (d *testDaemon) gather() (int, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{d.Daemon})
	all, err := reg.Gather()
	return len(all), err
}

// listens has the first of a pair be a member from the start.
func listens(o *Options) {
	if o.Node == "host1" {
		o.MeshListen = netipAddrPort("192.0.2.1:7946")
	}
}

// TestMesh: a host that joins shares the networks that both have, its stations
// are known without flooding, and all of it ends when it leaves.
func TestMesh(t *testing.T) {
	t.Parallel()
	one, two := pair(t, listens)
	if m := one.mesh(); m.State != api.MeshAlone || m.Listen != "192.0.2.1:7946" || m.VTEP != "192.0.2.1:4789" {
		t.Errorf("%+v", m)
	}
	if m := two.mesh(); m.State != api.MeshOff {
		t.Errorf("%+v", m)
	}
	two.must("POST", api.PathNetworks, `{"name":"own"}`, nil)
	var joined api.Mesh
	two.must("POST", api.PathMesh, config.Mesh{Join: []string{"192.0.2.1"}}, &joined)
	if joined.Join[0] != "192.0.2.1" || joined.VTEP != "192.0.2.2:4789" || joined.MembersUp != 2 {
		t.Errorf("%+v", joined)
	}
	macA, macB := one.port("a").MAC, two.port("b").MAC
	await(t, "each has the other's station", func() bool {
		return one.fdb()[macB] == "host2" && two.fdb()[macA] == "host1"
	})
	var m map[string]api.Member
	await(t, "neither is suspect", func() bool { // As a host is whose answer to a probe is late.
		m = one.members()
		return m["host1"].State == api.StateUp && m["host2"].State == api.StateUp
	})
	if o := m["host2"]; !slices.Equal(o.Networks, []string{"net", "own"}) || o.MTU != 1500 || o.MACs != 1 ||
		len(o.Endpoints) != 1 || o.Endpoints[0].MAC != macB || o.Endpoints[0].Network != "net" || o.Address != "192.0.2.2:7946" || o.Self {
		t.Errorf("%+v", o)
	}
	if !m["host1"].Self {
		t.Errorf("%+v", m["host1"])
	}
	var s api.Status
	one.must("GET", api.PathStatus, nil, &s)
	if s.Mesh != api.MeshJoined || s.MembersUp != 2 || s.Members != 2 {
		t.Errorf("%+v", s)
	}

	// A peer of a member's name at another address is told apart from it.
	one.must("POST", api.PathPeers, `{"name":"host2","address":"192.0.2.9"}`, nil)
	await(t, "the member's other name", func() bool { return one.fdb()[macB] == "mesh/host2" })
	if _, err := one.gather(); err != nil {
		t.Error(err)
	}
	one.must("DELETE", api.PathPeers+"/host2", nil, nil)
	await(t, "the member's own name", func() bool { return one.fdb()[macB] == "host2" })

	// A station that is only heard is announced as well, and followed to the
	// other host. Its frame is there before the announcement is, which would
	// undo a move that came between.
	a, b := one.h.device(linkA).mem, two.h.device(linkB).mem
	a.Inject(0, mem.Frame{Data: frame(9, 7)})
	await(t, "a station that was heard", func() bool { return two.announced("02:00:00:00:00:07") == "host1" })
	b.Inject(0, mem.Frame{Data: frame(9, 7)})
	await(t, "a station that has moved", func() bool {
		return two.fdb()["02:00:00:00:00:07"] == "b" && one.fdb()["02:00:00:00:00:07"] == "host2"
	})
	await(t, "the move announced", func() bool { return one.members()["host2"].MACs == 2 && one.members()["host1"].MACs == 1 })
	two.must("DELETE", api.PathPorts+"/b", nil, nil)
	await(t, "stations that are gone", func() bool { return one.fdb()[macB] == "" && one.fdb()["02:00:00:00:00:07"] == "" })

	two.must("DELETE", api.PathMesh, nil, nil)
	await(t, "a member that has left", func() bool { return one.members()["host2"].State == api.StateLeft && one.mesh().State == api.MeshAlone })
	if m := two.mesh(); m.State != api.MeshOff || len(m.Join) != 0 {
		t.Errorf("%+v", m)
	}
	if status, _ := two.call("DELETE", api.PathMesh, nil, nil); status != http.StatusNotFound {
		t.Error(status)
	}
	await(t, "it is told", func() bool {
		var events []string
		for _, e := range one.events.kept() {
			events = append(events, e.Kind)
		}
		return slices.Contains(events, eventMemberUp) && slices.Contains(events, eventMemberDown)
	})
}

// TestMeshSurvives: swd joins again when it starts, by whom it was told and by
// whom it knew.
func TestMeshSurvives(t *testing.T) {
	t.Parallel()
	h1, h2 := newTestHost(), newTestHost()
	newWire(h1, h2)
	dir1, dir2 := t.TempDir(), t.TempDir()
	first := func(o *Options) {
		o.Node = "host1"
		o.MeshListen = netipAddrPort("0.0.0.0:7946")
		o.VTEP = netipAddrPort("192.0.2.1:4789")
	}
	second := func(o *Options) { o.Node = "host2" }
	one, two := start(t, dir1, h1, first), start(t, dir2, h2, second)
	two.must("POST", api.PathMesh, config.Mesh{Join: []string{"192.0.2.1:7946"}}, nil)
	await(t, "both are members", func() bool { return one.mesh().State == api.MeshJoined && two.mesh().State == api.MeshJoined })
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	two = start(t, dir2, h2, second)
	await(t, "the second is a member again", func() bool { return two.mesh().State == api.MeshJoined })
	await(t, "the first has it", func() bool { return one.mesh().State == api.MeshJoined })
	// The first was told of nobody; it knows the second.
	await(t, "the second's address is saved", func() bool {
		b, err := os.ReadFile(filepath.Join(one.opts.StateDir, memberFile))
		return err == nil && strings.Contains(string(b), "192.0.2.2:7946")
	})
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	one = start(t, dir1, h1, first)
	await(t, "the first is a member again", func() bool { return one.mesh().State == api.MeshJoined })

	var spec config.Config
	two.must("GET", api.PathConfig, nil, &spec)
	if !slices.Equal(spec.Mesh.Join, []string{"192.0.2.1:7946"}) {
		t.Errorf("%+v", spec.Mesh)
	}
	var done api.Applied
	two.must("POST", api.PathConfig, spec, &done)
	if !slices.Contains(done.Unchanged, "mesh") {
		t.Errorf("%+v", done)
	}
}

// TestMeshRefused: what can't be joined leaves no mesh and no underlay.
func TestMeshRefused(t *testing.T) {
	t.Parallel()
	one, two := pair(t, listens)
	for _, c := range []struct {
		body   string
		status int
		why    string
	}{
		{`{}`, 400, "name a member"},
		{`{"join":["host1"]}`, 400, "not looked up"},
		{`{"join":["192.0.2.1","192.0.2.1:7946"]}`, 400, "given twice"},
		{`{"join":["192.0.2.2"]}`, 409, "this host's own address"},
		{`{"join":["192.0.2.77"]}`, 422, "192.0.2.77"},
	} {
		status, err := two.call("POST", api.PathMesh, c.body, nil)
		if err == nil || status != c.status || !strings.Contains(err.Why, c.why) {
			t.Errorf("%s: %d %+v, want %d %s", c.body, status, err, c.status, c.why)
		}
	}
	if m := two.mesh(); m.State != api.MeshOff || len(m.Join) > 0 || two.h.wire.port(netipAddrPort("192.0.2.2:4789")) != nil {
		t.Errorf("%+v", m)
	}
	if m := one.mesh(); m.State != api.MeshAlone {
		t.Errorf("%+v", m)
	}
	two.h.set(func() { two.h.portTaken = true })
	if status, err := two.call("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil); status != http.StatusConflict {
		t.Errorf("a port that is taken: %d %+v", status, err)
	}
}

// TestMeshName: a second host of one name is told so, and the first goes on.
func TestMeshName(t *testing.T) {
	t.Parallel()
	h1, h2 := newTestHost(), newTestHost()
	newWire(h1, h2)
	one := start(t, t.TempDir(), h1, func(o *Options) { o.Node = "host1"; o.MeshListen = netipAddrPort("192.0.2.1:7946") })
	two := start(t, t.TempDir(), h2, func(o *Options) { o.Node = "host1" })
	status, err := two.call("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil)
	if err == nil || status != http.StatusConflict || !strings.Contains(err.Hint, "--node") {
		t.Errorf("%d %+v", status, err)
	}
	if m := two.mesh(); m.State != api.MeshOff {
		t.Errorf("%+v", m)
	}
	if m := one.mesh(); m.State != api.MeshAlone {
		t.Errorf("%+v", m)
	}
}

// TestMeshAddresses: an automatic address is none that a member announces, and
// one that two hosts have is told of.
func TestMeshAddresses(t *testing.T) {
	t.Parallel()
	one, two := pair(t, listens)
	two.must("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil)
	two.must("POST", api.PathNetworks, `{"name":"tiny","subnets":["198.18.9.0/29"]}`, nil)
	one.must("POST", api.PathNetworks, `{"name":"tiny","subnets":["198.18.9.0/29"]}`, nil)
	taken := make(map[string]bool)
	for i, d := range []*testDaemon{one, two, one, two, one, two} {
		name := string(rune('m' + i))
		d.must("POST", api.PathPorts, config.Port{Name: name, Network: "tiny", NetNS: "/run/netns/c", IfName: "i" + name, IPs: []string{"auto"}}, nil)
		p := d.port(name)
		if taken[p.IPs[0]] {
			t.Errorf("%s twice", p.IPs[0])
		}
		taken[p.IPs[0]] = true
		other := map[*testDaemon]*testDaemon{one: two, two: one}[d]
		await(t, "the other knows it", func() bool { return other.fdb()[p.MAC] != "" })
	}
	one.must("POST", api.PathPorts, config.Port{Name: "x", Network: "net", NetNS: "/run/netns/c", IPs: []string{"198.18.0.77/24"}}, nil)
	two.must("POST", api.PathPorts, config.Port{Name: "x2", Network: "net", NetNS: "/run/netns/c", IPs: []string{"198.18.0.77/24"}}, nil)
	for _, d := range []*testDaemon{one, two} {
		await(t, "a conflict", func() bool {
			return slices.ContainsFunc(d.events.kept(), func(e api.Event) bool {
				return e.Kind == eventAddressConflict && strings.Contains(e.Message, "198.18.0.77")
			})
		})
	}
}

// TestMeshKeys: keys outlive swd and are no part of an export, a file of keys
// is taken once, and who has another key isn't let in.
func TestMeshKeys(t *testing.T) {
	t.Parallel()
	const k1, k2 = "AAECAwQFBgcICQoLDA0ODw==", "DwECAwQFBgcICQoLDA0ODw=="
	h1, h2 := newTestHost(), newTestHost()
	newWire(h1, h2)
	dir1, file := t.TempDir(), filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(k1 + "\n")
	first := func(o *Options) { o.Node, o.MeshListen, o.MeshKeys = "host1", netipAddrPort("192.0.2.1:7946"), file }
	one := start(t, dir1, h1, first)
	two := start(t, t.TempDir(), h2, func(o *Options) { o.Node = "host2" })
	keys := func(d *testDaemon) (ids string) {
		t.Helper()
		var all []api.Key
		d.must("GET", api.PathKeys, nil, &all)
		for _, k := range all {
			ids += fmt.Sprint(k.ID, k.Active, " ")
		}
		return ids
	}
	add := func(d *testDaemon, key string) string {
		t.Helper()
		var k api.Key
		d.must("POST", api.PathKeys, api.MeshKey{Key: key}, &k)
		return k.ID
	}
	if status, err := two.call("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("joined without a key: %d %v", status, err)
	}
	id2 := add(two, k2)
	if status, err := two.call("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("joined with another key: %d %v", status, err)
	}
	id1 := add(two, k1)
	two.must("POST", api.PathKeys+"/"+id1+api.ActionActivate, nil, nil)
	two.must("DELETE", api.PathKeys+"/"+id2, nil, nil)
	two.must("POST", api.PathMesh, `{"join":["192.0.2.1"]}`, nil)
	await(t, "both are members", func() bool { return one.mesh().State == api.MeshJoined && two.mesh().State == api.MeshJoined })
	if !one.mesh().Encrypted || keys(one) != id1+"true " {
		t.Error(one.mesh(), keys(one))
	}

	// The key is changed while they are joined.
	for _, d := range []*testDaemon{one, two} {
		add(d, k2)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", api.PathKeys, `{"key":"` + k2 + `"}`, 409},
		{"POST", api.PathKeys, `{"key":"AAECAwQFBgcICQoLDA0OAA=="}`, 409},
		{"POST", api.PathKeys, `{"key":"short"}`, 400},
		{"DELETE", api.PathKeys + "/" + id1, "", 409},
		{"POST", api.PathKeys + "/ffffffff" + api.ActionActivate, "", 404},
		{"DELETE", api.PathKeys + "/ffffffff", "", 404},
	} {
		if status, err := one.call(c.method, c.path, c.body, nil); status != c.status || err != nil && strings.Contains(err.Why, "AAEC") {
			t.Errorf("%+v: %d %+v", c, status, err)
		}
	}
	for _, d := range []*testDaemon{one, two} {
		d.must("POST", api.PathKeys+"/"+id2+api.ActionActivate, nil, nil)
	}
	for _, d := range []*testDaemon{one, two} {
		d.must("DELETE", api.PathKeys+"/"+id1, nil, nil)
		if keys(d) != id2+"true " {
			t.Error(keys(d))
		}
	}
	await(t, "both are members still", func() bool { return one.mesh().State == api.MeshJoined && two.mesh().State == api.MeshJoined })
	text, err := config.Marshal(one.Export())
	if err != nil || strings.Contains(string(text), k2) {
		t.Errorf("%s %v", text, err)
	}

	// What was changed stands while the file is the same, and a new file counts.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	one = start(t, dir1, h1, first)
	if keys(one) != id2+"true " {
		t.Error(keys(one))
	}
	await(t, "a member again", func() bool { return one.mesh().State == api.MeshJoined })
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	write("# next\n" + k1)
	one = start(t, dir1, h1, first)
	if keys(one) != id1+"true "+id2+"false " {
		t.Error(keys(one))
	}
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	write("secret")
	o := testOptions(t, dir1)
	first(&o)
	if _, err := newOn(t.Context(), o, newTestHost()); err == nil || !strings.Contains(err.Error(), "--mesh-key") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if config.MaxMeshKeys != mesh.MaxKeys {
		t.Errorf("%d keys, the mesh takes %d", config.MaxMeshKeys, mesh.MaxKeys)
	}
}
