package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

const (
	blue = `{"name":"blue","vni":1,"subnets":["198.18.0.0/24","2001:db8::/64"],"gateways":["198.18.0.1"],` +
		`"mtu":1500,"ageing_seconds":300,"max_macs":1048576,"isolated":false,"ports":["db","web"],"macs":2}`
	bare = `{"name":"bare","vni":2,"subnets":[],"gateways":[],"mtu":9000,"ageing_seconds":10,"max_macs":100,` +
		`"isolated":true,"ports":[],"macs":0}`
	web = `{"name":"web","kind":"tap","network":"blue","state":"up","ifname":"eth0","netns":"/run/netns/web",` +
		`"mac":"02:00:00:00:00:01","ips":["198.18.0.2/24"],"mtu":1500,"rx_frames":10,"rx_bytes":980,"tx_frames":12,` +
		`"tx_bytes":1100,"drops":{"no-egress":2,"exceeds-mtu":1}}`
	lan = `{"name":"lan","kind":"packet","network":"blue","state":"down","reason":"interface enp3s0 is gone",` +
		`"ifname":"enp3s0","mac":"02:00:00:00:00:02","ips":[],"mtu":1500,"rx_frames":0,"rx_bytes":0,"tx_frames":0,` +
		`"tx_bytes":0,"drops":{}}`
	status = `{"version":"1.2.3","node":"host1","pid":42,"uptime_seconds":61.5,"workers":2,"networks":1,"ports":2,` +
		`"ports_down":1,"macs":2,"max_macs":1048576,"macs_refused":0,"rx_frames":10,"rx_bytes":980,"tx_frames":12,` +
		`"tx_bytes":1100,"drops":3,"uplinks":2,"uplinks_down":1,"conns":2,"max_conns":1000000,"conns_refused":0,` +
		`"peers":2,"peers_down":1,"mesh":"joined","members_up":2,"members":3}`
	learnt = `{"mac":"02:00:00:00:00:09","network":"blue","port":"web","static":false,"age_seconds":3.2}`
	static = `{"mac":"02:00:00:00:00:05","network":"blue","port":"web","static":true,"age_seconds":0}`
	event1 = `{"time":"2026-01-02T03:04:05.000000006Z","kind":"port-added","object":"port web","message":"added to network blue"}`
	event2 = `{"time":"2026-01-02T03:04:06.5Z","kind":"port-down","object":"port lan","message":"interface enp3s0 is gone"}`
	wan    = `{"name":"wan","interface":"eth0","mode":"shared","state":"up","mac":"02:00:00:00:00:11",` +
		`"addresses":["192.0.2.9/24","2001:db8::9/64"],"next_hops":[{"address":"192.0.2.1","mac":"02:00:00:00:00:12","state":"reachable"},` +
		`{"address":"fe80::1","state":"incomplete"}],"ports":"61000-65535","mtu":1500,"rx_frames":20,"rx_bytes":1960,"tx_frames":22,` +
		`"tx_bytes":2200,"drops":{"unsolicited":4}}`
	dmz = `{"name":"dmz","interface":"eth1","mode":"own","state":"down","reason":"interface eth1 has no carrier","mac":"02:00:00:00:00:13",` +
		`"addresses":["203.0.113.2/24"],"next_hops":[],"ports":"1024-65535","mtu":1500,"rx_frames":0,"rx_bytes":0,"tx_frames":0,` +
		`"tx_bytes":0,"drops":{}}`
	masquerade = `{"id":"e83756f20108","type":"masquerade","state":"up","network":"blue","uplink":"wan","mapping":"endpoint-independent",` +
		`"filtering":"address-and-port-dependent","ipv6":"translate","hits":12}`
	publication = `{"id":"500b014917c1","type":"publish","state":"up","network":"blue","uplink":"wan","listen":"8080/tcp","to":"web:80",` +
		`"to_addresses":["198.18.0.2:80"],"hits":3}`
	idle = `{"id":"0123456789ab","type":"publish","state":"down","reason":"port db is down","network":"blue","uplink":"wan",` +
		`"listen":"5432/tcp","to":"db:5432","hits":0}`
	conn1 = `{"proto":"tcp","network":"blue","uplink":"wan","nat":"e83756f20108","original":{"src":"198.18.0.2:40000","dst":"192.0.2.80:80"},` +
		`"reply":{"src":"192.0.2.80:80","dst":"192.0.2.9:61007"},"state":"established","timeout_seconds":7439.2,"packets":12,"bytes":3400}`
	conn2 = `{"proto":"icmp","network":"blue","uplink":"wan","nat":"e83756f20108","original":{"src":"[2001:db8:1::2]:77","dst":"2001:db8::80"},` +
		`"reply":{"src":"2001:db8::80","dst":"[2001:db8::9]:61077"},"state":"query","timeout_seconds":59,"packets":2,"bytes":168}`
	count = `{"count":2,"max":1000000,"containers":1,"created":15,"expired":13,"refused":0}`
	host2 = `{"name":"host2","address":"192.0.2.2:4789","state":"up","networks":["blue"],"mtu":1500,"rx_frames":7,"rx_bytes":700,` +
		`"tx_frames":8,"tx_bytes":800,"drops":{"exceeds-mtu":1}}`
	tor1 = `{"name":"tor1","address":"203.0.113.9:4789","state":"down","reason":"no route to host","networks":[],"mtu":0,"rx_frames":0,` +
		`"rx_bytes":0,"tx_frames":0,"tx_bytes":0,"drops":{}}`
	mesh = `{"node":"host1","state":"joined","listen":"192.0.2.1:7946","vtep":"192.0.2.1:4789","encrypted":true,"join":["192.0.2.2"],` +
		`"members_up":2,"members":3,"endpoints_local":2,"endpoints_remote":1,"refused":0,"tx_messages":5,"tx_bytes":600,"rx_messages":4,"rx_bytes":500}`
	self = `{"name":"host1","address":"192.0.2.1:7946","vtep":"192.0.2.1:4789","state":"up","self":true,"networks":["blue","red"],` +
		`"rtt_seconds":0,"mtu":0,"macs":2,"rx_frames":0,"tx_frames":0}`
	member = `{"name":"host2","address":"192.0.2.2:7946","vtep":"192.0.2.2:4789","state":"up","self":false,"networks":["blue"],` +
		`"rtt_seconds":0.000412,"mtu":1500,"macs":1,"rx_frames":7,"tx_frames":8}`
	failed = `{"name":"host3","address":"192.0.2.3:7946","vtep":"192.0.2.3:4789","state":"down","reason":"it doesn't answer","self":false,` +
		`"networks":[],"rtt_seconds":0,"mtu":0,"macs":0,"rx_frames":0,"tx_frames":0}`
	announced = `{"name":"host2","address":"192.0.2.2:7946","vtep":"192.0.2.2:4789","state":"up","self":false,"networks":["blue"],` +
		`"rtt_seconds":0.000412,"mtu":1500,"macs":1,"endpoints":[{"vni":7,"network":"blue","mac":"02:00:00:00:00:21","ips":["198.18.0.21"]}],"rx_frames":7,"tx_frames":8}`
	key1   = `{"id":"3f1b2c4d","active":true}`
	key2   = `{"id":"0a0b0c0d","active":false}`
	wanted = `{"networks":[{"name":"blue","subnets":["198.18.0.0/24"]}],"ports":[{"name":"web","network":"blue","pid":7}]}`
)

