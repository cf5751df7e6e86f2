package baseline

import (
	"context"
	"fmt"
	"path/filepath"

	"heddle/bench/lab"
)

// NewOVS joins two containers by Open vSwitch's userspace datapath with
// userspace-tso and TAP ports, which it is fastest with: over AF_PACKET it
// reaches a third of that. The error is ErrNotInstalled where it is missing.
//
//	A: eth0, TAP ── port-a ┐
//	                       ├ ovs-vswitchd, bridge br0, datapath_type=netdev
//	B: eth0, TAP ── port-b ┘
func NewOVS(ctx context.Context, l *lab.Lab) (*Path, error) {
	if err := ovsInstalled(); err != nil {
		return nil, err
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
	o, err := startOVS(ctx, host, filepath.Join(l.Dir(), "ovs"), true)
	if err != nil {
		return nil, fmt.Errorf("starting Open vSwitch: %w", err)
	}
	if err := o.join(ctx, a, b); err != nil {
		return nil, fmt.Errorf("setting up Open vSwitch: %w", err)
	}
	version, err := o.version(ctx)
	if err != nil {
		return nil, err
	}
	return &Path{
		Name:  "ovs",
		About: version + ", netdev datapath, userspace-tso, TAP",
		A:     a, B: b,
		Server: AddrB,
		PIDs:   []int{o.vswitchd.PID()},
		Count:  func(ctx context.Context) (Counts, error) { return o.count(ctx, a, b) },
	}, nil
}

// join makes the bridge with a TAP in each container.
func (o *ovs) join(ctx context.Context, a, b *lab.NetNS) error {
	err := o.vsctl(ctx,
		"add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
		"--", "add-port", "br0", portA, "--", "set", "Interface", portA, "type=tap", "ofport_request=1",
		"--", "add-port", "br0", portB, "--", "set", "Interface", portB, "type=tap", "ofport_request=2")
	if err != nil {
		return err
	}
	for i, port := range []struct {
		name string
		to   *lab.NetNS
	}{{portA, a}, {portB, b}} {
		if err := o.watch(ctx, "br0", uint64(i+1), fmt.Sprintf("in_port=%d", i+1)); err != nil {
			return err
		}
		if err := o.host.MoveLink(port.name, port.to, Interface); err != nil {
			return err
		}
	}
	return address(a, b)
}

// count reads what came in from the counters of the two rules, and what went
// out from those of the TAP devices, which only the daemon writes to: it has no
// counters of its own for devices that were moved into another namespace.
func (o *ovs) count(ctx context.Context, a, b *lab.NetNS) (Counts, error) {
	if err := o.settle(ctx); err != nil {
		return Counts{}, err
	}
	from, err := o.watched(ctx, "br0", 1, 2)
	if err != nil {
		return Counts{}, err
	}
	toA, err := a.Stats(Interface)
	if err != nil {
		return Counts{}, err
	}
	toB, err := b.Stats(Interface)
	if err != nil {
		return Counts{}, err
	}
	return Counts{
		FromA: from[0], ToA: Count{toA.RxFrames, toA.RxBytes},
		FromB: from[1], ToB: Count{toB.RxFrames, toB.RxBytes},
	}, nil
}
