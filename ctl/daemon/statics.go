package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"heddle/ctl/config"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
)

// station is whom a static entry is for.
type station struct {
	network string
	mac     wire.MAC
}

// macOf reads an address that a client sent.
func macOf(s string) (wire.MAC, error) {
	b, err := config.ParseMAC(s)
	if err != nil {
		return 0, fail(http.StatusBadRequest, "%w", err)
	}
	return wire.MACAt(b[:]), nil
}

// stationOf returns whom an entry is for whose spec has been checked.
func stationOf(s config.Static) (station, error) {
	mac, err := macOf(s.MAC)
	return station{s.Network, mac}, err
}

// staticTable holds the static entries that were asked for: at most
// config.MaxStatics. Every operation but list takes the same time however many
// there are, because a file may hold that many.
type staticTable struct {
	all    map[station]config.Static
	byPort map[string]map[station]config.Static // The same, by the name of the port.
}

func newStaticTable() staticTable {
	return staticTable{all: make(map[station]config.Static), byPort: make(map[string]map[station]config.Static)}
}

// put sets the entry of a station.
func (t *staticTable) put(k station, s config.Static) {
	t.remove(k)
	t.all[k] = s
	if t.byPort[s.Port] == nil {
		t.byPort[s.Port] = make(map[station]config.Static)
	}
	t.byPort[s.Port][k] = s
}

// remove forgets the entry of a station, if there is one.
func (t *staticTable) remove(k station) {
	s, ok := t.all[k]
	if !ok {
		return
	}
	delete(t.all, k)
	delete(t.byPort[s.Port], k)
	if len(t.byPort[s.Port]) == 0 {
		delete(t.byPort, s.Port)
	}
}

// removePort forgets the entries of a port.
func (t *staticTable) removePort(port string) {
	for k := range t.byPort[port] {
		delete(t.all, k)
	}
	delete(t.byPort, port)
}

// list returns the entries by network and address.
func (t *staticTable) list() []config.Static {
	keys := slices.SortedFunc(maps.Keys(t.all), func(a, b station) int {
		return cmp.Or(strings.Compare(a.network, b.network), cmp.Compare(a.mac, b.mac))
	})
	list := make([]config.Static, len(keys))
	for i, k := range keys {
		list[i] = t.all[k]
	}
	return list
}

// setStatic makes s the entry of a station, in the table and, if its port is
// attached, in the FDB; of a port that is down it is made when that comes up.
// On failure all is as before. The caller holds change.
func (d *Daemon) setStatic(k station, s config.Static) error {
	if p := d.locals[k]; p != nil && p.spec.Name != s.Port {
		return fail(http.StatusConflict, "%s is the address of interface %s, and so of port %s", k.mac, p.facts.ifName, p.spec.Name)
	}
	was, had := d.statics.all[k]
	if had {
		if err := d.removeStatic(k); err != nil {
			return err
		}
	}
	if p := d.ports[s.Port]; p != nil && p.attached {
		if err := d.networks[k.network].live.AddStatic(k.mac, p.id); err != nil {
			err = fail(http.StatusConflict, "%w", err)
			if had {
				err = errors.Join(err, d.setStatic(k, was))
			}
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statics.put(k, s)
	return nil
}

// removeStatic takes the entry of a station from the table and the FDB. The
// caller holds change.
func (d *Daemon) removeStatic(k station) error {
	if n := d.networks[k.network]; n != nil {
		if err := n.live.Remove(k.mac); err != nil && !errors.Is(err, vswitch.ErrUnknown) {
			return fmt.Errorf("network %s: %w", k.network, err)
		}
		if p := d.locals[k]; p != nil {
			if err := n.live.AddStatic(k.mac, p.id); err != nil {
				return fmt.Errorf("network %s: %w", k.network, err)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statics.remove(k)
	return nil
}
