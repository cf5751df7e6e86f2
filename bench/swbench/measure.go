package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/lab"
)

const (
	firstPort = 5201             // Of the servers; each takes the next.
	ports     = 20_000           // Then the first comes again.
	toolSlack = 15 * time.Second // What a tool may take beyond its measuring time.
	// rttMargin is the time that sockperf leaves out at both ends of a run.
	rttMargin = 1
)

// placement says where client and server of a measurement run.
type placement int

const (
	free      placement = iota // Where the scheduler puts them.
	twoCores                   // The client on the first core, the server on the second.
	sameCores                  // Both on the first core.
)

// client returns the words that run a client in its place.
func (b *bench) client(where placement, words ...string) []string {
	if where == free {
		return words
	}
	return onCore(b.cores[0], words...)
}

// server returns the words that run a server in its place.
func (b *bench) server(where placement, words ...string) []string {
	switch where {
	case twoCores:
		return onCore(b.cores[1%len(b.cores)], words...)
	case sameCores:
		return onCore(b.cores[0], words...)
	default:
		return words
	}
}

// onCore returns the words that run a command on one core.
func onCore(core int, words ...string) []string {
	return append([]string{"taskset", "-c", strconv.Itoa(core)}, words...)
}

// tcpStreams measures n TCP streams from A to B, a process at either end each.
func tcpStreams(n int, where placement) func(context.Context, *bench, *baseline.Path) (measurement, error) {
	return func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		ctx, cancel := context.WithTimeout(ctx, b.seconds(0)+toolSlack)
		defer cancel()
		servers, err := b.serve(ctx, p, n, where)
		defer stopAll(servers)
		if err != nil {
			return measurement{}, err
		}
		results, errs := make([]bulk, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { results[i], errs[i] = b.stream(ctx, p, servers[i].port, where) })
		}
		wg.Wait()
		var sum bulk
		for i, r := range results {
			if errs[i] != nil {
				return measurement{}, errs[i]
			}
			sum.bitsPerSecond += r.bitsPerSecond
			sum.bytes += r.bytes
			sum.sent += r.sent
			sum.retransmits += r.retransmits
		}
		checked, err := b.checkStreams(ctx, p, n, where)
		if err != nil {
			return measurement{}, err
		}
		m := measurement{values: []float64{sum.bitsPerSecond / 1e9}}
		m.least, m.most = streamBounds(sum, checked, n)
		// A program's control connection and its stream, and the checked one.
		m.least.Conns, m.most.Conns = uint64(3*n), uint64(3*n)
		return m, nil
	}
}

const (
	headersLeast = 14 + 20 + 20 // Of a TCP segment or super-frame: Ethernet, IPv4, TCP.
	frameMost    = 64 << 10     // Bytes of a super-frame.
	segmentMost  = 1514
	segmentLeast = 500      // Bytes of a segment of bulk TCP, on average.
	bufferMost   = 16 << 20 // Bytes of a stream that are on their way when it ends.
	// headerShare is what headers, and acknowledgements the other way, add at most
	// to segments of 1,398 bytes.
	headerShare = 0.1
)

// streamBounds is what n streams and those that were checked need of a path.
func streamBounds(sum bulk, checked uint64, n int) (baseline.Least, *baseline.Most) {
	payload := sum.bytes + checked
	frames := payload / frameMost
	sent := float64(max(sum.sent, sum.bytes) + checked + uint64(n)*bufferMost + sum.retransmits*segmentMost)
	segments := uint64(sent/segmentLeast) + sum.retransmits
	return baseline.Least{
			AToB: baseline.Count{Frames: frames, Bytes: payload + frames*headersLeast},
			BToA: baseline.Count{Frames: 2 * uint64(n), Bytes: 2 * uint64(n) * headersLeast},
		}, &baseline.Most{
			AToB: baseline.Count{Frames: segments, Bytes: uint64((1 + headerShare) * sent)},
			BToA: baseline.Count{Frames: segments, Bytes: uint64(headerShare * sent)},
		}
}

