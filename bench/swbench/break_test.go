package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/bench/load"
)

func indexOf(ifname string) (int, error) {
	i, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}

// refused measures a row on the broken path, which has to give no figure and say
// so.
func (b *broken) refused(what, row, says string) {
	b.Helper()
	m, err := b.b.verified(b.Context(), rowNamed(b, row), b.p)
	if err == nil || !strings.Contains(err.Error(), says) {
		b.Errorf("%s: %s gave %v, %v; want %q", what, row, m.values, err, says)
	}
}

// What a path damages, gives out twice or loses is no figure, also where
// iperf3 and sockperf notice nothing.
func TestManglingPathIsRefused(t *testing.T) {
	b := newBroken(t)
	var portB int
	b.inHost(func() (err error) { portB, err = indexOf("port-b"); return err })
	const small, large = 60, 1 << 17
	for _, c := range []struct {
		what      string
		m         mangler
		row, says string
	}{
		// 7,000 bytes into a super-frame are those of some segment behind the first.
		{"a bit of each super-frame", ofLength(8000, large, damage(7000)...), "tcp-1", "sent was"},
		{"a bit of each small frame", ofLength(small, small, damage(58)...), "frames-60", "frames damaged"},
		{"each small frame twice", ofLength(small, small, twice(portB)...), "frames-60", "frames duplicated"},
		{"each super-frame twice", ofLength(8000, large, twice(portB)...), "tcp-1", "came twice"},
	} {
		off := b.mangle(c.m)
		b.refused(c.what, c.row, c.says)
		off()
	}

	off := b.mangle(ofLength(small, small, halfLost()...))
	defer off()
	sent, received, err := b.b.frames(b.Context(), b.p, frameRun{size: small, seconds: 1, rate: 20_000})
	b.NoError(err)
	if m, err := frameFigure(sent, received, small); err != nil || m.values[0] > 0.6*float64(sent.Frames)/sent.Seconds/1e6 || m.values[0] == 0 {
		b.Errorf("of %+v half is lost, but %v, %v: %+v", sent, m.values, err, received)
	}
}

// A second veth between the containers, which their routes prefer, is seen as
// such; and if it weren't, by counters that miss what went there.
func TestOtherWayIsRefused(t *testing.T) {
	b := newBroken(t)
	b.Veth(b.p.A, "beside", b.p.B, "beside")
	b.Run(b.p.A, "ip", "route", "add", baseline.AddrB+"/32", "dev", "beside")
	b.Run(b.p.B, "ip", "route", "add", baseline.AddrA+"/32", "dev", "beside")
	b.refused("another way", "tcp-1", "another way out beside the path: interface beside")
	if _, err := b.b.accounted(b.Context(), rowNamed(t, "tcp-1"), b.p); err == nil || !strings.Contains(err.Error(), "the traffic went another way") {
		t.Errorf("the counters of the bridge passed for it: %v", err)
	}
}