var canned = map[string]answer{
	"GET /v1/status":        {body: status},
	"GET /v1/networks":      {body: "[" + blue + "," + bare + "]"},
	"GET /v1/networks/blue": {body: blue},
	"POST /v1/networks":     {status: 201, body: blue},
	"GET /v1/ports":         {body: "[" + web + "," + lan + "]"},
	"GET /v1/ports/web":     {body: web},
	"GET /v1/ports/lan":     {body: lan},
	"POST /v1/ports":        {status: 201, body: web},
	"GET /v1/fdb":           {body: "[" + learnt + "," + static + "]"},
	"POST /v1/fdb":          {status: 201, body: static},
	"GET /v1/drops":         {body: `[{"reason":"runt","count":4},{"reason":"no-egress","count":2}]`},
	"GET /v1/drops?port=web": {
		body: `[{"reason":"no-egress","count":2,"port":"web"},{"reason":"exceeds-mtu","count":1,"port":"web"}]`,
	},
	"GET /v1/uplinks":          {body: "[" + wan + "," + dmz + "]"},
	"GET /v1/uplinks/wan":      {body: wan},
	"GET /v1/uplinks/dmz":      {body: dmz},
	"POST /v1/uplinks":         {status: 201, body: wan},
	"GET /v1/nat":              {body: "[" + publication + "," + idle + "," + masquerade + "]"},
	"GET /v1/nat/e83756f20108": {body: masquerade},
	"GET /v1/nat/500b014917c1": {body: publication},
	"GET /v1/nat/0123456789ab": {body: idle},
	"POST /v1/nat":             {status: 201, body: publication},
	"GET /v1/peers":            {body: "[" + tor1 + "," + host2 + "]"},
	"GET /v1/peers/host2":      {body: host2},
	"GET /v1/peers/tor1":       {body: tor1},
	"POST /v1/peers":           {status: 201, body: host2},
	"GET /v1/mesh":             {body: mesh},
	"POST /v1/mesh":            {body: mesh},
	"GET /v1/mesh/members":     {body: "[" + member + "," + failed + "," + self + "]"},
	"GET /v1/mesh/keys":        {body: "[" + key1 + "," + key2 + "]"},
	"POST /v1/mesh/keys":       {status: 201, body: key2},

	"GET /v1/mesh/members?endpoints=1":     {body: "[" + announced + "]"},
	"POST /v1/mesh/keys/3f1b2c4d/activate": {body: key1},

	"GET /v1/conns":       {body: "[" + conn1 + ",\n" + conn2 + "]\n"},
	"GET /v1/conns/count": {body: count},

	"GET /v1/events":  {body: event1 + "\n" + event2 + "\n"},
	"GET /v1/config":  {body: wanted},
	"POST /v1/config": {body: `{"created":["port web"],"changed":["network blue"],"unchanged":null}`},
}

