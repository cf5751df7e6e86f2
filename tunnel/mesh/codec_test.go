package mesh

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

// The messages of docs/MESH.md, byte by byte.
func TestGoldenMessages(t *testing.T) {
	o := origin{"web-1", 0xcafe0001}
	ips := packAddrs([]netip.Addr{netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("198.18.0.5"), netip.MustParseAddr("::ffff:198.18.0.5")})
	rep := newReplica(o)
	rep.seq, rep.synced = 9, true
	rep.networks[100] = "red"
	rep.entries[key{0x020000000005, 100}] = record{ips, 2}
	for name, c := range map[string]struct {
		msg  []byte
		want string
	}{
		"delta: one comes, one goes, a network comes, one goes": {
			encodeDelta(o, 300, []change{
				{op: changeSet, key: key{0x020000000005, 100}, record: record{ips, 2}},
				{op: changeGone, key: key{0x020000000006, 100}},
				{op: changeNetwork, key: key{vni: 101}, network: "green"},
				{op: changeNetworkOut, key: key{vni: 102}},
			}),
			`01 01  05 7765622d31 cafe0001  ac02
			 01 000064 020000000005 02 11 c6120005 20010db8000000000000000000000005
			 02 000064 020000000006
			 03 000065 05 677265656e
			 04 000066`,
		},
		"delta: the example of docs/MESH.md": {
			encodeDelta(o, 300, []change{{op: changeSet, key: key{0x020000000005, 100}, record: record{packAddrs(ips.list()[:1]), 2}}}),
			`01 01  05 77 65 62 2d 31  ca fe 00 01  ac 02   01  00 00 64  02 00 00 00 00 05  02  10  c6 12 00 05`,
		},
		"state": {
			rep.encodeState(),
			`01 04  05 7765622d31 cafe0001  09
			 01  000064 03 726564
			 01  000064 020000000005 02 11 c6120005 20010db8000000000000000000000005`,
		},
		"want": {
			appendWanted(appendOrigin(begin(msgWant), o), []wanted{{origin{"a", 1}, 0}, {origin{"b", 2}, 10}}),
			`01 03  05 7765622d31 cafe0001  02  01 61 00000001 00  01 62 00000002 0a`,
		},
		"metadata": {
			meta{netip.MustParseAddrPort("192.0.2.1:4789"), []uint32{7}}.encode(),
			`01 04 c0000201 12b5  01 00000007`,
		},
	} {
		if want := golden.Bytes(t, c.want); !reflect.DeepEqual(c.msg, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, c.msg, want)
		}
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, s := range map[string]string{
		"no kind":               `01`,
		"no origin":             `01 01`,
		"name too long":         `01 01 ff 61`,
		"bad name":              `01 01 02 4141 00000001 01 02 000064 020000000006`,
		"no changes":            `01 01 01 61 00000001 01`,
		"number 0":              `01 01 01 61 00000001 00 02 000064 020000000006`,
		"unknown change":        `01 01 01 61 00000001 01 09`,
		"VNI 0":                 `01 01 01 61 00000001 01 02 000000 020000000006`,
		"group address":         `01 01 01 61 00000001 01 02 000064 010000000006`,
		"zero address":          `01 01 01 61 00000001 01 02 000064 000000000000`,
		"mobility of 33 bits":   `01 01 01 61 00000001 01 01 000064 020000000006 8080808010 00`,
		"9 addresses":           `01 01 01 61 00000001 01 01 000064 020000000006 00 90` + strings.Repeat("c6120001", 9),
		"unspecified address":   `01 01 01 61 00000001 01 01 000064 020000000006 00 10 00000000`,
		"addresses cut off":     `01 01 01 61 00000001 01 01 000064 020000000006 00 20 c6120001`,
		"state cut off":         `01 04 01 61 00000001 09 00 05 000064`,
		"state too long":        `01 04 01 61 00000001 09 00 00 00`,
		"state of too many":     `01 04 01 61 00000001 09 00 ffffff7f`,
		"digest of too many":    `01 06 01 61 00000001 ffff7f`,
		"bundle cut off":        `01 07 00000005 0101`,
		"bundle in a bundle":    `01 07 00000002 0107`,
		"unknown kind":          `01 63`,
		"bye with more behind":  `01 08 01 61 00000001 00`,
		"head without a number": `01 02 01 61 00000001`,
	} {
		m := &Mesh{count: &counters{}, members: map[string]*member{}, kick: make(chan struct{}, 1), table: newTable(origin{"z", 1})}
		m.receive(golden.Bytes(t, s), true)
		if m.count.refused[RefusedMalformed].Load() != 1 {
			t.Errorf("%s is taken", name)
		}
	}
	for name, s := range map[string]string{"no version": ``, "later version": `02 01 01 61`} {
		m := &Mesh{count: &counters{}}
		m.receive(golden.Bytes(t, s), true)
		if m.count.refused[RefusedMalformed].Load()+m.count.refused[RefusedVersion].Load() != 1 {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzMessages: what can be read is written the same, and a mesh that receives
// it lives.
func FuzzMessages(f *testing.F) {
	o := origin{"a", 1}
	f.Add(encodeDelta(o, 3, []change{{op: changeSet, key: key{0x020000000005, 100}, record: record{packAddrs(nil), 2}}, {op: changeNetwork, key: key{vni: 5}, network: "red"}}))
	rep := newReplica(o)
	rep.networks[5] = "red"
	rep.entries[key{0x020000000005, 100}] = record{packAddrs([]netip.Addr{netip.MustParseAddr("198.18.0.5")}), 2}
	f.Add(rep.encodeState())
	f.Add(appendWanted(appendOrigin(begin(msgDigest), o), []wanted{{o, 4}}))
	f.Add(append(begin(msgBundle), 0, 0, 0, 2, 1, 5))
	f.Fuzz(func(t *testing.T, msg []byte) {
		m := &Mesh{count: &counters{}, members: map[string]*member{}, kick: make(chan struct{}, 1), tidings: make(chan struct{}, 1),
			jobs: make(chan func(), 8), changed: map[string]struct{}{}, table: newTable(origin{"z", 1})}
		in := &instance{origin: o, replica: newReplica(o)}
		m.members["a"] = &member{name: "a", current: in, instances: map[uint32]*instance{1: in}}
		m.members["z"] = &member{name: "z", current: &instance{origin: m.table.local.origin, replica: m.table.local.replica}}
		m.self = m.table.local.origin
		m.quietQueue()
		m.receive(msg, true)
		kind, r, err := open(msg)
		if err != nil {
			return
		}
		from := r.origin()
		switch kind {
		case msgDelta:
			d := r.delta()
			if r.end() != nil {
				return
			}
			_, again, _ := open(encodeDelta(from, d.first, d.changes))
			if o := again.origin(); o != from {
				t.Fatalf("origin %v, was %v", o, from)
			}
			if d2 := again.delta(); again.end() != nil || !reflect.DeepEqual(d, d2) {
				t.Fatalf("%v, was %v", d2, d)
			}
		case msgState:
			rep := newReplica(from)
			rep.seq, rep.networks, rep.entries = r.state()
			if r.end() != nil {
				return
			}
			_, again, _ := open(rep.encodeState())
			again.origin()
			seq, networks, entries := again.state()
			if again.end() != nil || seq != rep.seq || !reflect.DeepEqual(networks, rep.networks) || !reflect.DeepEqual(entries, rep.entries) {
				t.Fatalf("state differs from itself")
			}
		}
	})
}

func TestPackedAddresses(t *testing.T) {
	var ips []netip.Addr
	for _, s := range []string{"198.18.0.9", "2001:db8::1", "198.18.0.1", "fe80::1", "198.18.0.9"} {
		ips = append(ips, netip.MustParseAddr(s))
	}
	a := packAddrs(ips)
	want := []netip.Addr{ips[2], ips[0], ips[1], ips[3]}
	if got := a.list(); !reflect.DeepEqual(got, want) || len(a) != 1+2*4+2*16 {
		t.Errorf("%v in %d bytes", got, len(a))
	}
	if packAddrs(nil).list() != nil {
		t.Error("no addresses are some")
	}
}

func TestSizesOfDocumentation(t *testing.T) {
	e := Endpoint{VNI: 1, MAC: wire.MAC(0x020000000001), IPs: []netip.Addr{netip.MustParseAddr("198.18.0.5")}}
	rec := record{packAddrs(e.IPs), 0}
	if n := len(appendRecord(appendKey(nil, key{e.MAC, e.VNI}), rec)); n != 15 {
		t.Errorf("an endpoint with one IPv4 address takes %d bytes in a state", n)
	}
	if n := len(appendChange(nil, change{op: changeSet, key: key{e.MAC, e.VNI}, record: rec})); n != 16 {
		t.Errorf("and %d in a delta", n)
	}
	if n := len(appendWanted(nil, []wanted{{origin{"12345678", 1}, 100}})) - 1; n != 14 {
		t.Errorf("a host takes %d bytes in a digest", n)
	}
	biggest := MaxEndpoints * (3 + 6 + 5 + 1 + 16*MaxEndpointIPs)
	if all := biggest + MaxNetworks*(3+1+MaxName) + 100; all > maxStream {
		t.Errorf("the state of a full member may take %d bytes, a stream %d", all, maxStream)
	}
}
