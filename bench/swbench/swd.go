package main

import (
	"context"
	"fmt"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/ctl/config"
)

const benchNetwork = "bench"

// newSwd joins two containers by a swd of its own, with ports of one kind.
//
//	A: eth0 ── tap or veth ── port a ┐
//	                                 ├ swd, network bench
//	B: eth0 ── tap or veth ── port b ┘
func newSwd(ctx context.Context, l *lab.Lab, bin lab.Binaries, kind string, args []string) (*baseline.Path, error) {
	name := "swd-" + kind
	a, b, err := baseline.NewContainers(l, name)
	if err != nil {
		return nil, err
	}
	host, err := l.NewNetNS(name)
	if err != nil {
		return nil, err
	}
	s, err := l.StartSwd(ctx, host, bin, args...)
	if err != nil {
		return nil, err
	}
	if _, err := s.Control(ctx, "network", "add", benchNetwork); err != nil {
		return nil, err
	}
	for _, port := range []struct {
		name     string
		n        *lab.NetNS
		ip4, ip6 string
	}{
		{"a", a, baseline.CIDRA, baseline.CIDR6A},
		{"b", b, baseline.CIDRB, baseline.CIDR6B},
	} {
		_, err := s.Control(ctx, "port", "add", port.name, "--network", benchNetwork, "--netns", port.n.Path(),
			"--kind", kind, "--ifname", baseline.Interface, "--ip", port.ip4, "--ip", port.ip6)
		if err != nil {
			return nil, err
		}
	}
	about := "swd, TAP ports"
	if kind == config.KindVeth {
		about = "swd, veth ports (AF_PACKET)"
	}
	return &baseline.Path{
		Name:  name,
		About: about,
		A:     a, B: b,
		Server: baseline.AddrB,
		PIDs:   []int{s.Process().PID()},
		Count:  func(ctx context.Context) (baseline.Counts, error) { return swdCounts(ctx, s) },
	}, nil
}

// swdCounts reads both ports' counters by `swctl port show -o json`.
func swdCounts(ctx context.Context, s *lab.Swd) (baseline.Counts, error) {
	a, err := s.Port(ctx, "a")
	if err != nil {
		return baseline.Counts{}, err
	}
	b, err := s.Port(ctx, "b")
	if err != nil {
		return baseline.Counts{}, err
	}
	if a.State != "up" || b.State != "up" {
		return baseline.Counts{}, fmt.Errorf("swd's ports are %s (%s) and %s (%s)", a.State, a.Reason, b.State, b.Reason)
	}
	return baseline.Counts{
		FromA: baseline.Count{Frames: a.RxFrames, Bytes: a.RxBytes},
		ToA:   baseline.Count{Frames: a.TxFrames, Bytes: a.TxBytes},
		FromB: baseline.Count{Frames: b.RxFrames, Bytes: b.RxBytes},
		ToB:   baseline.Count{Frames: b.TxFrames, Bytes: b.TxBytes},
	}, nil
}