// TestOutput holds what each command prints as a table and as JSON against
// testdata/NAME.golden and testdata/NAME.json.golden.
func TestOutput(t *testing.T) {
	version = "1.2.3"
	f := newFakeSwd(t, canned)
	for name, args := range map[string]string{
		"status":       "status",
		"version":      "version",
		"drops":        "drops",
		"drops-port":   "drops --port web",
		"export":       "export",
		"apply":        "apply -f -",
		"network-ls":   "network ls",
		"network-show": "network show blue",
		"network-add":  "network add blue",
		"port-ls":      "port ls",
		"port-show":    "port show web",
		"port-down":    "port show lan",
		"port-add":     "port add web --network blue --pid 7",
		"fdb-ls":       "fdb ls",
		"fdb-add":      "fdb add 02:00:00:00:00:05 --network blue --port web",
		"events":       "events",
		"uplink-ls":    "uplink ls",
		"uplink-show":  "uplink show wan",
		"uplink-down":  "uplink show dmz",
		"uplink-add":   "uplink add wan --interface eth0",
		"nat-ls":       "nat ls",
		"nat-show":     "nat show e83756f20108",
		"nat-publish":  "nat show 500b014917c1",
		"nat-down":     "nat show 0123456789ab",
		"nat-add":      "nat add publish --uplink wan --listen 8080/tcp --to web:80",
		"conn-ls":      "conn ls",
		"conn-count":   "conn count",
		"peer-ls":      "peer ls",
		"peer-show":    "peer show host2",
		"peer-down":    "peer show tor1",
		"peer-add":     "peer add host2 --address 192.0.2.2",
		"mesh-join":    "mesh join 192.0.2.2",
		"mesh-status":  "mesh status",
		"mesh-members": "mesh members",
		"mesh-macs":    "mesh members --endpoints",
		"mesh-key-ls":  "mesh key ls",
		"mesh-key-add": "mesh key add testdata/mesh.key",
		"mesh-key-use": "mesh key activate 3f1b2c4d",
	} {
		for suffix, o := range map[string]string{".golden": "table", ".json.golden": "json"} {
			got := f.swctlWith(t.Context(), "networks: []", append(strings.Fields(args), "-o", o)...)
			file := filepath.Join("testdata", name+suffix)
			if *update {
				if err := os.WriteFile(file, []byte(got.stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(name+" "+o, func(t *testing.T) { expect(t, got, outcome{0, string(want), ""}) })
		}
	}
}

func TestEmptyLists(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{
		"GET /v1/networks": {body: "null"}, "GET /v1/ports": {body: "[]"}, "GET /v1/fdb": {body: "[]"},
		"GET /v1/drops": {body: "null"}, "GET /v1/events": {}, "GET /v1/uplinks": {body: "null"}, "GET /v1/nat": {body: "[]"},
		"GET /v1/conns": {body: "[]"}, "GET /v1/peers": {body: "null"}, "GET /v1/mesh/members": {body: "null"}, "GET /v1/mesh/keys": {body: "[]"},
	})
	for _, args := range []string{"network ls", "port ls", "fdb ls", "drops", "events", "uplink ls", "nat ls", "conn ls", "peer ls", "mesh members", "mesh key ls"} {
		expect(t, f.swctl(append(strings.Fields(args), "-o", "json")...), outcome{0, "[]\n", ""})
	}
	expect(t, f.swctl("fdb", "ls"), outcome{0, "MAC  NETWORK  PORT  STATIC  AGE-SECONDS\n", ""})
}

// TestRequests holds what each command asks swd for.
func TestRequests(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"network add blue", `POST /v1/networks {"name":"blue"}`},
		{
			"network add blue --vni 7 --subnet 198.18.0.0/24 --subnet 2001:db8::/64 --gateway 198.18.0.1 --mtu 1400 --ageing 90s --max-macs 10 --isolated",
			`POST /v1/networks {"name":"blue","vni":7,"subnets":["198.18.0.0/24","2001:db8::/64"],"gateways":["198.18.0.1"],"mtu":1400,"ageing":"1m30s","max_macs":10,"isolated":true}`,
		},
		{"network rm blue", "DELETE /v1/networks/blue"},
		{
			"port add web --network blue --netns /run/netns/web --kind veth --ifname eth1 --ip 198.18.0.2/24 --ip auto --mac 02:00:00:00:00:01 --default-route",
			`POST /v1/ports {"name":"web","network":"blue","kind":"veth","netns":"/run/netns/web","ifname":"eth1","ips":["198.18.0.2/24","auto"],"mac":"02:00:00:00:00:01","default_route":true}`,
		},
		{"port add web --network blue --container db", `POST /v1/ports {"name":"web","network":"blue","container":"db"}`},
		{"port add lan --network blue --kind packet --interface nic0", `POST /v1/ports {"name":"lan","network":"blue","kind":"packet","interface":"nic0"}`},
		{"port rm web", "DELETE /v1/ports/web"},
		{"fdb ls --network blue", "GET /v1/fdb?network=blue"},
		{"fdb add 02:00:00:00:00:05 --network blue --port web", `POST /v1/fdb {"mac":"02:00:00:00:00:05","network":"blue","port":"web"}`},
		{"fdb rm 02:00:00:00:00:05 --network blue", "DELETE /v1/fdb?mac=02%3A00%3A00%3A00%3A00%3A05&network=blue"},
		{"fdb flush", "DELETE /v1/fdb"},
		{"fdb flush --network blue --port web", "DELETE /v1/fdb?network=blue&port=web"},
		{"apply -f -", `POST /v1/config {"networks":[{"name":"blue"}]}`},
		{"events --follow", "GET /v1/events?follow=1"},
		{"capture web -w - -c 5 --snaplen 96 tcp port 80", "GET /v1/capture?count=5&filter=tcp+port+80&port=web&snaplen=96"},
		{"uplink add wan --interface eth0", `POST /v1/uplinks {"name":"wan","interface":"eth0"}`},
		{
			"uplink add dmz --interface eth1 --mode own --address 203.0.113.2/24 --address 2001:db8::2/64 --next-hop 203.0.113.1 --ports 2000-2999 --mac 02:00:00:00:00:07",
			`POST /v1/uplinks {"name":"dmz","interface":"eth1","mode":"own","addresses":["203.0.113.2/24","2001:db8::2/64"],"next_hops":["203.0.113.1"],"ports":"2000-2999","mac":"02:00:00:00:00:07"}`,
		},
		{"uplink rm wan", "DELETE /v1/uplinks/wan"},
		{"nat add masquerade --network blue --uplink wan", `POST /v1/nat {"type":"masquerade","uplink":"wan","network":"blue"}`},
		{
			"nat add masquerade --network blue --uplink wan --mapping address-and-port-dependent --filtering address-and-port-dependent --ipv6 route",
			`POST /v1/nat {"type":"masquerade","uplink":"wan","network":"blue","mapping":"address-and-port-dependent","filtering":"address-and-port-dependent","ipv6":"route"}`,
		},
		{
			"nat add publish --uplink wan --listen [2001:db8::1]:8000-8010/udp --to [2001:db8:1::2]:9000-9010",
			`POST /v1/nat {"type":"publish","uplink":"wan","listen":"[2001:db8::1]:8000-8010/udp","to":"[2001:db8:1::2]:9000-9010"}`,
		},
		{"nat rm 500b014917c1", "DELETE /v1/nat/500b014917c1"},
		{"conn ls --network blue --proto tcp --src 198.18.0.2 --dst 192.0.2.0/24 --limit 10", "GET /v1/conns?dst=192.0.2.0%2F24&limit=10&network=blue&proto=tcp&src=198.18.0.2"},
		{"conn flush", "DELETE /v1/conns"},
		{"conn flush --proto icmp --src 2001:db8:1::2", "DELETE /v1/conns?proto=icmp&src=2001%3Adb8%3A1%3A%3A2"},
		{"peer add host2 --address 192.0.2.2", `POST /v1/peers {"name":"host2","address":"192.0.2.2"}`},
		{
			"peer add host2 --address [2001:db8::2]:8472 --network blue --network red",
			`POST /v1/peers {"name":"host2","address":"[2001:db8::2]:8472","networks":["blue","red"]}`,
		},
		{"peer rm host2", "DELETE /v1/peers/host2"},
		{"mesh join 192.0.2.2 [2001:db8::3]:7947", `POST /v1/mesh {"join":["192.0.2.2","[2001:db8::3]:7947"]}`},
		{"mesh leave", "DELETE /v1/mesh"},
		{"mesh key add testdata/mesh.key", `POST /v1/mesh/keys {"key":"AAECAwQFBgcICQoLDA0ODw=="}`},
		{"mesh key activate 0a0b0c0d", "POST /v1/mesh/keys/0a0b0c0d/activate null"},
		{"mesh key retire 0a0b0c0d", "DELETE /v1/mesh/keys/0a0b0c0d"},
		{"capture --uplink wan -w - udp", "GET /v1/capture?filter=udp&uplink=wan"},
		{"capture --network blue -w - arp", "GET /v1/capture?filter=arp&network=blue"},
	} {
		f := newFakeSwd(t, nil)
		f.swctlWith(t.Context(), "networks: [{name: blue}]", strings.Fields(c.args)...)
		if asked := f.requests(); !slices.Equal(asked, []string{c.want}) {
			t.Errorf("%s asks\n%q\nwant\n%q", c.args, asked, c.want)
		}
	}
}

