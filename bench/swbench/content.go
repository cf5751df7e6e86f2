package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/bench/load"
)

// Iperf3, netperf, sockperf and ab tell how much came, not what. Beside each of
// their figures goes traffic of this program over the same path in the same
// placement, of which every byte is checked at the other end; the path's counters
// have to account for both together.
const (
	contentBytes = 32 << 20 // Of all streams together.
	contentConns = 200
	contentRate  = 20_000 // Frames a second.
	// contentSeconds is the length of a measurement of frames beside another.
	contentSeconds = 1
)

// endSlack is what a receiver may take to end after its sender has.
const endSlack = 3 * time.Second

// checkStreams sends n TCP streams from A to B and has every byte checked. It
// returns how many bytes they had together.
func (b *bench) checkStreams(ctx context.Context, p *baseline.Path, n int, where placement) (uint64, error) {
	self, err := ownPath()
	if err != nil {
		return 0, err
	}
	drain, err := b.startServer(ctx, p, "tcp", b.server(where, self, "drain")...)
	if err != nil {
		return 0, err
	}
	defer drain.Kill()
	each := uint64(contentBytes / n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = p.A.Run(ctx, b.client(where, self, "pour", p.Server+":"+drain.port,
				"--seed", strconv.Itoa(i+1), "--bytes", strconv.FormatUint(each, 10))...)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("the stream whose bytes are checked: %w", err)
	}
	return each * uint64(n), nil
}

// checkConnections makes connections from one namespace to a server of this
// program, and holds each answer against its request.
func (b *bench) checkConnections(ctx context.Context, from *lab.NetNS, where placement, at string) error {
	self, err := ownPath()
	if err != nil {
		return err
	}
	out, err := from.Run(ctx, b.client(where, self, "connect", at, "--most", strconv.Itoa(contentConns),
		"--seconds", strconv.Itoa(int(toolSlack.Seconds())))...)
	if err != nil {
		return fmt.Errorf("the connections whose answers are checked: %w", err)
	}
	var c load.Connected
	if err := json.Unmarshal([]byte(out.Stdout), &c); err != nil {
		return fmt.Errorf("the client's JSON: %w", err)
	}
	if c.Conns != contentConns {
		return fmt.Errorf("the connections whose answers are checked: %d of %d were made in %v", c.Conns, contentConns, toolSlack)
	}
	return nil
}

// served ends a server of this program and holds what it has counted against
// what clients say: so many requests at least, of so many kinds.
func (s server) served(requests uint64, kinds int) error {
	if err := s.Stop(); err != nil {
		return err
	}
	out, err := s.Wait(context.Background())
	if err != nil {
		return err
	}
	var got load.Served
	if err := json.Unmarshal([]byte(out.Stdout), &got); err != nil {
		return fmt.Errorf("the server's JSON: %w", err)
	}
	if got.Requests < requests {
		return fmt.Errorf("the server had %d requests, but its clients say %d were answered", got.Requests, requests)
	}
	if got.Kinds != kinds {
		return fmt.Errorf("the server had %d different requests, but %d were made: some were damaged on their way", got.Kinds, kinds)
	}
	return nil
}

// frameRun is frames of one flow from A to B.
type frameRun struct {
	size, seconds int
	rate          int // Frames a second; 0 is as many as one core sends.
}

// frames sends frames from A to B and has every byte checked. Both ends are this
// program, started anew in the containers.
func (b *bench) frames(ctx context.Context, p *baseline.Path, run frameRun) (sent load.Sent, received load.Received, err error) {
	self, err := ownPath()
	if err != nil {
		return sent, received, err
	}
	sendFlags, receiveFlags, err := frameAddresses(p)
	if err != nil {
		return sent, received, err
	}
	size := []string{"--interface", baseline.Interface, "--size", strconv.Itoa(run.size)}
	words := append(append([]string{self, "receive"}, size...), receiveFlags...)
	receiver, err := p.B.Start(b.server(twoCores, words...)...)
	if err != nil {
		return sent, received, err
	}
	defer receiver.Kill()
	if err := receiver.WaitStdout(ctx, readyLine); err != nil {
		return sent, received, err
	}
	if p.NAT != nil {
		// Nobody answers, but it makes the path ask for the sink's MAC: what
		// waits for that may be overtaken.
		_, _ = p.A.Run(ctx, "ping", "-c1", "-W1", sink)
	}
	words = append(append([]string{self, "send"}, size...), "--seconds", strconv.Itoa(run.seconds), "--rate", strconv.Itoa(run.rate))
	out, err := p.A.Run(ctx, b.client(twoCores, append(words, sendFlags...)...)...)
	if err != nil {
		return sent, received, err
	}
	if err := json.Unmarshal([]byte(out.Stdout), &sent); err != nil {
		return sent, received, fmt.Errorf("the sender's JSON: %w", err)
	}
	received, err = receiverEnd(ctx, receiver)
	return sent, received, err
}

// receiverEnd waits for what the receiver reports. One that nothing has come to
// doesn't end by itself.
func receiverEnd(ctx context.Context, receiver *lab.Process) (received load.Received, err error) {
	select {
	case <-receiver.Exited():
	case <-time.After(endSlack):
		if err := receiver.Stop(); err != nil {
			return received, err
		}
	case <-ctx.Done():
		return received, context.Cause(ctx)
	}
	out, err := receiver.Wait(ctx)
	if err != nil {
		return received, err
	}
	if len(out.Stdout) <= len(readyLine) {
		return received, errors.New("the receiver reported nothing")
	}
	if err := json.Unmarshal([]byte(out.Stdout[len(readyLine):]), &received); err != nil {
		return received, fmt.Errorf("the receiver's JSON: %w", err)
	}
	return received, nil
}
