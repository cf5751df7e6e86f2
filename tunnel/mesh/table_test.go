package mesh

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"heddle/dataplane/wire"
)

// TestTableAgainstModel applies random changes and compares owners, counts and
// what was told with the rule applied to all entries.
func TestTableAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"b", "a", "d", "c", "e"}
	tab := newTable(origin{"b", 1})
	replicas := []*replica{tab.local.replica}
	for i, n := range names[1:] {
		replicas = append(replicas, newReplica(origin{n, uint32(i)}))
	}
	keys := make([]key, 12)
	for i := range keys {
		keys[i] = key{wire.MAC(0x020000000001 + i), 7}
	}
	toldOwner := map[key]string{}
	toldIPs := map[key]addrs{}
	for step := range 50000 {
		r := replicas[rng.IntN(len(replicas))]
		k := keys[rng.IntN(len(keys))]
		rec := record{packAddrs([]netip.Addr{netip.AddrFrom4([4]byte{198, 18, 0, byte(rng.IntN(3))})}), uint32(rng.IntN(4))}
		switch op := rng.IntN(20); {
		case op < 9 && r != tab.local.replica:
			tab.set(r, k, rec)
		case op < 9:
			tab.local.wanted[k] = rec.ips
			if o, cur := tab.owner(k); o == nil || o == r {
				rec.mobility = cur.mobility
			} else {
				rec.mobility = cur.mobility + uint32(rng.IntN(2)) // 0 may lose: then it does nothing.
			}
			tab.announce(k, rec)
		case op < 18:
			if r == tab.local.replica {
				delete(tab.local.wanted, k)
			}
			tab.unset(r, k)
		case op < 19 && r != tab.local.replica:
			tab.drop(r)
			for _, o := range tab.orphans {
				tab.adopt(o)
			}
			tab.orphans = nil
		default:
			for _, d := range tab.tell(5) {
				if toldOwner[d.key] != d.from || toldIPs[d.key] != d.old.ips {
					t.Fatalf("step %d: told %+v, before that %q", step, d, toldOwner[d.key])
				}
				toldOwner[d.key], toldIPs[d.key] = d.to, d.now.ips
			}
		}
		remote := 0
		for i, r := range replicas {
			if i > 0 {
				remote += len(r.entries)
			}
		}
		if remote != tab.remote {
			t.Fatalf("step %d: %d remote entries, counted %d", step, remote, tab.remote)
		}
		for _, k := range keys {
			var best *replica
			many := 0
			for _, r := range replicas {
				if rec, ok := r.entries[k]; ok {
					many++
					if best == nil || rec.mobility > best.entries[k].mobility || (rec.mobility == best.entries[k].mobility && r.name < best.name) {
						best = r
					}
				}
			}
			if got, _ := tab.owner(k); got != best {
				t.Fatalf("step %d: owner %v, want %v", step, got, best)
			}
			if s := tab.slots[k]; many > 0 && int(s.many) != many {
				t.Fatalf("step %d: %d announce it, counted %d", step, many, s.many)
			}
			if _, mine := tab.local.entries[k]; mine && best != tab.local.replica {
				t.Fatalf("step %d: announced here, owned by %s", step, best.name)
			}
			orphan := slices.ContainsFunc(tab.orphans, func(o orphan) bool { return o.key == k })
			if _, wanted := tab.local.wanted[k]; wanted && best == nil && !orphan {
				t.Fatalf("step %d: wanted here, nowhere, and not an orphan", step)
			}
		}
	}
	for len(tab.dirty) > 0 {
		for _, d := range tab.tell(5) {
			toldOwner[d.key] = d.to
		}
	}
	for _, k := range keys {
		want := ""
		if r, _ := tab.owner(k); r != nil {
			want = r.name
		}
		if toldOwner[k] != want {
			t.Errorf("%v: told %q at last, is %q", k.mac, toldOwner[k], want)
		}
	}
}

// TestLocalLogReplays: whoever applies the numbered changes has what is
// announced, from whatever number it begins.
func TestLocalLogReplays(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	tab := newTable(origin{"a", 1})
	l := tab.local
	other := newReplica(origin{"b", 2})
	copies := map[*table]*replica{}
	for range 3 {
		copies[newTable(origin{"c", 3})] = newReplica(l.origin)
	}
	for range 20000 {
		k := key{wire.MAC(0x020000000001 + rng.IntN(50)), 7}
		switch rng.IntN(4) {
		case 0, 1:
			l.wanted[k] = ""
			_, cur := tab.owner(k)
			tab.announce(k, record{packAddrs(nil), cur.mobility + uint32(rng.IntN(2))})
		case 2:
			tab.set(other, k, record{packAddrs(nil), uint32(rng.IntN(8))})
		case 3:
			tab.unset(other, k)
		}
		for tab, r := range copies {
			if rng.IntN(30) != 0 {
				continue
			}
			if changes, ok := l.logged(r.seq); ok {
				tab.apply(r, delta{r.seq + 1, changes})
			} else {
				msg := l.encodeState()
				_, rd, _ := open(msg)
				rd.origin()
				seq, networks, entries := rd.state()
				if err := rd.end(); err != nil {
					t.Fatal(err)
				}
				tab.replace(r, seq, networks, entries)
			}
			if r.seq != l.seq || len(r.entries) != len(l.entries) {
				t.Fatalf("at %d of %d: %d entries of %d", r.seq, l.seq, len(r.entries), len(l.entries))
			}
			for k, rec := range l.entries {
				if r.entries[k] != rec {
					t.Fatalf("%v: %v, want %v", k.mac, r.entries[k], rec)
				}
			}
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := newTable(origin{"a", 1})
	many := map[key]record{}
	for i := range MaxEndpoints + 10 {
		many[key{wire.MAC(0x020000000000 + i), 1}] = record{ips: "\x00"}
	}
	r := newReplica(origin{"b", 1})
	if refused := tab.replace(r, 1, nil, many); refused != 10 || len(r.entries) != MaxEndpoints {
		t.Errorf("refused %d, holds %d", refused, len(r.entries))
	}
	tab.remote = MaxTable
	if tab.set(newReplica(origin{"c", 1}), key{1 << 41, 1}, record{}) {
		t.Error("one more than MaxTable is taken")
	}
	var networks []change
	for i := range MaxNetworks + 3 {
		networks = append(networks, change{op: changeNetwork, key: key{vni: uint32(i + 1)}, network: "n"})
	}
	if _, n := tab.apply(newReplica(origin{"d", 1}), delta{1, networks}); n != 3 {
		t.Errorf("refused %d networks", n)
	}
}