// TestBadUsage: exit code 2, and swd isn't asked.
func TestBadUsage(t *testing.T) {
	f := newFakeSwd(t, nil)
	for _, c := range []struct{ args, why string }{
		{"", "swctl: what to do is missing: want one of apply, "},
		{"nonsense", `swctl: unknown command "nonsense"`},
		{"port", "port: what to do is missing: want one of add, ls, rm, show"},
		{"port nonsense", `port: unknown command "nonsense"`},
		{"port ls --nonsense", "port ls: unknown flag: --nonsense"},
		{"port ls web", `port ls: there is an argument too many: "web"`},
		{"port add", "port add: NAME is missing"},
		{"port add web", `port add: required flag(s) "network" not set`},
		{"port add web --network=", "port add: --network is given but empty"},
		{"port add web --network blue --ip=", "port add: --ip is given but empty"},
		{"port add web --network blue --pid x", "port add: --pid: \"x\" is no number\n"},
		{"port add web --network blue --pid 99999999999999999999", "port add: --pid: \"99999999999999999999\" is too far from 0\n"},
		{"port add web --network blue --default-route=x", "port add: --default-route: \"x\" is neither true nor false\n"},
		{"port add web --network blue --pid 1 --netns /x", "port add: "},
		{"port show", "port show: NAME is missing"},
		{"network add blue --vni x", "network add: --vni: "},
		{"network add blue --ageing 5", "network add: --ageing: "},
		{"fdb add 02:00:00:00:00:05 --network blue", `fdb add: required flag(s) "port" not set`},
		{"fdb rm --network blue", "fdb rm: MAC is missing"},
		{"uplink add wan", `uplink add: required flag(s) "interface" not set`},
		{"uplink", "uplink: what to do is missing: want one of add, ls, rm, show"},
		{"nat add", "nat add: what to do is missing: want one of masquerade, publish"},
		{"nat add snat", `nat add: unknown command "snat": want one of masquerade, publish`},
		{"nat add masquerade --uplink wan", `nat add masquerade: required flag(s) "network" not set`},
		{"nat add publish --uplink wan --listen 80/tcp", `nat add publish: required flag(s) "to" not set`},
		{"nat rm", "nat rm: ID is missing"},
		{"conn", "conn: what to do is missing: want one of count, flush, ls"},
		{"conn ls --limit -1", "conn ls: "},
		{"conn ls --src=", "conn ls: --src is given but empty"},
		{"conn flush all", `conn flush: there is an argument too many: "all"`},
		{"peer add host2", `peer add: required flag(s) "address" not set`},
		{"peer", "peer: what to do is missing: want one of add, ls, rm, show"},
		{"mesh", "mesh: what to do is missing: want one of join, key, leave, members, status"},
		{"mesh join", "mesh join: ADDR is missing"},
		{"mesh key", "mesh key: what to do is missing: want one of activate, add, ls, retire"},
		{"mesh key add", "mesh key add: FILE is missing"},
		{"mesh key retire", "mesh key retire: ID is missing"},
		{"apply", `apply: required flag(s) "file" not set`},
		{"port ls -o xml", "want table or json"},
		{"capture", "capture: want a PORT, --network NET or --uplink UP"},
		{"capture --network blue --uplink wan -w -", "capture: "},
		{"capture web -w - -c -1", "capture: --count: \"-1\" is no whole number from 0 up\n"},
		{"capture web -w - --snaplen abc", "capture: --snaplen: \"abc\" is no whole number from 0 up\n"},
		{"completion", "completion: the shell is missing"},
		{"completion tcsh", `completion: invalid argument "tcsh"`},
	} {
		got := f.swctl(strings.Fields(c.args)...)
		if got.code != 2 || got.stdout != "" || !strings.HasPrefix(got.stderr, "error: ") ||
			!strings.Contains(got.stderr, c.why) || !strings.Contains(got.stderr, "\nhint: swctl") {
			t.Errorf("swctl %s: %+v, want 2 and %s", c.args, got, c.why)
		}
	}
	if asked := f.requests(); len(asked) > 0 {
		t.Errorf("swd was asked %q", asked)
	}
	expect(t, f.swctl("port", "show", ""), outcome{2, "", "error: port show: an argument is empty\nhint: swctl port show --help\n"})
}

