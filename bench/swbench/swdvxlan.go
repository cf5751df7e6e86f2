package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/ctl/api"
	"heddle/ctl/config"
)

// The contenders that tunnel by swd, by the kind of their ports.
const (
	swdVXLANTAP  = "swd-vxlan-tap"
	swdVXLANVeth = "swd-vxlan-veth"
)

// peerBound is how long a tunnel may take to carry frames.
const peerBound = 10 * time.Second

// newSwdVXLAN joins two containers on two hosts by a swd on each, with ports of
// one kind. Each swd has half of the machine's cores, since it would otherwise
// pin its workers to those that the other one has: hosts don't share cores.
//
//	A: eth0 ── port ── swd, peer b ── u0 ── veth ── u0 ── swd, peer a ── port ── eth0 :B
func newSwdVXLAN(ctx context.Context, l *lab.Lab, bin lab.Binaries, kind string, cores []int, args []string) (*baseline.Path, error) {
	name, about := swdVXLANTAP, "swd on two hosts, TAP ports"
	if kind == config.KindVeth {
		name, about = swdVXLANVeth, "swd on two hosts, veth ports (AF_PACKET)"
	}
	h, err := baseline.NewHosts(l, name)
	if err != nil {
		return nil, err
	}
	if err := h.Address(baseline.Underlay); err != nil {
		return nil, err
	}
	first, second := halves(cores)
	a, err := newSwdHost(ctx, l, h.HostA, "host-a", bin, first, args)
	if err != nil {
		return nil, err
	}
	b, err := newSwdHost(ctx, l, h.HostB, "host-b", bin, second, args)
	if err != nil {
		return nil, err
	}
	if err := a.join(ctx, kind, h.A, baseline.VTEPB, baseline.CIDRA, baseline.CIDR6A); err != nil {
		return nil, err
	}
	if err := b.join(ctx, kind, h.B, baseline.VTEPA, baseline.CIDRB, baseline.CIDR6B); err != nil {
		return nil, err
	}
	if err := errors.Join(a.await(ctx), b.await(ctx)); err != nil {
		return nil, err
	}
	return &baseline.Path{
		Name:  name,
		About: about,
		A:     h.A, B: h.B,
		Server: baseline.AddrB,
		Hosts:  true,
		PIDs:   []int{a.Process().PID(), b.Process().PID()},
		Count: func(ctx context.Context) (baseline.Counts, error) {
			endA, errA := a.end(ctx)
			endB, errB := b.end(ctx)
			return baseline.TunnelCounts(endA, endB), errors.Join(errA, errB)
		},
	}, nil
}

// halves deals cores out to two hosts; a single core they share.
func halves(cores []int) (first, second []int) {
	if len(cores) < 2 {
		return cores, cores
	}
	return cores[:len(cores)/2], cores[len(cores)/2:]
}

// swdHost is a swd with one container and one peer.
type swdHost struct{ *lab.Swd }

// newSwdHost starts a swd. Its name is that of the host, which the MACs of ports
// are made from.
func newSwdHost(ctx context.Context, l *lab.Lab, host *lab.NetNS, name string, bin lab.Binaries, cores []int, args []string) (swdHost, error) {
	var list []string
	for _, c := range cores {
		list = append(list, strconv.Itoa(c))
	}
	bin.Under = []string{"taskset", "-c", strings.Join(list, ",")}
	s, err := l.StartSwd(ctx, host, bin, append([]string{"--node", name}, args...)...)
	return swdHost{s}, err
}

// join gives the host the network, its container and its peer.
func (s swdHost) join(ctx context.Context, kind string, container *lab.NetNS, remote, ip4, ip6 string) error {
	for _, words := range [][]string{
		{"network", "add", benchNetwork, "--vni", strconv.Itoa(baseline.VNI), "--mtu", strconv.Itoa(baseline.TunnelMTU)},
		{"port", "add", "container", "--network", benchNetwork, "--netns", container.Path(), "--kind", kind,
			"--ifname", baseline.Interface, "--ip", ip4, "--ip", ip6},
		{"peer", "add", "remote", "--address", remote},
	} {
		if _, err := s.Control(ctx, words...); err != nil {
			return err
		}
	}
	return nil
}

// peer asks for the peer, which has to be up.
func (s swdHost) peer(ctx context.Context) (p api.Peer, err error) {
	out, err := s.Control(ctx, "-o", "json", "peer", "show", "remote")
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(out.Stdout), &p); err != nil {
		return p, fmt.Errorf("swctl peer show: its JSON: %w", err)
	}
	if p.State != api.StateUp {
		return p, fmt.Errorf("swd's peer is %s (%s)", p.State, p.Reason)
	}
	return p, nil
}

// await waits until the peer is up.
func (s swdHost) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, peerBound)
	defer cancel()
	for {
		_, err := s.peer(ctx)
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

// end reads the counters of the host's port and of its peer.
func (s swdHost) end(ctx context.Context) (baseline.TunnelEnd, error) {
	port, err := s.Port(ctx, "container")
	if err != nil {
		return baseline.TunnelEnd{}, err
	}
	if port.State != api.StateUp {
		return baseline.TunnelEnd{}, fmt.Errorf("swd's port is %s (%s)", port.State, port.Reason)
	}
	peer, err := s.peer(ctx)
	if err != nil {
		return baseline.TunnelEnd{}, err
	}
	return baseline.TunnelEnd{
		From:  baseline.Count{Frames: port.RxFrames, Bytes: port.RxBytes},
		To:    baseline.Count{Frames: port.TxFrames, Bytes: port.TxBytes},
		Encap: baseline.Count{Frames: peer.TxFrames, Bytes: peer.TxBytes},
		Decap: baseline.Count{Frames: peer.RxFrames, Bytes: peer.RxBytes},
	}, nil
}
