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
