package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// TestStaticTable holds the table against a plain list in random operations.
func TestStaticTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table := newStaticTable()
	var model []config.Static
	same := func(a, b config.Static) bool { return a.Network == b.Network && a.MAC == b.MAC }
	for range 5000 {
		s := config.Static{
			MAC:     fmt.Sprintf("02:00:00:00:00:%02x", rnd.IntN(20)),
			Network: fmt.Sprintf("n%d", rnd.IntN(3)),
			Port:    fmt.Sprintf("p%d", rnd.IntN(4)),
		}
		k, err := stationOf(s)
		if err != nil {
			t.Fatal(err)
		}
		switch rnd.IntN(8) {
		case 0:
			table.removePort(s.Port)
			model = slices.DeleteFunc(model, func(o config.Static) bool { return o.Port == s.Port })
		case 1, 2:
			table.remove(k)
			model = slices.DeleteFunc(model, func(o config.Static) bool { return same(o, s) })
		default:
			table.put(k, s)
			model = append(slices.DeleteFunc(model, func(o config.Static) bool { return same(o, s) }), s)
		}
		slices.SortFunc(model, func(a, b config.Static) int {
			return strings.Compare(a.Network+a.MAC, b.Network+b.MAC)
		})
		if got := table.list(); len(got) != len(model) || len(got) > 0 && !reflect.DeepEqual(got, model) {
			t.Fatalf("%v, want %v", got, model)
		}
		byPort := 0
		for port, m := range table.byPort {
			byPort += len(m)
			for k, s := range m {
				if s.Port != port || table.all[k] != s {
					t.Fatalf("%v of port %s", s, port)
				}
			}
		}
		if byPort != len(model) {
			t.Fatalf("%d entries by port, %d in all", byPort, len(model))
		}
	}
}

// TestManyStatics: as many entries as a file may hold are applied, applied
// again, moved and saved in seconds, and read back.
func TestManyStatics(t *testing.T) {
	dir, h := t.TempDir(), newTestHost()
	roomy := func(o *Options) { o.MaxMACs = 1 << 17 }
	d := start(t, dir, h, roomy)
	d.setUp()
	c := &config.Config{}
	for i := range config.MaxStatics {
		c.FDB = append(c.FDB, config.Static{MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255), Network: "net", Port: "a"})
	}
	begun := time.Now()
	apply := func(created, changed, unchanged int) {
		t.Helper()
		done, err := d.Apply(context.Background(), c)
		if err != nil || len(done.Created) != created || len(done.Changed) != changed || len(done.Unchanged) != unchanged {
			t.Fatalf("%d created, %d changed, %d unchanged, %v", len(done.Created), len(done.Changed), len(done.Unchanged), err)
		}
	}
	apply(config.MaxStatics, 0, 0)
	apply(0, 0, config.MaxStatics)
	for i := range c.FDB {
		c.FDB[i].Port = "b"
	}
	apply(0, config.MaxStatics, 0)
	took := time.Since(begun)
	t.Logf("three times %d entries: %v", config.MaxStatics, took)
	if took > 3*time.Minute { // A few seconds, most of them to write YAML; with a list it was hours.
		t.Errorf("it took %v", took)
	}
	if n := d.Status().MACs; n != config.MaxStatics {
		t.Errorf("%d entries in the FDB", n)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = start(t, dir, h, roomy)
	await(t, "the entries are there after a restart", func() bool { return d.Status().MACs == config.MaxStatics })
	_, err := d.AddStatic(config.Static{MAC: "02:11:00:00:00:00", Network: "net", Port: "a"})
	if err == nil || !strings.Contains(err.Error(), "no more fit") {
		t.Errorf("one more: %v", err)
	}
}