// serve starts n servers for TCP streams at B, on ports that follow each other.
func (b *bench) serve(ctx context.Context, p *baseline.Path, n int, where placement) (servers []server, err error) {
	for range n {
		words := []string{"iperf3", "-s", "-1", "-p"}
		if b.netperf {
			words = []string{"netserver", "-D", "-p"}
		}
		s, err := b.startServer(ctx, p, "tcp", b.server(where, words...)...)
		if err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// server is a program at B that listens on a port.
type server struct {
	*lab.Process
	port string
}

// startServer starts a server at B and waits until it listens. Its port is
// appended to the words. Each gets another one, since those of earlier
// connections are held in TIME_WAIT.
func (b *bench) startServer(ctx context.Context, p *baseline.Path, proto string, words ...string) (server, error) {
	port := firstPort + b.servers%ports
	b.servers++
	return startListening(ctx, p.B, proto, port, words...)
}

// startListening starts a server in a namespace, its port appended to the
// words, and waits until it listens.
func startListening(ctx context.Context, n *lab.NetNS, proto string, port int, words ...string) (server, error) {
	s := server{port: strconv.Itoa(port)}
	var err error
	if s.Process, err = n.Start(append(words, s.port)...); err != nil {
		return server{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.Exited():
			cancel(fmt.Errorf("%v ended: %s%s", words, s.Stdout(), s.Stderr()))
		case <-ctx.Done():
		}
	}()
	if err := n.WaitListening(ctx, proto, port); err != nil {
		s.Kill()
		return server{}, err
	}
	return s, nil
}

// stream runs one TCP stream from A to a server at B.
func (b *bench) stream(ctx context.Context, p *baseline.Path, port string, where placement) (bulk, error) {
	if b.netperf {
		words := []string{"netperf", "-H", p.Server, "-p", port, "-t", "TCP_STREAM",
			"-l", strconv.Itoa(b.opts.Seconds), "-P", "0", "--", "-k", netperfKeys}
		out, err := p.A.Run(ctx, b.client(where, words...)...)
		if err != nil {
			return bulk{}, err
		}
		return parseNetperfStream(out.Stdout)
	}
	words := []string{"iperf3", "-c", p.Server, "-p", port, "-t", strconv.Itoa(b.opts.Seconds), "-J"}
	out, err := p.A.Run(ctx, b.client(where, words...)...)
	if err != nil {
		return bulk{}, err
	}
	return parseIperf3(out.Stdout)
}

// roundTrips measures requests and responses over one TCP connection, one at a
// time.
func roundTrips(where placement) func(context.Context, *bench, *baseline.Path) (measurement, error) {
	return func(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
		ctx, cancel := context.WithTimeout(ctx, b.seconds(rttMargin)+toolSlack)
		defer cancel()
		measure := b.sockperfRR
		if b.netperf {
			measure = b.netperfRR
		}
		r, err := measure(ctx, p, where)
		if err != nil {
			return measurement{}, err
		}
		least := baseline.Count{Frames: r.transactions, Bytes: r.transactions * (headersLeast + 1)}
		// An acknowledgement of its own for each, and some that are sent again.
		most := baseline.Count{Frames: 3 * (r.transactions + contentConns), Bytes: 3 * (r.transactions + contentConns) * rrMost}
		return measurement{
			values: []float64{r.perSecond / 1e3},
			least:  baseline.Least{AToB: least, BToA: least},
			most:   &baseline.Most{AToB: most, BToA: most},
		}, nil
	}
}

// rrMost bounds the bytes of a frame of a request/response test.
const rrMost = 128

// checkedBeside makes connections to a server of this program at B, whose
// answers are checked: netperf doesn't look at what it gets.
func (b *bench) checkedBeside(ctx context.Context, p *baseline.Path, where placement) error {
	self, err := ownPath()
	if err != nil {
		return err
	}
	s, err := b.startServer(ctx, p, "tcp", b.server(where, self, "serve")...)
	if err != nil {
		return err
	}
	defer s.Kill()
	if err := b.checkConnections(ctx, p.A, where, p.Server+":"+s.port); err != nil {
		return err
	}
	return s.served(contentConns, 1)
}

func (b *bench) netperfRR(ctx context.Context, p *baseline.Path, where placement) (pingPong, error) {
	s, err := b.startServer(ctx, p, "tcp", b.server(where, "netserver", "-D", "-p")...)
	if err != nil {
		return pingPong{}, err
	}
	defer s.Kill()
	out, err := p.A.Run(ctx, b.client(where, "netperf", "-H", p.Server, "-p", s.port, "-t", "TCP_RR",
		"-l", strconv.Itoa(b.opts.Seconds), "-P", "0", "--", "-k", netperfKeys)...)
	if err != nil {
		return pingPong{}, err
	}
	if err := b.checkedBeside(ctx, p, where); err != nil {
		return pingPong{}, err
	}
	return parseNetperfRR(out.Stdout)
}

func (b *bench) sockperfRR(ctx context.Context, p *baseline.Path, where placement) (pingPong, error) {
	l, err := b.sockperf(ctx, p, where, "ping-pong", "--tcp", "--msg-size", "14", "--data-integrity")
	if err != nil {
		return pingPong{}, err
	}
	if l.dropped > 0 {
		return pingPong{}, fmt.Errorf("sockperf: %d messages of a TCP connection were lost", l.dropped)
	}
	return pingPong{perSecond: float64(l.received) / l.seconds, transactions: l.total}, nil
}

// sockperf runs a sockperf server at B and a client at A.
func (b *bench) sockperf(ctx context.Context, p *baseline.Path, where placement, mode string, args ...string) (latencies, error) {
	proto, words := "udp", []string{"sockperf", "server", "-i", p.Server}
	if len(args) > 0 && args[0] == "--tcp" {
		proto, words = "tcp", append(words, "--tcp")
	}
	s, err := b.startServer(ctx, p, proto, b.server(where, append(words, "-p")...)...)
	if err != nil {
		return latencies{}, err
	}
	defer s.Kill()
	words = []string{"sockperf", mode, "-i", p.Server, "-p", s.port, "-t", strconv.Itoa(b.opts.Seconds + rttMargin)}
	out, err := p.A.Run(ctx, b.client(where, append(words, args...)...)...)
	if err != nil {
		return latencies{}, err
	}
	return parseSockperf(out.Stdout)
}

// The load that latency is measured under: small UDP messages at a fixed rate,
// which every contender can carry, of which every tenth is answered.
const (
	loadRate  = 20_000 // Messages a second.
	loadReply = 10
	loadSize  = 64 // Bytes of payload.
	// loadFrame is the length of a frame with such a message.
	loadFrame = 14 + 20 + 8 + loadSize
	// loadLost is the share of the messages that may get lost beside those that
	// the lost answers tell of.
	loadLost = 0.01
)

// loadBounds is what a path must have carried and may have: sockperf's messages,
// whose loss is known from every tenth, and frames of the same length.
func loadBounds(l latencies, delivered, sent uint64) (baseline.Least, *baseline.Most) {
	lost := uint64(loadLost*float64(l.sent)) + 2*loadReply*l.dropped
	aToB := l.sent - min(l.sent, lost) + delivered
	most := l.sent + sent
	return baseline.Least{
			AToB: baseline.Count{Frames: aToB, Bytes: aToB * loadFrame},
			BToA: baseline.Count{Frames: l.total, Bytes: l.total * loadFrame},
		}, &baseline.Most{
			AToB: baseline.Count{Frames: most, Bytes: most * loadFrame},
			BToA: baseline.Count{Frames: l.sent / loadReply, Bytes: l.sent / loadReply * loadFrame},
		}
}

var latencyPercentiles = []float64{50, 90, 99, 99.9}

func latencyFigures() []Figure {
	var figures []Figure
	for _, percent := range latencyPercentiles {
		figures = append(figures, Figure{
			Name: fmt.Sprintf("round trip at %d k/s, p%v", loadRate/1000, percent),
			Unit: "µs", Digits: 0, Lower: true,
		})
	}
	return append(figures, Figure{
		Name: fmt.Sprintf("lost at %d k/s", loadRate/1000), Unit: "‰", Digits: 1, Lower: true,
	})
}

// latencyUnderLoad measures round trips at a fixed rate of messages.
func latencyUnderLoad(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, b.seconds(rttMargin)+toolSlack)
	defer cancel()
	l, err := b.sockperf(ctx, p, twoCores, "under-load",
		"--mps", strconv.Itoa(loadRate), "--reply-every", strconv.Itoa(loadReply),
		"--msg-size", strconv.Itoa(loadSize), "--full-rtt")
	if err != nil {
		return measurement{}, err
	}
	sent, received, err := b.frames(ctx, p, frameRun{size: loadFrame, seconds: contentSeconds, rate: contentRate})
	if err != nil {
		return measurement{}, err
	}
	if err := received.Verify(sent.Frames); err != nil {
		return measurement{}, err
	}
	m := measurement{}
	m.least, m.most = loadBounds(l, received.Delivered, sent.Frames)
	for _, percent := range latencyPercentiles {
		value, ok := l.percentiles[percent]
		if !ok {
			return measurement{}, fmt.Errorf("sockperf printed no percentile %v", percent)
		}
		m.values = append(m.values, value)
	}
	m.values = append(m.values, 1000*float64(l.dropped)/float64(l.dropped+l.received))
	return m, nil
}

func stopAll(servers []server) {
	for _, s := range servers {
		s.Kill()
	}
}
