package baseline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"heddle/bench/lab"
)

// Cookies of the rules that count; the first two are on br0 and port numbers
// too.
const (
	ovsContainer = 1 // From the container.
	ovsDecap     = 2 // Out of the tunnel.
	ovsEncap     = 3 // On br-phy: into the tunnel, with the headers around it.
)

// NewOVSVXLAN joins two containers on two hosts by Open vSwitch's userspace
// datapath. Its VXLAN needs the local address on a bridge of the same datapath,
// which has the underlay as a port.
//
// Userspace-tso is off: the datapath drops frames that are still to be
// segmented, or to get a checksum, where they go into a tunnel.
//
//	A: eth0, TAP ── port ┬ br0 ┬ vx0 ── br-phy 192.0.2.1 ┬ u0 ── veth ── u0, the same at B's host
func NewOVSVXLAN(ctx context.Context, l *lab.Lab) (*Path, error) {
	if err := ovsInstalled(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ovsBound, fmt.Errorf("not done in %v", ovsBound))
	defer cancel()
	h, err := NewHosts(l, "ovs-vxlan")
	if err != nil {
		return nil, err
	}
	a, err := newOVSHost(ctx, h.HostA, h.A, filepath.Join(l.Dir(), "ovs-vxlan-a"), VTEPA, VTEPB)
	if err != nil {
		return nil, fmt.Errorf("setting up Open vSwitch on A's host: %w", err)
	}
	b, err := newOVSHost(ctx, h.HostB, h.B, filepath.Join(l.Dir(), "ovs-vxlan-b"), VTEPB, VTEPA)
	if err != nil {
		return nil, fmt.Errorf("setting up Open vSwitch on B's host: %w", err)
	}
	if err := h.equip(); err != nil {
		return nil, err
	}
	// The first packet to a VTEP whose MAC isn't known yet is lost: it only
	// makes the datapath ask.
	if _, err := h.A.Run(ctx, "ping", "-c3", "-i0.2", "-W2", AddrB); err != nil {
		return nil, err
	}
	version, err := a.version(ctx)
	if err != nil {
		return nil, err
	}
	return &Path{
		Name:  "ovs-vxlan",
		About: version + ", netdev datapath and its VXLAN, TAP",
		A:     h.A, B: h.B,
		Server: AddrB,
		Hosts:  true,
		PIDs:   []int{a.vswitchd.PID(), b.vswitchd.PID()},
		Count: func(ctx context.Context) (Counts, error) {
			endA, errA := a.end(ctx)
			endB, errB := b.end(ctx)
			return TunnelCounts(endA, endB), errors.Join(errA, errB)
		},
	}, nil
}

// ovsHost is an Open vSwitch with one container and one tunnel.
type ovsHost struct {
	*ovs
	container *lab.NetNS
}

func newOVSHost(ctx context.Context, host, container *lab.NetNS, dir, local, remote string) (ovsHost, error) {
	o, err := startOVS(ctx, host, dir, false)
	if err != nil {
		return ovsHost{}, err
	}
	err = o.vsctl(ctx,
		"add-br", "br-phy", "--", "set", "Bridge", "br-phy", "datapath_type=netdev",
		"--", "add-port", "br-phy", Underlay,
		"--", "add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
		"--", "add-port", "br0", portA, "--", "set", "Interface", portA, "type=tap", "ofport_request="+strconv.Itoa(ovsContainer),
		"--", "add-port", "br0", vxlanDevice, "--", "set", "Interface", vxlanDevice, "type=vxlan", "ofport_request="+strconv.Itoa(ovsDecap),
		"options:local_ip="+local, "options:remote_ip="+remote, "options:key="+strconv.Itoa(VNI), "options:csum=true")
	if err != nil {
		return ovsHost{}, err
	}
	if err := host.AddAddress("br-phy", local+VTEPBits); err != nil {
		return ovsHost{}, err
	}
	if err := host.SetUp("br-phy", true); err != nil {
		return ovsHost{}, err
	}
	for _, rule := range []struct {
		bridge string
		cookie uint64
		match  string
	}{
		{"br0", ovsContainer, fmt.Sprintf("in_port=%d", ovsContainer)},
		{"br0", ovsDecap, fmt.Sprintf("in_port=%d", ovsDecap)},
		{"br-phy", ovsEncap, fmt.Sprintf("priority=1,udp,in_port=LOCAL,tp_dst=%d", VTEPPort)},
	} {
		if err := o.watch(ctx, rule.bridge, rule.cookie, rule.match); err != nil {
			return ovsHost{}, err
		}
	}
	return ovsHost{o, container}, host.MoveLink(portA, container, Interface)
}

// end reads the counters of one host: those of its rules, and what the
// container's TAP was given. The tunnel's port has counters too, but counts
// twice what it sends (Open vSwitch 3.1).
func (o ovsHost) end(ctx context.Context) (TunnelEnd, error) {
	if err := o.settle(ctx); err != nil {
		return TunnelEnd{}, err
	}
	from, err := o.watched(ctx, "br0", ovsContainer, ovsDecap)
	if err != nil {
		return TunnelEnd{}, err
	}
	encap, err := o.watched(ctx, "br-phy", ovsEncap)
	if err != nil {
		return TunnelEnd{}, err
	}
	to, err := o.container.Stats(Interface)
	if err != nil {
		return TunnelEnd{}, err
	}
	return TunnelEnd{
		From: from[0], To: Count{to.RxFrames, to.RxBytes},
		Encap: Count{encap[0].Frames, encap[0].Bytes - outerLen*encap[0].Frames},
		Decap: from[1],
	}, nil
}