// TestRefused: exit code 1 with what swd says.
func TestRefused(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{
		"POST /v1/ports":              {status: 409, body: `{"what":"port add web","why":"it exists","hint":"remove it first"}`},
		"DELETE /v1/ports/web":        {status: 404, body: `{"what":"port rm web","why":"there is no port web"}`},
		"DELETE /v1/networks/web":     {status: 409, body: `{"what":"network rm web","why":"1 ports are on it"}`},
		"DELETE /v1/uplinks/wan":      {status: 409, body: `{"what":"uplink rm wan","why":"nat e83756f20108 uses it"}`},
		"DELETE /v1/nat/500b014917c1": {status: 404, body: `{"what":"nat rm 500b014917c1","why":"there is no NAT 500b014917c1"}`},
		"GET /v1/conns":               {body: `[` + conn1 + `,{"proto":`},
		"DELETE /v1/peers/host2":      {status: 404, body: `{"what":"peer rm host2","why":"there is no peer host2"}`},
		"GET /v1/conns?network=x":     {status: 404, body: `{"what":"conn ls","why":"there is no network x"}`},
		"GET /v1/ports":               {status: 200, body: `[{"name":`},
		"GET /v1/networks":            {status: 502, body: "<html>"},
		"GET /v1/drops":               {status: 429, body: `{"what":"","why":"swd already serves 64 clients","hint":"end one"}`},
		"DELETE /v1/fdb?mac=02%3A00%3A00%3A00%3A00%3A05&network=blue": {status: 404, body: `{"what":"fdb rm","why":"no entry"}`},
	})
	for _, c := range []struct{ args, stderr string }{
		{"port add web --network blue --pid 1", "error: port add web: it exists\nhint: remove it first\n"},
		{"port rm web", "error: port rm web: there is no port web\n"},
		{"network rm web --if-exists", "error: network rm web: 1 ports are on it\n"},
		{"fdb rm 02:00:00:00:00:05 --network blue", "error: fdb rm: no entry\n"},
		{"port ls", "error: port ls: swd ended the connection before its answer was whole; its log may say why: unexpected EOF\n"},
		{"drops", "error: drops: swd already serves 64 clients\nhint: end one\n"},
		{"network ls", "error: GET /v1/networks: an answer that is none of swd's: 502 Bad Gateway\nhint: is it swd that listens there, and of the same version?\n"},
		{"port rm Web", "error: port rm Web: \"Web\" is no name: want 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit\n"},
		{"port show ..", "error: port show ..: \"..\" is no name: want 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit\n"},
		{"port add web --network blue --pid 0", "error: port add web: --pid: 0 is no process id\n"},
		{"network add blue --subnet 198.18.0.0", "error: network add blue: --subnet: \"198.18.0.0\" is no subnet: want one as 198.18.0.0/24 or 2001:db8::/64\n"},
		{"network add blue --gateway x", "error: network add blue: --gateway: \"x\" is no address: want one as 198.18.0.1 or 2001:db8::1\n"},
		{"fdb rm zz --network blue", "error: fdb rm zz: mac: \"zz\" is no MAC address: want six bytes in hex, as 02:00:00:00:00:01\n"},
		{"uplink rm wan --if-exists", "error: uplink rm wan: nat e83756f20108 uses it\n"},
		{"uplink add wan --interface eth0 --next-hop x", "error: uplink add wan: --next-hop: \"x\" is no address: want one as 198.18.0.1 or 2001:db8::1\n"},
		{"nat rm 500b014917c1", "error: nat rm 500b014917c1: there is no NAT 500b014917c1\n"},
		{"nat show 500b", "error: nat show 500b: \"500b\" is no id: want 12 hexadecimal digits, as swctl nat ls shows them\n"},
		{"conn ls --network x", "error: conn ls: there is no network x\n"},
		{"conn ls --network x -o json", "error: conn ls: there is no network x\n"},
		{"conn ls --proto gre", "error: conn ls: --proto: \"gre\" is no protocol of connections: want tcp, udp, icmp or sctp\n"},
		{"conn flush --dst web", "error: conn flush: --dst: \"web\" is no address and no subnet: want one as 198.18.0.2 or 2001:db8::/64\n"},
		{"peer rm host2", "error: peer rm host2: there is no peer host2\n"},
		{"mesh key add testdata/absent.key", "error: mesh key add testdata/absent.key: open testdata/absent.key: no such file or directory\n"},
		{"mesh key add testdata/network-add.golden", "error: mesh key add testdata/network-add.golden: line 1: no key: want 16, 24 or 32 random bytes in Base64, as `head -c 32 /dev/urandom | base64` makes them\n"},
		{"apply -f testdata/absent.yaml", "error: apply: open testdata/absent.yaml: no such file or directory\n"},
	} {
		t.Run(c.args, func(t *testing.T) { expect(t, f.swctl(strings.Fields(c.args)...), outcome{1, "", c.stderr}) })
	}
	expect(t, f.swctl("port", "rm", "web", "--if-exists"), outcome{})
	expect(t, f.swctl("fdb", "rm", "02:00:00:00:00:05", "--network", "blue", "--if-exists"), outcome{})
	expect(t, f.swctl("nat", "rm", "500b014917c1", "--if-exists"), outcome{})
}

