package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"heddle/ctl/api"
)

// asProgram has the test binary be swd.
const asProgram = "HEDDLE_TEST_SWD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  map[string]string
		code int
		out  string // In stdout or stderr.
	}{
		{args: []string{"--version"}, out: "swd unknown"},
		{args: []string{"--help"}, out: "--socket-group NAME"},
		{args: []string{"--workers", "many"}, code: 2, out: "swd: --workers: \"many\" is no number\n"},
		{args: []string{"--workers", "-1"}, code: 2, out: "--workers -1: want 1 to"},
		{args: []string{"--io-uring", "on"}, code: 2, out: "--io-uring on: want auto or off"},
		{args: []string{"--workers", "65"}, code: 2, out: "--workers 65"},
		{args: []string{"--color"}, code: 2, out: "unknown flag"},
		{args: []string{"start"}, code: 2, out: `unexpected argument "start"`},
		{args: []string{"--log-level", "loud"}, code: 2, out: "--log-level loud"},
		{args: []string{"--log-format", "xml"}, code: 2, out: "--log-format xml"},
		{args: []string{"--max-macs", "-5"}, code: 2, out: "--max-macs -5"},
		{args: []string{"--socket", ""}, code: 2, out: "need a path"},
		{args: []string{}, env: map[string]string{"SWD_WORKERS": "many"}, code: 2, out: "swd: SWD_WORKERS: \"many\" is no number\n"},
		{args: []string{"--vtep", "host"}, code: 2, out: "swd: --vtep: \"host\" is no address"},
		{args: []string{"--vtep", "224.0.0.1"}, code: 2, out: "--vtep: 224.0.0.1 is no address that a host may have"},
		{args: []string{"--mesh-listen", "192.0.2.1:x"}, code: 2, out: "--mesh-listen: \"192.0.2.1:x\" is no address"},
		{args: []string{"--mesh-listen", "0.0.0.0"}, code: 2, out: "--mesh-listen 0.0.0.0: which of this host's addresses"},
		{args: []string{"--mesh-key", "/nonexistent", "--socket", "SOCK", "--state-dir", "STATE"}, code: 1, out: "--mesh-key: open /nonexistent"},
		{args: []string{"--config", "/nonexistent", "--socket", "SOCK", "--state-dir", "STATE"}, code: 1, out: "error: swd: config: open /nonexistent"},
		{args: []string{"--metrics", "nonsense", "--socket", "SOCK", "--state-dir", "STATE"}, code: 1, out: "error: swd: metrics"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			dir := t.TempDir()
			for i, a := range tt.args {
				tt.args[i] = strings.NewReplacer("SOCK", dir+"/s", "STATE", dir+"/state").Replace(a)
			}
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var out bytes.Buffer
			if code := run(tt.args, &out, &out); code != tt.code || !strings.Contains(out.String(), tt.out) {
				t.Errorf("exit %d, want %d; output %q, want %q", code, tt.code, out.String(), tt.out)
			}
		})
	}
}

// TestEnvironment: every flag has its variable, and a flag that is given wins.
func TestEnvironment(t *testing.T) {
	var f flags
	s := pflag.NewFlagSet("swd", pflag.ContinueOnError)
	f.define(s)
	if err := s.Parse([]string{"--node", "flag"}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"SWD_NODE": "env", "SWD_STATE_DIR": "/s", "SWD_SOCKET_GROUP": "g", "SWD_WORKERS": "3", "SWD_MAX_MACS": "7",
		"SWD_CONFIG": "c", "SWD_SOCKET": "k", "SWD_LOG_LEVEL": "warn", "SWD_LOG_FORMAT": "json", "SWD_METRICS": "m",
		"SWD_VTEP": "v", "SWD_MESH_LISTEN": "l", "SWD_MESH_KEY": "y", "SWD_IO_URING": "off",
	}
	err := fromEnvironment(s, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	want := flags{
		config: "c", socket: "k", socketGroup: "g", stateDir: "/s", workers: 3, maxMACs: 7,
		logLevel: "warn", logFormat: "json", metrics: "m", node: "flag",
		vtep: "v", meshListen: "l", meshKey: "y", ioUring: ioUringOff,
	}
	if err != nil || f != want {
		t.Errorf("%+v %v", f, err)
	}
}

func TestLast(t *testing.T) {
	for _, tt := range []struct {
		cpus []int
		n    int
		want string
	}{{[]int{0, 1, 2, 3}, 2, "[2 3]"}, {[]int{4}, 3, "[4]"}, {[]int{0, 5}, 2, "[0 5]"}} {
		if got := fmt.Sprint(last(tt.cpus, tt.n)); got != tt.want {
			t.Errorf("%v of %v: %s", tt.n, tt.cpus, got)
		}
	}
}

// process is a swd that runs in a namespace of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
	client *http.Client
}