// A path that is cut gives no figure, and doesn't hold the run up.
func TestCutPathIsRefused(t *testing.T) {
	b := newBroken(t)
	b.inHost(func() error { return exec.Command("ip", "link", "set", "port-b", "nomaster").Run() })
	began := time.Now()
	b.refused("cut", "frames-60", "no frames delivered")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// An idle row is of a path where nothing happens, and shows what a daemon that
// is busy all the same takes.
func TestIdleRow(t *testing.T) {
	b := newBroken(t)
	// However many others want the cores.
	spin, err := b.p.A.Start("nice", "-n", "-20", "sh", "-c", "while :; do :; done")
	b.NoError(err)
	b.p.PIDs = []int{spin.PID()}
	row := rowNamed(t, "idle")
	m, err := b.b.verified(b.Context(), row, b.p)
	b.NoError(err)
	if m.values[0] < 2 {
		t.Errorf("a process that spins takes %v%%", m.values[0])
	}
	r := &Result{Options: options{Runs: 1, Rows: []string{"idle"}, Contenders: []string{"swd-tap"}}}
	r.add(0, row, "swd-tap", m, nil, nil)
	r.finish()
	if v := r.Targets; len(v) != 2 || v[0].Figure != idleCPU || v[0].Met {
		t.Errorf("a daemon that spins is judged %+v", v)
	}
	b.NoError(spin.Stop())
	b.p.PIDs = nil
	// Some of these pings in a second are more than may be beside a measurement.
	flood, err := b.p.A.Start("ping", "-f", "-q", "-s", "8000", baseline.AddrB)
	b.NoError(err)
	quiet, err := b.p.Count(b.Context())
	b.NoError(err)
	b.Eventually(20*time.Second, "the flood begins", func() error {
		now, err := b.p.Count(b.Context())
		if err == nil && now.ToA.Frames-quiet.ToA.Frames < 100 {
			err = fmt.Errorf("%+v", now)
		}
		return err
	})
	// In a second that the machine stands still for nothing comes.
	b.Eventually(20*time.Second, "an idle row with traffic is refused", func() error {
		m, err := b.b.verified(b.Context(), row, b.p)
		if err == nil {
			return fmt.Errorf("it gave %v", m.values)
		}
		if !strings.Contains(err.Error(), "there was other traffic") {
			return err
		}
		return nil
	})
	b.NoError(flood.Signal(os.Interrupt))
}

// A swd that dies while it is measured, and one that isn't the one to measure.
func TestDeadOrWrongDaemonIsRefused(t *testing.T) {
	l := lab.New(t)
	bin, err := lab.Build()
	l.NoError(err)
	b := newBench(l)
	p, err := b.newPath(l.Context(), "swd-tap")
	l.NoError(err)
	l.Run(p.A, "ping", "-c1", "-W10", p.Server)
	if b.result.Swd == nil || b.result.Swd.Version != "unknown" || b.result.Swd.Path != bin.Swd {
		t.Fatalf("measuring %+v, built was %s", b.result.Swd, bin.Swd)
	}

	began := *b.result.Swd
	b.result.Swd.SHA256 = strings.Repeat("0", 64)
	if err := b.genuine(l.Context(), p); err == nil || !strings.Contains(err.Error(), "not the swd that this run began with") {
		t.Errorf("another program than before: %v", err)
	}
	b.result.Swd = &began
	for _, c := range []struct {
		version string
		apart   bool
		says    string
	}{
		{"unknown", false, ""}, {"v9", true, ""}, {"v9", false, "run `make build`"},
	} {
		b.apart = c.apart
		err := b.expected(Program{Path: "bin/swd", Version: c.version})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("version %s, apart %v: %v", c.version, c.apart, err)
		}
	}
	if got, err := identify(l.Context(), bin.Swctl); err == nil {
		t.Errorf("swctl passed as %+v", got)
	}
	if _, err := identify(l.Context(), filepath.Join(l.Dir(), "none")); err == nil {
		t.Error("a program that isn't there passed")
	}

	start := time.Now()
	row := rowNamed(t, "frames-60")
	measure := row.Measure
	row.Measure = func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		killed := make(chan error, 1)
		time.AfterFunc(500*time.Millisecond, func() { killed <- unix.Kill(p.PIDs[0], unix.SIGKILL) })
		m, err := measure(ctx, b, p)
		l.NoError(<-killed)
		l.Eventually(20*time.Second, "swd is dead", func() error {
			if _, err := lives(p.PIDs); err == nil {
				return errors.New("it lives")
			}
			return nil
		})
		return m, err
	}
	_, err = b.verified(l.Context(), row, p)
	if err == nil || !strings.Contains(err.Error(), "swd-tap ended while it was measured") {
		t.Errorf("killed in mid-run: %v", err)
	}
	if _, err = b.verified(l.Context(), rowNamed(t, "frames-60"), p); err == nil {
		t.Error("a dead swd was measured")
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// Ends of a test that is swbench itself.
const (
	asItself = "SWBENCH_TEST_AS_ITSELF"
	lieBytes = 1 << 30
)

// lie plays an iperf3 that carries nothing and says that it did.
func lie() {
	if len(os.Args) > 1 && os.Args[1] == "-s" {
		l, err := net.Listen("tcp", ":"+os.Args[len(os.Args)-1])
		if err == nil {
			_, err = l.Accept() // Nobody comes.
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf(`{"end": {"sum_sent": {"bytes": %[1]d}, "sum_received": {"bytes": %[1]d, "bits_per_second": 1e10}}}`, lieBytes)
}

// standIns returns a PATH on which this test plays the programs of those names.
func standIns(t testing.TB, names ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir + ":" + os.Getenv("PATH")
}

// netperfSays is what the stand-in of netperf prints: 1,000 transactions.
const netperfSays = "THROUGHPUT=1000\nTHROUGHPUT_UNITS=Trans/s\nELAPSED_TIME=1\nREMOTE_RECV_CALLS=1000\nREMOTE_BYTES_RECVD=1000\n"

// What netperf did is held against the path with the connections that are
// checked beside it.
func TestNetperfConnections(t *testing.T) {
	t.Setenv("PATH", standIns(t, "netperf", "netserver"))
	b := newBroken(t)
	b.b.netperf = true
	m, err := rowNamed(t, "nat-crr").Measure(b.Context(), b.b, b.p)
	b.NoError(err)
	if m.values[0] != 1 || m.least.Conns != 1000+contentConns || m.most.Conns != 1000+contentConns {
		t.Errorf("%+v", m)
	}
}

// A path that holds all frames back and gives them out at once is no fast one.
func TestBurstIsNoRate(t *testing.T) {
	b := newBroken(t)
	shape := func(rate, burst string) {
		var out []byte
		var err error
		b.inHost(func() error {
			out, err = exec.Command("tc", "qdisc", "replace", "dev", "port-b", "root", "tbf", "rate", rate, "burst", burst, "limit", "60000").CombinedOutput()
			return nil
		})
		if err != nil {
			b.Fatalf("tc: %v: %s", err, out)
		}
	}
	const tries = 10 // On a machine with other things to do it may take longer to come out than to be sent.
	for range tries {
		shape("8bit", "100")
		sent, received := b.released(func() { shape("100gbit", "100mb") })
		m, err := frameFigure(sent, received, load.MinSize)
		b.NoError(err)
		if m.values[0] > float64(received.Delivered)/sent.Seconds/1e6 {
			t.Errorf("%d frames that were sent in %.2f s and came in %.3f are %v Mpps", received.Delivered, sent.Seconds, received.Seconds, m.values)
		}
		if received.Seconds < sent.Seconds/2 {
			return
		}
	}
	t.Error("the frames never came at once")
}

// released sends frames for a second and takes them in after release.
func (b *broken) released(release func()) (sent load.Sent, received load.Received) {
	b.Helper()
	// The bucket's tokens let a frame or two pass: of these the second waits, and
	// whatever comes behind it.
	_, _ = b.p.A.Run(b.Context(), "ping", "-c2", "-i0.05", "-W0.2", b.p.Server)
	frames := load.DefaultFrames()
	var receiver *load.Receiver
	b.NoError(b.p.B.Do(func() (err error) {
		receiver, err = load.OpenReceiver(baseline.Interface, frames)
		return err
	}))
	defer func() { b.NoError(receiver.Close()) }()
	b.NoError(b.p.A.Do(func() (err error) {
		sent, err = load.Send(b.Context(), baseline.Interface, frames, time.Second, 0)
		return err
	}))
	release()
	// A queue whose rate has changed goes on with the next frame, which is lost if it
	// was full.
	b.Run(b.p.A, "ping", "-c5", "-i0.05", "-W10", b.p.Server)
	received, err := receiver.Run(b.Context(), time.Second)
	b.NoError(err)
	return sent, received
}

// A figure that is made up costs swbench its exit code, and the reason is told.
func TestExitCode(t *testing.T) {
	path := standIns(t, "iperf3")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, self, "--rows", "tcp-1", "--contenders", "bridge", "--quick", "--results", "")
	c.Env = append(os.Environ(), asItself+"=1", "PATH="+path)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	for _, want := range []string{"1 measurements gave no figure", "the path counted ", "the traffic went another way"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s%s", want, stdout.String(), stderr.String())
		}
	}
	if !strings.Contains(stderr.String(), "not everything could be measured") {
		t.Errorf("stderr: %s", stderr.String())
	}
}

// A run that can't take its namespaces away says so.
func TestLeakIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := run(ctx, options{Rows: []string{"tcp-1"}, Contenders: []string{"bridge"}, Runs: 1, Seconds: 1}, onProgress(func(line string) {
		if !strings.HasPrefix(line, "[1/1]") {
			return
		}
		// The name goes, and so lab.Close can't remove it.
		names, err := filepath.Glob(fmt.Sprintf("/run/netns/%s-%d-*-bridge-b", lab.Prefix, os.Getpid()))
		if err != nil || len(names) != 1 {
			t.Errorf("the namespaces are %v, %v", names, err)
		}
		for _, name := range names {
			if err := netns.DeleteNamed(filepath.Base(name)); err != nil {
				t.Error(err)
			}
		}
		cancel()
	}))
	if err == nil || !strings.Contains(err.Error(), "bridge-b") {
		t.Errorf("a namespace that was not removed: %v", err)
	}
}

// onProgress is called with each line that a run shows of its progress.
type onProgress func(line string)

func (f onProgress) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}
