package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"heddle/bench/baseline"
	"heddle/bench/load"
)

// smallFrames measures how many 60-byte frames of one flow arrive intact. Both
// ends are this program, started anew in the containers.
func smallFrames(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack)
	defer cancel()
	self, err := ownPath()
	if err != nil {
		return measurement{}, err
	}
	sendFlags, receiveFlags, err := frameAddresses(p)
	if err != nil {
		return measurement{}, err
	}
	receiver, err := p.B.Start(b.server(twoCores, append([]string{self, "receive", "--interface", baseline.Interface}, receiveFlags...)...)...)
	if err != nil {
		return measurement{}, err
	}
	defer receiver.Kill()
	if err := receiver.WaitStdout(ctx, readyLine); err != nil {
		return measurement{}, err
	}
	if p.NAT != nil {
		// Nobody answers, but it makes the path ask for the sink's MAC: what
		// waits for that may be overtaken.
		_, _ = p.A.Run(ctx, "ping", "-c1", "-W0.2", sink)
	}
	out, err := p.A.Run(ctx, b.client(twoCores, append([]string{self, "send",
		"--interface", baseline.Interface, "--seconds", strconv.Itoa(b.opts.Seconds)}, sendFlags...)...)...)
	if err != nil {
		return measurement{}, err
	}
	var sent load.Sent
	if err := json.Unmarshal([]byte(out.Stdout), &sent); err != nil {
		return measurement{}, fmt.Errorf("the sender's JSON: %w", err)
	}
	out, err = receiver.Wait(ctx)
	if err != nil {
		return measurement{}, err
	}
	var received load.Received
	if err := json.Unmarshal([]byte(strings.TrimPrefix(out.Stdout, readyLine)), &received); err != nil {
		return measurement{}, fmt.Errorf("the receiver's JSON: %w", err)
	}
	if err := received.Verify(sent.Frames); err != nil {
		return measurement{}, err
	}
	size := uint64(load.MinSize)
	return measurement{
		values: []float64{received.Rate() / 1e6},
		least:  baseline.Least{AToB: baseline.Count{Frames: received.Delivered, Bytes: received.Delivered * size}},
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
	return send, []string{"--routed", "--src-ip", p.NAT.External, "--dst-ip", sink}, nil
}