// newNS makes a namespace and returns its name.
func newNS(t *testing.T, name string) string {
	t.Helper()
	full := fmt.Sprintf("hdfix-%d-%s", os.Getpid(), name)
	if out, err := exec.Command("ip", "netns", "add", full).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add %s: %v: %s (root is needed)", full, err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", full).Run() })
	return full
}

// start runs swd in a namespace with a directory for socket and state.
func start(t *testing.T, ns, dir string, args ...string) *process {
	t.Helper()
	socket := filepath.Join(dir, "swd.sock")
	p := &process{t: t}
	args = append([]string{"netns", "exec", ns, os.Args[0], "--socket", socket, "--state-dir", filepath.Join(dir, "state"), "--node", "test"}, args...)
	p.cmd = exec.Command("ip", args...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	p.client = &http.Client{
		Timeout: patience,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}},
	}
	return p
}

// ready waits until swd says so.
func (p *process) ready() {
	p.t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil || line != "ready\n" {
		_ = p.cmd.Wait()
		p.t.Fatalf("%q, %v: %s", line, err, &p.stderr)
	}
}

// end waits for the process and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	_, _ = io.Copy(io.Discard, p.stdout)
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) request(method, path, body string) []byte {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://swd"+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		p.t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, b, err)
	}
	return b
}

// patience is how long a test waits for what takes moments, on a machine that is
// busy with something else for seconds.
const patience = 30 * time.Second

// allUp waits until all ports are up: the kernel gives an interface back by and by
// that a killed process has held.
func (p *process) allUp(want int) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var ports []api.Port
		if err := json.Unmarshal(p.request("GET", api.PathPorts, ""), &ports); err != nil {
			p.t.Fatal(err)
		}
		if len(ports) != want {
			p.t.Fatalf("%d ports, want %d", len(ports), want)
		}
		if !slices.ContainsFunc(ports, func(o api.Port) bool { return o.State != api.StateUp }) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not all are up: %+v", ports)
		}
	}
}

func ping(t *testing.T, ns, dst string) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "ping", "-n", "-c", "1", "-W", "20", dst).CombinedOutput()
	if err != nil {
		t.Errorf("%s: ping %s: %v\n%s", ns, dst, err, out)
	}
}

func ifindex(t *testing.T, ns string) string {
	t.Helper()
	b, err := exec.Command("ip", "netns", "exec", ns, "cat", "/sys/class/net/eth0/ifindex").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLife: a swd that serves, a second one that is refused, kill -9, the next
// that takes over, and a clean end.
func TestLife(t *testing.T) {
	host, a, b, dir := newNS(t, "host"), newNS(t, "a"), newNS(t, "b"), t.TempDir()
	p := start(t, host, dir, "--log-format", "json")
	p.ready()
	p.request("POST", api.PathNetworks, `{"name":"net"}`)
	p.request("POST", api.PathPorts, `{"name":"a","network":"net","netns":"/run/netns/`+a+`","ips":["198.18.0.1/24"]}`)
	p.request("POST", api.PathPorts, `{"name":"b","network":"net","kind":"veth","netns":"/run/netns/`+b+`","ips":["198.18.0.2/24"]}`)
	ping(t, a, "198.18.0.2")

	second := start(t, host, dir)
	if code := second.end(); code != 1 || !strings.Contains(second.stderr.String(), "error: swd: socket") ||
		!strings.Contains(second.stderr.String(), "another swd is running (process") || !strings.Contains(second.stderr.String(), "hint: ") {
		t.Errorf("second swd: exit %d, %s", code, &second.stderr)
	}
	p.allUp(2)

	was := ifindex(t, a) + ifindex(t, b)
	p.signal(syscall.SIGKILL)
	p.end()
	p = start(t, host, dir)
	p.ready()
	p.allUp(2)
	if now := ifindex(t, a) + ifindex(t, b); now != was {
		t.Errorf("interfaces %s, were %s", now, was)
	}
	ping(t, a, "198.18.0.2")

	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("exit %d: %s", code, &p.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "swd.sock")); err == nil {
		t.Error("the socket stays")
	}
}

// TestNotify: systemd is told of the beginning and the end.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	p := start(t, newNS(t, "n"), dir)
	p.ready()
	p.signal(syscall.SIGINT)
	if code := p.end(); code != 0 {
		t.Errorf("exit %d: %s", code, &p.stderr)
	}
	b := make([]byte, 100)
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q %v, want %s", b[:n], err, want)
		}
	}
}
