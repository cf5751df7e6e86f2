package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/load"
)

const (
	// mostConns is how many connections one measurement makes. Each holds its
	// external port for minutes after it is closed, and every path has more than
	// so many for a container.
	mostConns = 30_000
	// firstClientPort is where A's connections come from; the next ones count up.
	firstClientPort = 20_000
	// abConcurrency is how many connections ab has open at a time.
	abConcurrency = 16

	fillFrom    = "198.18.0.64" // The first of 64 inside addresses.
	fillTo      = "203.0.113.1" // The first destination.
	fillRate    = 200_000       // Connections a second, in the first sweep.
	fillSlower  = 0.6           // Each sweep has that much of the last one's rate.
	fillSweeps  = 5             // At most, until enough are in the table.
	fillEnough  = 0.95          // Of those that are to be there.
	fillSlack   = 90 * time.Second
	memoryShare = 0.98 // Of the table that is filled to measure its memory.
)

// connections measures TCP connections made, used for one request and closed,
// one after the other, from A to B, with so many connections in the path's table
// already.
func connections(where placement, already int) func(context.Context, *bench, *baseline.Path) (measurement, error) {
	return func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack+fillSlack)
		defer cancel()
		if err := p.NAT.Flush(ctx); err != nil {
			return measurement{}, err
		}
		if already > 0 {
			if err := b.fill(ctx, p, already); err != nil {
				return measurement{}, err
			}
		}
		measure := b.connect
		if b.netperf {
			measure = b.netperfCRR
		}
		r, err := measure(ctx, p, where)
		if err != nil {
			return measurement{}, err
		}
		if err := holds(ctx, p, already); err != nil {
			return measurement{}, fmt.Errorf("after the measurement: %w", err)
		}
		least := eachConnection(r.transactions, false)
		least.Conns += uint64(fillEnough * float64(already))
		return measurement{values: []float64{r.perSecond / 1e3}, least: least}, nil
	}
}

// eachConnection is what so many connections with a request take at least: SYN,
// its ACK, request and FIN from the client, SYN-ACK and answer from the server.
func eachConnection(conns uint64, inward bool) baseline.Least {
	least := baseline.Least{
		AToB: baseline.Count{Frames: 4 * conns}, BToA: baseline.Count{Frames: 2 * conns},
		Conns: conns,
	}
	if inward {
		least.AToB, least.BToA = least.BToA, least.AToB
	}
	return least
}

// connect measures by this program at both ends.
func (b *bench) connect(ctx context.Context, p *baseline.Path, where placement) (pingPong, error) {
	self, err := ownPath()
	if err != nil {
		return pingPong{}, err
	}
	s, err := b.startServer(ctx, p, "tcp", b.server(where, self, "serve")...)
	if err != nil {
		return pingPong{}, err
	}
	defer s.Kill()
	out, err := p.A.Run(ctx, b.client(where, self, "connect", p.Server+":"+s.port,
		"--first-port", strconv.Itoa(firstClientPort), "--most", strconv.Itoa(mostConns),
		"--seconds", strconv.Itoa(b.opts.Seconds))...)
	if err != nil {
		return pingPong{}, err
	}
	var c load.Connected
	if err := json.Unmarshal([]byte(out.Stdout), &c); err != nil {
		return pingPong{}, fmt.Errorf("the client's JSON: %w", err)
	}
	return pingPong{perSecond: c.Rate(), transactions: c.Conns}, nil
}

