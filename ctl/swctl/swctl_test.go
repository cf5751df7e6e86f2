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
		`"tx_bytes":1100,"drops":3}`
	learnt = `{"mac":"02:00:00:00:00:09","network":"blue","port":"web","static":false,"age_seconds":3.2}`
	static = `{"mac":"02:00:00:00:00:05","network":"blue","port":"web","static":true,"age_seconds":0}`
	event1 = `{"time":"2026-01-02T03:04:05.000000006Z","kind":"port-added","object":"port web","message":"added to network blue"}`
	event2 = `{"time":"2026-01-02T03:04:06.5Z","kind":"port-down","object":"port lan","message":"interface enp3s0 is gone"}`
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
		"GET /v1/drops": {body: "null"}, "GET /v1/events": {},
	})
	for _, args := range []string{"network ls", "port ls", "fdb ls", "drops", "events"} {
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
		{"apply", `apply: required flag(s) "file" not set`},
		{"port ls -o xml", "want table or json"},
		{"capture", "capture: want a PORT or --network NET"},
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
		"POST /v1/ports":          {status: 409, body: `{"what":"port add web","why":"it exists","hint":"remove it first"}`},
		"DELETE /v1/ports/web":    {status: 404, body: `{"what":"port rm web","why":"there is no port web"}`},
		"DELETE /v1/networks/web": {status: 409, body: `{"what":"network rm web","why":"1 ports are on it"}`},
		"GET /v1/ports":           {status: 200, body: `[{"name":`},
		"GET /v1/drops":           {status: 429, body: `{"what":"","why":"swd already serves 64 clients","hint":"end one"}`},
		"GET /v1/networks":        {status: 502, body: "<html>"},
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
		{"apply -f testdata/absent.yaml", "error: apply: open testdata/absent.yaml: no such file or directory\n"},
	} {
		t.Run(c.args, func(t *testing.T) { expect(t, f.swctl(strings.Fields(c.args)...), outcome{1, "", c.stderr}) })
	}
	expect(t, f.swctl("port", "rm", "web", "--if-exists"), outcome{})
	expect(t, f.swctl("fdb", "rm", "02:00:00:00:00:05", "--network", "blue", "--if-exists"), outcome{})
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
		"port ls -o |":           "table\njson\n:4\n",
	} {
		words := strings.Split(strings.TrimSuffix(args, "|"), " ")
		got := f.swctl(append([]string{"__complete"}, words...)...)
		if got.stdout != want {
			t.Errorf("%s: %q, want %q", args, got.stdout, want)
		}
	}
}
