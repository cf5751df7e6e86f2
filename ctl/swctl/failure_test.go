package main

import (
	"path/filepath"
	"strings"
	"testing"
)

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
		{"fdb rm zz --network blue --if-exists", "error: fdb rm zz: mac: \"zz\" is no MAC address: want six bytes in hex, as 02:00:00:00:00:01\n"},
		{"uplink rm wan --if-exists", "error: uplink rm wan: nat e83756f20108 uses it\n"},
		{"uplink add wan --interface eth0 --next-hop x", "error: uplink add wan: --next-hop: \"x\" is no address: want one as 198.18.0.1 or 2001:db8::1\n"},
		{"nat rm 500b014917c1", "error: nat rm 500b014917c1: there is no NAT 500b014917c1\n"},
		{"nat rm nope", "error: nat rm nope: \"nope\" is no id: want 12 hexadecimal digits, as swctl nat ls shows them\n"},
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
	for _, args := range []string{
		"port rm web", "peer rm host2", "nat rm 500b014917c1", "fdb rm 02:00:00:00:00:05 --network blue",
		// Nothing can be called that.
		"nat rm nope", "network rm Blue", "port rm Web", "uplink rm wan!", "peer rm ..",
	} {
		t.Run(args+" --if-exists", func(t *testing.T) {
			expect(t, f.swctl(append(strings.Fields(args), "--if-exists")...), outcome{})
		})
	}
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
