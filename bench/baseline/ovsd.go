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

// ovsBound is how long the daemons may take to start and make their bridges.
const ovsBound = 90 * time.Second

// ovsSchema is where the database's schema is: beside the programs, which need
// not be the system's.
func ovsSchema() (string, error) {
	tool, err := exec.LookPath("ovsdb-tool")
	if err != nil {
		return "", fmt.Errorf("ovsdb-tool: %w (Debian package openvswitch-switch)", ErrNotInstalled)
	}
	schema := filepath.Join(filepath.Dir(tool), "../share/openvswitch/vswitch.ovsschema")
	if _, err := os.Stat(schema); err != nil {
		return "", fmt.Errorf("%s: %w (Debian package openvswitch-switch)", schema, ErrNotInstalled)
	}
	return schema, nil
}

// ovsInstalled returns ErrNotInstalled where Open vSwitch is missing.
func ovsInstalled() error {
	for _, program := range []string{"ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s: %w (Debian package openvswitch-switch)", program, ErrNotInstalled)
		}
	}
	_, err := ovsSchema()
	return err
}

// ovs is a running Open vSwitch: its two daemons, in a namespace and with
// directories of their own. A system's Open vSwitch is not touched.
type ovs struct {
	host     *lab.NetNS
	dir      string
	vswitchd *lab.Process
}

// startOVS starts an Open vSwitch without bridges, with or without
// userspace-tso, in a directory that it makes.
func startOVS(ctx context.Context, host *lab.NetNS, dir string, tso bool) (*ovs, error) {
	o := &ovs{host: host, dir: dir}
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return nil, err
	}
	schema, err := ovsSchema()
	if err != nil {
		return nil, err
	}
	db := filepath.Join(o.dir, "conf.db")
	if _, err := o.host.Run(ctx, o.own("ovsdb-tool", "create", db, schema)...); err != nil {
		return nil, err
	}
	if _, err := o.host.Start(o.own("ovsdb-server", db, "--remote=p"+o.database())...); err != nil {
		return nil, err
	}
	if err := o.vsctl(ctx, "--retry", "--no-wait", "init"); err != nil {
		return nil, err
	}
	// userspace-tso is read once, when the datapath starts.
	err = o.vsctl(ctx, "--no-wait", "set", "Open_vSwitch", ".", fmt.Sprintf("other_config:userspace-tso-enable=%t", tso))
	if err != nil {
		return nil, err
	}
	o.vswitchd, err = o.host.Start(o.own("ovs-vswitchd", o.database(), "--disable-system")...)
	return o, err
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

func (o *ovs) vsctl(ctx context.Context, args ...string) error {
	words := append([]string{"ovs-vsctl", "--timeout=60", "--db=" + o.database()}, args...)
	_, err := o.host.Run(ctx, o.own(words...)...)
	return err
}

// ofctl runs a command of ovs-ofctl on a bridge.
func (o *ovs) ofctl(ctx context.Context, bridge, command string, args ...string) (lab.Output, error) {
	at := "unix:" + filepath.Join(o.dir, bridge+".mgmt")
	words := append([]string{"ovs-ofctl", "--timeout=60", command, at}, args...)
	return o.host.Run(ctx, o.own(words...)...)
}

// version is what the daemon says it is.
func (o *ovs) version(ctx context.Context) (string, error) {
	out, err := o.host.Run(ctx, "ovs-vswitchd", "--version")
	line, _, _ := strings.Cut(out.Stdout, "\n")
	return line, err
}

// watch puts a rule on a bridge for what matches, only to have its counters,
// which its cookie is for: NORMAL is what a learning switch does.
func (o *ovs) watch(ctx context.Context, bridge string, cookie uint64, match string) error {
	_, err := o.ofctl(ctx, bridge, "add-flow", fmt.Sprintf("cookie=%d,%s,actions=NORMAL", cookie, match))
	return err
}

// settle waits until all cached flows have reported to the counters of their
// rules.
func (o *ovs) settle(ctx context.Context) error {
	control := filepath.Join(o.dir, fmt.Sprintf("ovs-vswitchd.%d.ctl", o.vswitchd.PID()))
	_, err := o.host.Run(ctx, o.own("ovs-appctl", "--target="+control, "revalidator/wait")...)
	return err
}

// watched reads the counters of rules of a bridge, once settled, by their
// cookies.
func (o *ovs) watched(ctx context.Context, bridge string, cookies ...uint64) ([]Count, error) {
	out, err := o.ofctl(ctx, bridge, "dump-flows")
	if err != nil {
		return nil, err
	}
	counts := make([]Count, len(cookies))
	for i, cookie := range cookies {
		if counts[i], err = ruleCount(out.Stdout, cookie); err != nil {
			return nil, err
		}
	}
	return counts, nil
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