// TestApplyIsUndone: an apply that can't be saved, or that its client or a stop
// ends, leaves nothing of what it did.
func TestApplyIsUndone(t *testing.T) {
	const body = `{
		"networks": [{"name": "net", "mtu": 9000}, {"name": "new"}],
		"ports": [{"name": "a", "network": "net", "netns": "/run/netns/a", "ips": ["198.18.0.77/24"]},
		          {"name": "c", "network": "new", "netns": "/run/netns/c"}],
		"fdb": [{"mac": "02:00:00:00:00:09", "network": "net", "port": "b"},
		        {"mac": "02:00:00:00:00:08", "network": "new", "port": "c"}]}`
	for name, fails := range map[string]func(t *testing.T, d *testDaemon) error{
		"state can't be saved": func(_ *testing.T, d *testDaemon) error {
			path := d.state.path
			d.state.path = filepath.Join(d.dir, "missing", stateFile)
			_, err := d.call("POST", api.PathConfig, body, nil)
			d.state.path = path
			if err == nil {
				return nil
			}
			return err
		},
		"client goes": func(t *testing.T, d *testDaemon) error {
			ctx, cancel := context.WithCancel(context.Background())
			d.h.set(func() { d.h.onOpen = cancel })
			var c config.Config
			if err := config.DecodeJSON(strings.NewReader(body), &c); err != nil {
				t.Fatal(err)
			}
			_, err := d.Apply(ctx, &c)
			d.h.set(func() { d.h.onOpen = nil })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, t.TempDir(), newTestHost())
			d.setUp()
			d.must("POST", api.PathFDB, `{"mac":"02:00:00:00:00:09","network":"net","port":"a"}`, nil)
			before, saved, events := d.Export(), read(t, d.state.path), len(d.events.kept())
			if err := fails(t, d); err == nil {
				t.Fatal("the apply worked")
			}
			if after := d.Export(); !reflect.DeepEqual(after, before) {
				t.Errorf("%+v\nwas\n%+v", after, before)
			}
			if now := read(t, d.state.path); now != saved {
				t.Errorf("saved: %s", now)
			}
			for _, e := range d.events.kept()[events:] {
				if e.Kind != eventPortDown && e.Kind != eventPortUp {
					t.Errorf("told of what was undone: %+v", e)
				}
			}
			for _, name := range []string{"a", "b"} {
				if p := d.port(name); p.State != api.StateUp || p.MTU != 1500 {
					t.Errorf("%+v", p)
				}
			}
			if len(d.h.links) != 2 || d.h.opened != 2 || d.Status().MACs != 1 {
				t.Errorf("links %v, %d devices, %d MACs", d.h.links, d.h.opened, d.Status().MACs)
			}
			var done api.Applied
			d.must("POST", api.PathConfig, body, &done)
			if len(done.Created) != 3 || len(done.Changed) != 3 {
				t.Errorf("%+v", done)
			}
		})
	}
	t.Run("swd stops", func(t *testing.T) {
		dir, h := t.TempDir(), newTestHost()
		d := start(t, dir, h)
		d.setUp()
		saved := read(t, d.state.path)
		d.h.set(func() { d.h.onOpen = d.Daemon.stop })
		var c config.Config
		if err := config.DecodeJSON(strings.NewReader(body), &c); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Apply(d.life, &c); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		if now := read(t, filepath.Join(dir, "state", stateFile)); now != saved {
			t.Errorf("saved: %s", now)
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestStateFits: what couldn't be read back is refused, and nothing changes.
func TestStateFits(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost(), func(o *Options) { o.MaxMACs = 1 << 17 })
	name := strings.Repeat("n", config.MaxName)
	d.must("POST", api.PathNetworks, config.Network{Name: name}, nil)
	d.must("POST", api.PathPorts, config.Port{Name: name, Network: name, NetNS: "/run/netns/a"}, nil)
	c := &config.Config{}
	for i := range 30000 {
		c.FDB = append(c.FDB, config.Static{MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255), Network: name, Port: name})
	}
	if _, err := d.Apply(context.Background(), c); err == nil || !strings.Contains(err.Error(), "at most 4194304") {
		t.Errorf("%v", err)
	}
	if d.Status().MACs != 0 || len(d.Export().FDB) != 0 {
		t.Errorf("%d MACs, %d entries", d.Status().MACs, len(d.Export().FDB))
	}
}
