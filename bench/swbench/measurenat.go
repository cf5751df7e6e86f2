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
		if err := p.Forget(ctx); err != nil {
			return measurement{}, err
		}
		if already > 0 {
			if err := b.fill(ctx, p, already); err != nil {
				return measurement{}, err
			}
		}
		measure, beside := b.connect, uint64(0)
		if b.netperf {
			measure, beside = b.netperfCRR, contentConns
		}
		r, err := measure(ctx, p, where)
		if err != nil {
			return measurement{}, err
		}
		if already > 0 {
			if err := holds(ctx, p, already); err != nil {
				return measurement{}, fmt.Errorf("after the measurement: %w", err)
			}
		}
		m := measurement{values: []float64{r.perSecond / 1e3}}
		m.least, m.most = eachConnection(r.transactions + beside)
		m.least.Conns += uint64(fillEnough * float64(already))
		// A sweep may begin once more what has ended meanwhile.
		m.most.Conns += fillSweeps * uint64(already)
		m.most.AToB.Frames += fillSweeps * uint64(already)
		m.most.AToB.Bytes += fillSweeps * uint64(already) * load.MinSize
		return m, nil
	}
}

// What a connection with a request takes of frames: at least SYN, its ACK,
// request and FIN from the client, SYN-ACK and answer from the server; at most,
// each acknowledged for itself and some sent again, and no longer than this.
const (
	requestFrames, answerFrames = 4, 2
	connFrames                  = 10
	connFrameMost               = 256
)

// eachConnection is what so many connections from A to B need of a path, and
// what they may take.
func eachConnection(conns uint64) (baseline.Least, *baseline.Most) {
	most := baseline.Count{Frames: connFrames * conns, Bytes: connFrames * conns * connFrameMost}
	return baseline.Least{
		AToB:  baseline.Count{Frames: requestFrames * conns, Bytes: requestFrames * conns * headersLeast},
		BToA:  baseline.Count{Frames: answerFrames * conns, Bytes: answerFrames * conns * headersLeast},
		Conns: conns,
	}, &baseline.Most{AToB: most, BToA: most, Conns: conns}
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
	return pingPong{perSecond: c.Rate(), transactions: c.Conns}, s.served(c.Conns, 1)
}

// published measures what ab does from B to A's published port.
func published(where placement) func(context.Context, *bench, *baseline.Path) (measurement, error) {
	return func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack)
		defer cancel()
		if err := p.Forget(ctx); err != nil {
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
		at := fmt.Sprintf("%s:%d", p.External, baseline.PublishedPort)
		if err := b.checkConnections(ctx, p.B, where, at); err != nil {
			return measurement{}, err
		}
		// -t sets -n, so it has to come first.
		out, err := p.B.Run(ctx, b.client(where, "ab", "-q", "-t", strconv.Itoa(b.opts.Seconds), "-n", strconv.Itoa(mostConns),
			"-c", strconv.Itoa(abConcurrency), "http://"+at+"/")...)
		if err != nil {
			return measurement{}, err
		}
		r, err := parseAB(out.Stdout)
		if err != nil {
			return measurement{}, err
		}
		if err := s.served(r.transactions+contentConns, 2); err != nil {
			return measurement{}, err
		}
		m := measurement{values: []float64{r.perSecond / 1e3}}
		m.least, m.most = eachConnection(r.transactions + contentConns)
		m.least.AToB, m.least.BToA = m.least.BToA, m.least.AToB
		// The kernel draws ab's ports at random, some of them twice, and a NAT
		// may go on with the connection that it knows.
		m.least.Conns /= 2
		return m, nil
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
	filled := uint64(memoryShare * float64(p.NAT.MaxConns))
	if err := b.fill(ctx, p, int(filled)); err != nil {
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
	if conns <= connsBefore {
		return measurement{}, fmt.Errorf("the table of %s went from %d connections to %d while it was filled", p.Name, connsBefore, conns)
	}
	begun := uint64(conns - connsBefore)
	m := measurement{
		values: []float64{(float64(after) - float64(before)) / float64(begun)},
		least:  baseline.Least{AToB: baseline.Count{Frames: begun, Bytes: begun * load.MinSize}, Conns: begun},
		most: &baseline.Most{
			AToB:  baseline.Count{Frames: fillSweeps * filled, Bytes: fillSweeps * filled * load.MinSize},
			Conns: fillSweeps * filled,
		},
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
	if err := b.checkedBeside(ctx, p, where); err != nil {
		return pingPong{}, err
	}
	return parseNetperfRR(out.Stdout)
}
