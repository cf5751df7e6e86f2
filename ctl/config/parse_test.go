package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`# two containers
networks:
  - name: blue
    vni: 100
    subnets: [198.18.0.0/24, "2001:db8::/64"]
    gateways: [198.18.0.1]
    mtu: 1400
    ageing: 5m
    max_macs: 1000
    isolated: true
ports:
  - name: web
    network: blue
    netns: /run/netns/web
    ips: [198.18.0.2/24, auto]
    mac: 02:00:00:00:00:02
    default_route: true
  - {name: 7up, network: blue, kind: veth, container: 12345, ifname: eth1}
  - name: lan
    network: blue
    kind: packet
    interface: nic0
fdb:
  - mac: 02-00-00-00-00-0F
    network: blue
    port: lan
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Networks: []Network{{
			Name: "blue", VNI: 100, MTU: 1400, Ageing: Duration(5 * time.Minute), MaxMACs: 1000, Isolated: true,
			Subnets:  []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24"), netip.MustParsePrefix("2001:db8::/64")},
			Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
		}},
		Ports: []Port{
			{Name: "web", Network: "blue", NetNS: "/run/netns/web", IPs: []string{"198.18.0.2/24", "auto"}, MAC: "02:00:00:00:00:02", DefaultRoute: true},
			{Name: "7up", Network: "blue", Kind: KindVeth, Container: "12345", IfName: "eth1"},
			{Name: "lan", Network: "blue", Kind: KindPacket, Interface: "nic0"},
		},
		FDB: []Static{{MAC: "02-00-00-00-00-0F", Network: "blue", Port: "lan"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseEmpty(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}", "networks: []\nports: []\n"} {
		if got, err := Parse([]byte(text)); err != nil || !reflect.DeepEqual(got, &Config{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// TestParseErrors holds the whole report of each testdata/*.yaml, every error
// with its place, against the .txt beside it.
func TestParseErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(data); err == nil {
			t.Errorf("%s: no error", file)
		} else if err.Error()+"\n" != string(want) {
			t.Errorf("%s:\n%v\nwant\n%s", file, err, want)
		}
	}
}

func TestParseSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a":                                         "line 1:1: want an object of fields, not text",
		"networks: [{name: a}\n":                    "line 1:11: no YAML: sequence end token ']' not found",
		"networks: []\n---\nports: []\n":            "line 3:1: a second document: a config is one",
		"networks: *x\n":                            "line 1:11: YAML's aliases (*) are not for a config",
		"networks: &x []\n":                         "line 1:11: YAML's anchors (&) are not for a config",
		"networks: !x []\n":                         "line 1:11: YAML's tags (!) are not for a config",
		"? networks\n: []\n":                        "line 1:1: YAML's complex keys (?) are not for a config",
		"%YAML 1.2\n---\nnetworks: []\n":            "line 1:1: YAML's directives (%) are not for a config",
		"networks:\n\t- name: a\n":                  "line 2:1: no YAML: found character '\t' that cannot start any token",
		"networks: " + deep("[", 40):                "line 1:26: lists and objects are nested more than 16 deep",
		"networks:\n  " + deep("- ", 40):            "line 2:35: lists and objects are nested more than 16 deep",
		wide("k%d: 1\n", 100):                       "line 65:4: more than 64 keys in one mapping",
		"{" + wide("k%d: 1,", 100) + "}":            "line 1:443: more than 64 keys in one mapping",
		"ports:\n  -\n" + wide("    k%d: 1\n", 100): "line 67:8: more than 64 keys in one mapping",
	} {
		if _, err := Parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
}

func deep(open string, n int) string { return strings.Repeat(open, n) }

func wide(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestParseBounds(t *testing.T) {
	if _, err := Parse(make([]byte, MaxFile+1)); err == nil || !strings.Contains(err.Error(), "at most 4194304") {
		t.Error(err)
	}
	ports := "networks: [{name: n}]\nports:\n" + wide("  - {name: p%d, network: n, netns: /n, ifname: i%[1]d}\n", MaxPorts)
	if _, err := Parse([]byte(ports)); err != nil {
		t.Error(err)
	}
	_, err := Parse([]byte(ports + "  - {name: more, network: n, netns: /n}\n"))
	if err == nil || err.Error() != "line 3:3: ports: 4096 of them: at most 4095" {
		t.Error(err)
	}
	_, err = Parse([]byte("ports:\n" + wide("  - {name: p%d, network: n, ifname: i%[1]d}\n", 150)))
	if all := Each(err); len(all) != maxReported+1 || all[maxReported].Error() != "line 102:27: from here on 50 more errors" {
		t.Errorf("%d errors, the last is %v", len(all), all[len(all)-1])
	}
}

// TestParseTime keeps hostile files of the greatest size from holding swd up:
// a quadratic parser would take hours for each.
func TestParseTime(t *testing.T) {
	for name, part := range map[string]string{
		"keys": "k: 1\n", "entries": "- a\n", "flow": "[", "dashes": "- ", "documents": "---\n", "anchors": "&a ",
		"colons": ":", "quotes": "'a' ", "pairs": "a: ", "blocks": "a: |\n  x\n", "blank": " \n",
	} {
		text := strings.Repeat(part, (1<<18)/len(part))
		start := time.Now()
		if _, err := Parse([]byte(text)); err == nil && name != "documents" && name != "blank" {
			t.Errorf("%s: no error", name)
		}
		if took := time.Since(start); took > 60*time.Second {
			t.Errorf("%s: %d bytes took %s", name, len(text), took)
		}
	}
}

func TestMarshalIsMinimal(t *testing.T) {
	c := &Config{
		Networks: []Network{{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}}},
		Ports:    []Port{{Name: "123", Network: "blue", PID: 7, IPs: []string{"auto"}, MAC: "02:00:00:00:00:02"}},
	}
	got, err := Marshal(c)
	const want = `networks:
  - name: blue
    subnets:
      - 198.18.0.0/24
ports:
  - name: "123"
    network: blue
    pid: 7
    ips:
      - auto
    mac: 02:00:00:00:00:02
`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

// FuzzParse: no text makes Parse panic, what it accepts survives being written
// and read again, and filling in defaults makes nothing of it wrong.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"networks: [{name: a, subnets: [198.18.0.0/24], ageing: 90s}]\nports: [{name: '1', network: a, netns: /n}]",
		"networks:\n  - name: a\n    mtu: 9000\nports:\n  - name: p\n    network: a\n    container: 0x12\n    ips: [auto]",
		"networks: [{name: a, subnets: [198.18.0.0/24], gateways: [198.18.0.1]}]\nuplinks: [{name: u, interface: e, mode: own, addresses: [192.0.2.2/24]}]\n" +
			"nat: [{type: masquerade, network: a, uplink: u}, {type: publish, uplink: u, listen: '192.0.2.2:8-9/udp', to: '198.18.0.2:8-9'}]\nnat_settings: {udp: 1m}",
		"ports:\n- name: |\n    a\n  mac: \"\\x30\"", "a: 'b' # c\n---\n", "- ? : {[&x *x !!y <<: ]}",
	} {
		f.Add([]byte(text))
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			for _, e := range Each(err) {
				if !strings.HasPrefix(e.Error(), "line ") {
					t.Errorf("no line: %v", e)
				}
			}
			return
		}
		text, err := Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%v\n%s\nread again %+v\nwas        %+v", err, text, again, c)
		}
		d := c.WithDefaults()
		if err := d.Validate(); err != nil || !reflect.DeepEqual(d, d.WithDefaults()) {
			t.Fatalf("with defaults %+v: %v", d, err)
		}
	})
}
