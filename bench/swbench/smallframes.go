package main

import (
	"context"

	"heddle/bench/baseline"
	"heddle/bench/load"
)

// smallFrames measures how many 60-byte frames of one flow arrive intact.
func smallFrames(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack)
	defer cancel()
	if err := p.Forget(ctx); err != nil { // The flow shall be a new one.
		return measurement{}, err
	}
	sent, received, err := b.frames(ctx, p, frameRun{size: load.MinSize, seconds: b.opts.Seconds})
	if err != nil {
		return measurement{}, err
	}
	m, err := frameFigure(sent, received, load.MinSize)
	m.least.Conns = 1
	return m, err
}

// frameFigure is what frames of one size come to: the rate of those delivered,
// and what the path must have carried for it. Anything but loss is an error.
func frameFigure(sent load.Sent, received load.Received, size uint64) (measurement, error) {
	if err := received.Verify(sent.Frames); err != nil {
		return measurement{}, err
	}
	return measurement{
		values: []float64{received.Rate(sent) / 1e6},
		least:  baseline.Least{AToB: baseline.Count{Frames: received.Delivered, Bytes: received.Delivered * size}},
		most:   &baseline.Most{AToB: baseline.Count{Frames: sent.Frames, Bytes: sent.Frames * size}},
	}, nil
}

// sink is an address outside that no stack has: the receiver answers for it, and
// B's stack sees frames for another host.
const sink = "192.0.2.3"

// frameAddresses returns the flags of `swbench send` and `swbench receive` that
// say how frames are addressed: as they please through a switch, as A's through
// a gateway, where they come out as the external address's.
func frameAddresses(p *baseline.Path) (send, receive []string, err error) {
	if p.NAT == nil {
		return nil, nil, nil
	}
	gateway, err := p.GatewayMAC()
	if err != nil {
		return nil, nil, err
	}
	own, err := p.A.MAC(baseline.Interface)
	if err != nil {
		return nil, nil, err
	}
	send = []string{"--src-mac", own.String(), "--dst-mac", gateway.String(), "--src-ip", baseline.AddrA, "--dst-ip", sink}
	return send, []string{"--routed", "--src-ip", p.External, "--dst-ip", sink}, nil
}