// published measures what ab does from B to A's published port.
func published(where placement) func(context.Context, *bench, *baseline.Path) (measurement, error) {
	return func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack)
		defer cancel()
		if err := p.NAT.Flush(ctx); err != nil {
			return measurement{}, err
		}
		self, err := ownPath()
		if err != nil {
			return measurement{}, err
		}
		s, err := startListening(ctx, p.A, "tcp", baseline.PublishedPort, b.server(where, self, "serve")...)
		if err != nil {
			return measurement{}, err
		}
		defer s.Kill()
		// -t sets -n, so it has to come first.
		out, err := p.B.Run(ctx, b.client(where, "ab", "-q", "-t", strconv.Itoa(b.opts.Seconds), "-n", strconv.Itoa(mostConns),
			"-c", strconv.Itoa(abConcurrency), fmt.Sprintf("http://%s:%d/", p.NAT.External, baseline.PublishedPort))...)
		if err != nil {
			return measurement{}, err
		}
		r, err := parseAB(out.Stdout)
		if err != nil {
			return measurement{}, err
		}
		least := eachConnection(r.transactions, true)
		// The kernel draws ab's ports at random, some of them twice, and a NAT
		// may go on with the connection that it knows.
		least.Conns /= 2
		return measurement{values: []float64{r.perSecond / 1e3}, least: least}, nil
	}
}

// connectionMemory measures what a connection takes: by how much the path's
// memory grows from an empty table, which never held any, to one that is nearly
// full.
func connectionMemory(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, toolSlack+fillSlack)
	defer cancel()
	connsBefore, err := p.NAT.Conns(ctx)
	if err != nil {
		return measurement{}, err
	}
	before, err := p.NAT.Memory(ctx)
	if err != nil {
		return measurement{}, err
	}
	if err := b.fill(ctx, p, int(memoryShare*float64(p.NAT.MaxConns))); err != nil {
		return measurement{}, err
	}
	conns, err := p.NAT.Conns(ctx)
	if err != nil {
		return measurement{}, err
	}
	after, err := p.NAT.Memory(ctx)
	if err != nil {
		return measurement{}, err
	}
	begun := uint64(conns - connsBefore)
	m := measurement{
		values: []float64{(float64(after) - float64(before)) / float64(begun)},
		least:  baseline.Least{AToB: baseline.Count{Frames: begun}, Conns: begun},
	}
	return m, p.NAT.Flush(ctx)
}

// fill puts connections into the path's table: frames of UDP from 64 addresses
// beside A's, without answers.
func (b *bench) fill(ctx context.Context, p *baseline.Path, conns int) error {
	self, err := ownPath()
	if err != nil {
		return err
	}
	gateway, err := p.GatewayMAC()
	if err != nil {
		return err
	}
	own, err := p.A.MAC(baseline.Interface)
	if err != nil {
		return err
	}
	rate := float64(fillRate)
	for range fillSweeps {
		_, err := p.A.Run(ctx, self, "fill", "--interface", baseline.Interface, "--src-mac", own.String(), "--dst-mac", gateway.String(),
			"--src-ip", fillFrom, "--dst-ip", fillTo, "--conns", strconv.Itoa(conns), "--rate", strconv.Itoa(int(rate)))
		if err != nil {
			return err
		}
		// A busy machine loses some frames; another sweep makes up for them and
		// keeps the others' connections alive.
		if err = holds(ctx, p, conns); err == nil {
			return nil
		}
		rate *= fillSlower
	}
	return holds(ctx, p, conns)
}

// holds tells whether the path's table has about so many connections or more.
func holds(ctx context.Context, p *baseline.Path, conns int) error {
	got, err := p.NAT.Conns(ctx)
	if err != nil {
		return err
	}
	if float64(got) < fillEnough*float64(conns) {
		return fmt.Errorf("the table of %s holds %d connections of %d", p.Name, got, conns)
	}
	return nil
}

// netperfCRR measures by netperf.
func (b *bench) netperfCRR(ctx context.Context, p *baseline.Path, where placement) (pingPong, error) {
	s, err := b.startServer(ctx, p, "tcp", b.server(where, "netserver", "-D", "-p")...)
	if err != nil {
		return pingPong{}, err
	}
	defer s.Kill()
	out, err := p.A.Run(ctx, b.client(where, "netperf", "-H", p.Server, "-p", s.port, "-t", "TCP_CRR",
		"-l", strconv.Itoa(b.opts.Seconds), "-P", "0", "--", "-k", netperfKeys)...)
	if err != nil {
		return pingPong{}, err
	}
	return parseNetperfRR(out.Stdout)
}
