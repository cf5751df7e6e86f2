package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/ctl/api"
	"heddle/ctl/config"
)

// The contenders that translate by swd, by the mode of their uplink.
const (
	swdOwn    = "swd-own"
	swdShared = "swd-shared"
)

const (
	// ownAddress is the uplink's where it has one of its own.
	ownAddress = "192.0.2.10"
	// sharedPorts is the uplink's range where it shares the host's address. The
	// host's own connections have to keep out of it. Its default is too small
	// for a measurement's connections, whose ports rest after they are closed.
	sharedPorts, hostPorts = "16000-65535", "1024 15999"
	// tableRoom is --max-conns: a million and those that are then measured.
	tableRoom = 1_100_000
	// uplinkBound is how long an uplink may take to be up.
	uplinkBound = 10 * time.Second
)

// newSwdNAT joins a container and the outside by a swd of its own: TAP port,
// gateway, uplink.
//
//	A: eth0 ── tap ── port a ── network, gateway .254 ── uplink wan ── wan0 ── veth ── eth0 :B
func newSwdNAT(ctx context.Context, l *lab.Lab, bin lab.Binaries, name string, args []string) (*baseline.Path, error) {
	a, host, b, err := baseline.NewOutside(ctx, l, name)
	if err != nil {
		return nil, err
	}
	uplink := []string{"uplink", "add", "wan", "--interface", baseline.Uplink}
	external, about := baseline.AddrHost, "swd, TAP port, gateway, shared uplink, its ports "+sharedPorts
	if name == swdOwn {
		external, about = ownAddress, "swd, TAP port, gateway, own uplink"
		uplink = append(uplink, "--mode", config.ModeOwn, "--address", ownAddress+baseline.OutsideBits, "--next-hop", baseline.AddrOutside)
	} else {
		uplink = append(uplink, "--mode", config.ModeShared, "--ports", sharedPorts)
		if err := host.Sysctl("net/ipv4/ip_local_port_range", hostPorts); err != nil {
			return nil, err
		}
	}
	s, err := l.StartSwd(ctx, host, bin, append([]string{"--max-conns", strconv.Itoa(tableRoom)}, args...)...)
	if err != nil {
		return nil, err
	}
	for _, words := range [][]string{
		{"network", "add", benchNetwork, "--subnet", baseline.Subnet, "--gateway", baseline.Gateway},
		{"port", "add", "a", "--network", benchNetwork, "--netns", a.Path(), "--kind", config.KindTAP,
			"--ifname", baseline.Interface, "--ip", baseline.CIDRA, "--default-route"},
		uplink,
		{"nat", "add", "masquerade", "--network", benchNetwork, "--uplink", "wan"},
		{"nat", "add", "publish", "--uplink", "wan", "--listen", fmt.Sprintf("%d/tcp", baseline.PublishedPort),
			"--to", fmt.Sprintf("a:%d", baseline.PublishedPort)},
	} {
		if _, err := s.Control(ctx, words...); err != nil {
			return nil, err
		}
	}
	n := &swdNAT{s, a}
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	p := &baseline.Path{
		Name:  name,
		About: about,
		A:     a, B: b,
		Server:   baseline.AddrOutside,
		External: external,
		PIDs:     []int{s.Process().PID()},
		Count:    n.count,
	}
	p.NAT = &baseline.NAT{
		MaxConns: tableRoom,
		Conns:    n.conns,
		Flush: func(ctx context.Context) error {
			_, err := s.Control(ctx, "conn", "flush")
			return err
		},
		Renew: func(ctx context.Context) error {
			err := n.restart(ctx)
			p.PIDs = []int{s.Process().PID()}
			return err
		},
		Memory: n.memory,
	}
	return p, nil
}

// swdNAT is a swd that translates for a container.
type swdNAT struct {
	*lab.Swd
	a *lab.NetNS
}

func (n *swdNAT) ask(ctx context.Context, into any, args ...string) error {
	out, err := n.Control(ctx, append([]string{"-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out.Stdout), into); err != nil {
		return fmt.Errorf("swctl %v: its JSON: %w", args, err)
	}
	return nil
}

// uplink asks for the uplink, which has to be up.
func (n *swdNAT) uplink(ctx context.Context) (api.Uplink, error) {
	var u api.Uplink
	if err := n.ask(ctx, &u, "uplink", "show", "wan"); err != nil {
		return u, err
	}
	if u.State != api.StateUp {
		return u, fmt.Errorf("swd's uplink is %s (%s)", u.State, u.Reason)
	}
	return u, nil
}

// await waits until the uplink is up and the way out carries a ping.
func (n *swdNAT) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, uplinkBound)
	defer cancel()
	for {
		_, err := n.uplink(ctx)
		if err == nil {
			_, err = n.a.Run(ctx, "ping", "-c1", "-W1", baseline.AddrOutside)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// count reads the counters of the port, of the uplink and of the NAT rules.
func (n *swdNAT) count(ctx context.Context) (baseline.Counts, error) {
	a, err := n.Port(ctx, "a")
	if err != nil {
		return baseline.Counts{}, err
	}
	u, err := n.uplink(ctx)
	if err != nil {
		return baseline.Counts{}, err
	}
	var rules []api.NAT
	if err := n.ask(ctx, &rules, "nat", "ls"); err != nil {
		return baseline.Counts{}, err
	}
	c := baseline.Counts{
		FromA: baseline.Count{Frames: a.RxFrames, Bytes: a.RxBytes},
		ToA:   baseline.Count{Frames: a.TxFrames, Bytes: a.TxBytes},
		FromB: baseline.Count{Frames: u.RxFrames, Bytes: u.RxBytes},
		ToB:   baseline.Count{Frames: u.TxFrames, Bytes: u.TxBytes},
	}
	for _, r := range rules {
		c.Conns += r.Hits
	}
	return c, nil
}

func (n *swdNAT) conns(ctx context.Context) (int, error) {
	var c api.ConnCount
	return c.Count, n.ask(ctx, &c, "conn", "count")
}

// restart starts the daemon anew: only so does it give back what a table has
// taken.
func (n *swdNAT) restart(ctx context.Context) error {
	if err := n.Stop(); err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	return n.await(ctx)
}

// memory is what the daemon has resident.
func (n *swdNAT) memory(context.Context) (uint64, error) {
	_, rss, err := usage([]int{n.Process().PID()})
	return rss, err
}
