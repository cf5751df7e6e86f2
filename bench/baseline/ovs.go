package baseline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"heddle/bench/lab"
)

const (
	ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"
	ovsBound  = 30 * time.Second // For the two daemons to start and the bridge to be made.
)

// NewOVS joins two containers by Open vSwitch's userspace datapath with
// userspace-tso and TAP ports, which it is fastest with: over AF_PACKET it
// reaches a third of that. Its two daemons run in a namespace and with
// directories of their own; a system's Open vSwitch is not touched. The error
// is ErrNotInstalled where it is missing.
//
//	A: eth0, TAP ── port-a ┐
//	                       ├ ovs-vswitchd, bridge br0, datapath_type=netdev
//	B: eth0, TAP ── port-b ┘
func NewOVS(ctx context.Context, l *lab.Lab) (*Path, error) {
	for _, program := range []string{"ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s: %w (Debian package openvswitch-switch)", program, ErrNotInstalled)
		}
	}
	if _, err := os.Stat(ovsSchema); err != nil {
		return nil, fmt.Errorf("%s: %w (Debian package openvswitch-switch)", ovsSchema, ErrNotInstalled)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ovsBound, fmt.Errorf("not done in %v", ovsBound))
	defer cancel()
	a, b, err := NewContainers(l, "ovs")
	if err != nil {
		return nil, err
	}
	host, err := l.NewNetNS("ovs")
	if err != nil {
		return nil, err
	}
	o := &ovs{host: host, a: a, b: b, dir: filepath.Join(l.Dir(), "ovs")}
	if err := o.start(ctx); err != nil {
		return nil, fmt.Errorf("starting Open vSwitch: %w", err)
	}
	version, err := host.Run(ctx, "ovs-vswitchd", "--version")
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(version.Stdout, "\n")
	return &Path{
		Name:  "ovs",
		About: line + ", netdev datapath, userspace-tso, TAP",
		A:     a, B: b,
		Server: AddrB,
		PIDs:   []int{o.vswitchd.PID()},
		Count:  o.count,
	}, nil
}

// ovs is a running Open vSwitch.
type ovs struct {
	host, a, b *lab.NetNS
	dir        string
	vswitchd   *lab.Process
}

func (o *ovs) database() string { return "unix:" + filepath.Join(o.dir, "db.sock") }

// own returns the command with Open vSwitch's directories all set to ours.
func (o *ovs) own(words ...string) []string {
	env := []string{"env"}
	for _, name := range []string{"OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"} {
		env = append(env, name+"="+o.dir)
	}
	return append(env, words...)
}

func (o *ovs) start(ctx context.Context) error {
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return err
	}
	db := filepath.Join(o.dir, "conf.db")
	if _, err := o.host.Run(ctx, o.own("ovsdb-tool", "create", db, ovsSchema)...); err != nil {
		return err
	}
	if _, err := o.host.Start(o.own("ovsdb-server", db, "--remote=p"+o.database())...); err != nil {
		return err
	}
	if err := o.vsctl(ctx, "--retry", "--no-wait", "init"); err != nil {
		return err
	}
	// userspace-tso is read once, when the datapath starts.
	err := o.vsctl(ctx, "--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
	if err != nil {
		return err
	}
	if o.vswitchd, err = o.host.Start(o.own("ovs-vswitchd", o.database(), "--disable-system")...); err != nil {
		return err
	}
	err = o.vsctl(ctx,
		"add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
		"--", "add-port", "br0", portA, "--", "set", "Interface", portA, "type=tap", "ofport_request=1",
		"--", "add-port", "br0", portB, "--", "set", "Interface", portB, "type=tap", "ofport_request=2")
	if err != nil {
		return err
	}
	for i, port := range []struct {
		name string
		to   *lab.NetNS
	}{{portA, o.a}, {portB, o.b}} {
		// A rule for each port, only to have its counters: NORMAL is what a
		// learning switch does.
		rule := fmt.Sprintf("cookie=%d,in_port=%d,actions=NORMAL", i+1, i+1)
		if err := o.ofctl(ctx, "add-flow", rule); err != nil {
			return err
		}
		if err := o.host.MoveLink(port.name, port.to, Interface); err != nil {
			return err
		}
	}
	return address(o.a, o.b)
}

func (o *ovs) vsctl(ctx context.Context, args ...string) error {
	words := append([]string{"ovs-vsctl", "--timeout=20", "--db=" + o.database()}, args...)
	_, err := o.host.Run(ctx, o.own(words...)...)
	return err
}

func (o *ovs) ofctl(ctx context.Context, command string, args ...string) error {
	_, err := o.host.Run(ctx, o.own(o.ofctlWords(command, args...)...)...)
	return err
}

func (o *ovs) ofctlWords(command string, args ...string) []string {
	bridge := "unix:" + filepath.Join(o.dir, "br0.mgmt")
	return append([]string{"ovs-ofctl", "--timeout=20", command, bridge}, args...)
}

// count reads what came in from the counters of the two rules, once all
// cached flows have reported to them, and what went out from those of the TAP
// devices, which only the daemon writes to: it has no counters of its own for
// devices that were moved into another namespace.
func (o *ovs) count(ctx context.Context) (Counts, error) {
	control := filepath.Join(o.dir, fmt.Sprintf("ovs-vswitchd.%d.ctl", o.vswitchd.PID()))
	if _, err := o.host.Run(ctx, o.own("ovs-appctl", "--target="+control, "revalidator/wait")...); err != nil {
		return Counts{}, err
	}
	out, err := o.host.Run(ctx, o.own(o.ofctlWords("dump-flows")...)...)
	if err != nil {
		return Counts{}, err
	}
	fromA, err := ruleCount(out.Stdout, 1)
	if err != nil {
		return Counts{}, err
	}
	fromB, err := ruleCount(out.Stdout, 2)
	if err != nil {
		return Counts{}, err
	}
	toA, err := o.a.Stats(Interface)
	if err != nil {
		return Counts{}, err
	}
	toB, err := o.b.Stats(Interface)
	if err != nil {
		return Counts{}, err
	}
	return Counts{
		FromA: fromA, ToA: Count{toA.RxFrames, toA.RxBytes},
		FromB: fromB, ToB: Count{toB.RxFrames, toB.RxBytes},
	}, nil
}

var rulePattern = regexp.MustCompile(`cookie=0x([0-9a-f]+),.* n_packets=(\d+), n_bytes=(\d+),`)

// ruleCount finds a rule's counters by its cookie in what ovs-ofctl dump-flows
// prints.
func ruleCount(dump string, cookie uint64) (Count, error) {
	for line := range strings.Lines(dump) {
		m := rulePattern.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil || c != cookie {
			continue
		}
		frames, errFrames := strconv.ParseUint(m[2], 10, 64)
		bytes, errBytes := strconv.ParseUint(m[3], 10, 64)
		return Count{frames, bytes}, errors.Join(errFrames, errBytes)
	}
	return Count{}, fmt.Errorf("no rule with cookie %d in ovs-ofctl dump-flows:\n%s", cookie, dump)
}