// TestApplyErrors: each error of the file is a line, and swd isn't asked.
func TestApplyErrors(t *testing.T) {
	f := newFakeSwd(t, nil)
	got := f.swctlWith(t.Context(), "networks:\n  - name: Blue\n    mtu: 1\n", "apply", "-f", "-")
	expect(t, got, outcome{1, "", `error: apply: stdin: line 2:11: networks[0].name: "Blue" is no name: want 1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit
error: apply: stdin: line 3:10: networks[0].mtu: 1 is out of range: want 68 to 65521
`})
	if asked := f.requests(); len(asked) > 0 {
		t.Errorf("swd was asked %q", asked)
	}
}

// TestUnreachable: exit code 3 with what to do.
func TestUnreachable(t *testing.T) {
	f := &fakeSwd{socket: filepath.Join(t.TempDir(), "no.sock")}
	want := outcome{3, "", "error: port ls: swd can't be reached at " + f.socket + ": no such file or directory\n" +
		"hint: is swd running? systemctl status swd, or start one: swd --socket " + f.socket +
		"; one that listens elsewhere is named by --socket or SWCTL_SOCKET\n"}
	expect(t, f.swctl("port", "ls"), want)
	for _, args := range []string{
		"status", "drops", "export", "apply -f -", "network ls", "network show a", "network add a", "network rm a --if-exists",
		"port show a", "port add a --network b --pid 1", "port rm a --if-exists", "fdb ls", "fdb flush",
		"fdb rm 02:00:00:00:00:05 --network b --if-exists", "fdb add 02:00:00:00:00:05 --network b --port c",
		"uplink ls", "uplink show a", "uplink add a --interface b", "uplink rm a --if-exists",
		"nat ls", "nat show 500b014917c1", "nat rm 500b014917c1 --if-exists", "nat add masquerade --network a --uplink b",
		"nat add publish --uplink a --listen 80/tcp --to b:80", "conn ls", "conn ls -o json", "conn flush", "conn count",
		"peer ls", "peer show a", "peer add a --address 192.0.2.2", "peer rm a --if-exists", "mesh join 192.0.2.2", "mesh leave",
		"mesh status", "mesh members", "mesh key ls", "mesh key add testdata/mesh.key", "mesh key activate a", "mesh key retire a",
		"events", "events --follow", "capture a -w -", "capture --network a -w x.pcapng",
	} {
		if got := f.swctl(strings.Fields(args)...); got.code != 3 || got.stdout != "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
	version = "1.2.3"
	expect(t, f.swctl("version"), outcome{0, "swctl  1.2.3\nswd    can't be reached\n", ""})
	expect(t, f.swctl("version", "-o", "json"), outcome{0, "{\n  \"swctl\": \"1.2.3\"\n}\n", ""})
}

func TestSocketFromEnvironment(t *testing.T) {
	f := newFakeSwd(t, canned)
	t.Setenv("SWCTL_SOCKET", f.socket)
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"export"}, strings.NewReader(""), &out, &errs); code != 0 || out.Len() == 0 {
		t.Errorf("%d, %q, %q", code, out.String(), errs.String())
	}
}

