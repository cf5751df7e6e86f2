package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.2":          "192.0.2.2:4789",
		"192.0.2.2:8472":     "192.0.2.2:8472",
		"2001:db8::2":        "[2001:db8::2]:4789",
		"[2001:db8::2]":      "[2001:db8::2]:4789",
		"[2001:db8::2]:8472": "[2001:db8::2]:8472",
	} {
		if at, err := ParseEndpoint(s, VXLANPort); err != nil || at.String() != want {
			t.Errorf("%q: %v %v, want %s", s, at, err, want)
		}
	}
	for s, want := range map[string]string{
		"":                 "no address",
		"host2":            "not looked up",
		"host2:4789":       "not looked up",
		"192.0.2.2:":       "no address",
		"192.0.2.2:0":      "nobody listens at port 0",
		"192.0.2.2:65536":  "no address",
		"192.0.2.2/24":     "no address",
		"[192.0.2.2]":      "no address",
		"[2001:db8::2":     "no address",
		"2001:db8::2]":     "no address",
		"2001:db8::2:x":    "no address",
		"0.0.0.0":          "no address that a host may have",
		"[::]:4789":        "no address that a host may have",
		"224.0.0.1":        "no address that a host may have",
		"255.255.255.255":  "no address that a host may have",
		"127.0.0.1":        "no address that a host may have",
		"::ffff:192.0.2.2": "IPv4 in IPv6",
		"fe80::1%eth0":     "without a zone",
	} {
		if at, err := ParseEndpoint(s, VXLANPort); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v, want %s", s, at, err, want)
		}
	}
	for s, good := range map[string]bool{"0.0.0.0": true, "[::]:7946": true, "192.0.2.1": true, "224.0.0.1": false, "host": false} {
		if _, err := ParseListenAt(s, MeshPort); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestVNIOf: a network's VNI is the same on every host for ever, and in bounds.
func TestVNIOf(t *testing.T) {
	if vni := VNIOf("blue"); vni != 15170513 {
		t.Errorf("%d: hosts of an older version have another", vni)
	}
	seen := make(map[uint32]bool)
	for i := range 1000 {
		vni := VNIOf(fmt.Sprint("n", i))
		if vni < 1 || vni > MaxVNI {
			t.Errorf("%d", vni)
		}
		seen[vni] = true
	}
	if len(seen) < 995 {
		t.Errorf("%d VNIs of 1000 names", len(seen))
	}
}

func TestPeers(t *testing.T) {
	good := "networks: [{name: blue}]\npeers:\n  - {name: a, address: 192.0.2.1, networks: [blue]}\n  - {name: b, address: '[2001:db8::1]:4789'}\nmesh: {join: [192.0.2.3, '192.0.2.3:7947']}\n"
	c, err := Parse([]byte(good))
	if err != nil || !c.Peers[1].Shares("blue") || !c.Peers[0].Shares("blue") || c.Peers[0].Shares("red") {
		t.Fatalf("%+v, %v", c, err)
	}
	text, err := Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(text); err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
		t.Errorf("%s: %v", text, err)
	}
	for text, want := range map[string]string{
		"peers: [{name: A, address: 192.0.2.1}]":                                                     "peers[0].name",
		"peers: [{name: a}]":                                                                         "peers[0].address: missing",
		"peers: [{name: a, address: x}]":                                                             "peers[0].address: \"x\" is no address",
		"peers: [{name: a, address: 192.0.2.1, networks: [blue]}]":                                   "peers[0].networks[0]: there is no network \"blue\"",
		"networks: [{name: n}]\npeers: [{name: a, address: 192.0.2.1, networks: [n, n]}]":            "peers[0].networks[1]: network \"n\" is given twice",
		"peers: [{name: a, address: 192.0.2.1}, {name: a, address: 192.0.2.2}]":                      "peers[1].name: there is another peer",
		"peers: [{name: a, address: 192.0.2.1}, {name: b, address: '192.0.2.1:8472'}]":               "peers[1].address: 192.0.2.1 is the address of peer \"a\"",
		"mesh: {join: [host1]}":                                                                      "mesh.join[0]: \"host1\" is no address",
		"mesh: {join: [192.0.2.1, '192.0.2.1:7946']}":                                                "mesh.join[1]: 192.0.2.1:7946 is given twice",
		"mesh: {join: [" + strings.TrimSuffix(strings.Repeat("192.0.2.1, ", MaxJoin+1), ", ") + "]}": "mesh.join: 65 members: at most 64",
		"mesh: {key: x}": "mesh.key: unknown field",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestMeshKeys(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODw=="
	for text, want := range map[string]int{
		key:                                    1,
		"\n# old\n" + key + "\r\n\n":           1,
		key + "\n" + key:                       2,
		strings.Repeat(key+"\n", 3):            0,
		"":                                     0,
		"# none":                               0,
		"AAEC":                                 0,
		"secret!":                              0,
		strings.Repeat("\n", MaxMeshKeyFile+1): 0,
	} {
		keys, err := ParseMeshKeys([]byte(text))
		if len(keys) != want || (err == nil) != (want > 0) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %d keys, %v", text, len(keys), err)
		}
		if want > 0 && FormatMeshKey(keys[0]) != key {
			t.Errorf("%q: %x", text, keys[0])
		}
	}
}