// TestHelp: every command has an example, and its help goes to stdout.
func TestHelp(t *testing.T) {
	f := newFakeSwd(t, nil)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example or no description", cmd.CommandPath())
		}
		args := strings.Fields(cmd.CommandPath() + " --help")[1:]
		if got := f.swctl(args...); got.code != 0 || !strings.Contains(got.stdout, cmd.Example) || got.stderr != "" {
			t.Errorf("%v: %+v", args, got)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot())
}

func TestCompletion(t *testing.T) {
	f := newFakeSwd(t, canned)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := f.swctl("completion", shell); got.code != 0 || !strings.Contains(got.stdout, "__complete") || got.stderr != "" {
			t.Errorf("%s: %d, %s", shell, got.code, got.stderr)
		}
	}
	for args, want := range map[string]string{
		"port show |":            "web\nlan\n:4\n",
		"port rm w|":             "web\nlan\n:4\n",
		"port rm web |":          ":4\n",
		"capture |":              "web\nlan\n:4\n",
		"network rm |":           "blue\nbare\n:4\n",
		"port add x --network |": "blue\nbare\n:4\n",
		"port add x --kind |":    "tap\nveth\npacket\n:4\n",
		"fdb flush --port |":     "web\nlan\n:4\n",
		"uplink show |":          "wan\ndmz\n:4\n",
		"nat rm |":               "500b014917c1\tpublish 8080/tcp\n0123456789ab\tpublish 5432/tcp\ne83756f20108\tmasquerade blue\n:4\n",
		"nat add publish --to |": "web:\nlan:\n:6\n",
		"drops --port |":         "web\nlan\ntor1\nhost2\n:4\n",
		"peer rm |":              "tor1\nhost2\n:4\n",
		"peer add x --network |": "blue\nbare\n:4\n",
		"mesh key retire |":      "3f1b2c4d\n0a0b0c0d\n:4\n",
		"conn ls --proto |":      "tcp\nudp\nicmp\nsctp\n:4\n",
		"port ls -o |":           "table\njson\n:4\n",
	} {
		words := strings.Split(strings.TrimSuffix(args, "|"), " ")
		got := f.swctl(append([]string{"__complete"}, words...)...)
		if got.stdout != want {
			t.Errorf("%s: %q, want %q", args, got.stdout, want)
		}
	}
}
