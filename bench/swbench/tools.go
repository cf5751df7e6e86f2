package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// bulk is what a TCP stream carried.
type bulk struct {
	bitsPerSecond float64
	bytes         uint64 // Payload that the receiver took in.
	sent          uint64 // Payload that the sender gave out; 0 is unknown.
	retransmits   uint64 // Segments that went once more.
}

// parseIperf3 reads what iperf3 -J prints at the client.
func parseIperf3(out string) (bulk, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			Sent struct {
				Bytes       uint64 `json:"bytes"`
				Retransmits uint64 `json:"retransmits"`
			} `json:"sum_sent"`
			Received struct {
				Bytes         uint64  `json:"bytes"`
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return bulk{}, fmt.Errorf("iperf3's JSON: %w", err)
	}
	if report.Error != "" {
		return bulk{}, fmt.Errorf("iperf3: %s", report.Error)
	}
	r := report.End.Received
	if r.Bytes == 0 || r.BitsPerSecond <= 0 {
		return bulk{}, errors.New("iperf3 received nothing")
	}
	if sent := report.End.Sent.Bytes; r.Bytes > sent {
		return bulk{}, fmt.Errorf("iperf3: %d bytes came, but only %d were sent", r.Bytes, sent)
	}
	return bulk{r.BitsPerSecond, r.Bytes, report.End.Sent.Bytes, report.End.Sent.Retransmits}, nil
}

// netperfKeys are the figures that netperf is asked for by -k (Netperf manual,
// omni output selection).
const netperfKeys = "THROUGHPUT,THROUGHPUT_UNITS,REMOTE_RECV_CALLS,REMOTE_BYTES_RECVD,ELAPSED_TIME"

// parseNetperf reads NAME=VALUE lines.
func parseNetperf(out string) (map[string]string, error) {
	values := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = value
		}
	}
	for name := range strings.SplitSeq(netperfKeys, ",") {
		if values[name] == "" {
			return nil, fmt.Errorf("netperf printed no %s:\n%s", name, out)
		}
	}
	return values, nil
}

// parseNetperfStream reads the result of TCP_STREAM.
func parseNetperfStream(out string) (bulk, error) {
	values, err := parseNetperf(out)
	if err != nil {
		return bulk{}, err
	}
	if values["THROUGHPUT_UNITS"] != "10^6bits/s" {
		return bulk{}, fmt.Errorf("netperf: unit %q of a stream", values["THROUGHPUT_UNITS"])
	}
	rate, errRate := strconv.ParseFloat(values["THROUGHPUT"], 64)
	bytes, errBytes := strconv.ParseFloat(values["REMOTE_BYTES_RECVD"], 64)
	if err := errors.Join(errRate, errBytes); err != nil {
		return bulk{}, fmt.Errorf("netperf: %w", err)
	}
	return bulk{bitsPerSecond: rate * 1e6, bytes: uint64(bytes)}, nil
}

// pingPong is what a request/response test did.
type pingPong struct {
	perSecond    float64
	transactions uint64 // At least this many round trips were made.
}

// parseNetperfRR reads the result of TCP_RR.
func parseNetperfRR(out string) (pingPong, error) {
	values, err := parseNetperf(out)
	if err != nil {
		return pingPong{}, err
	}
	if values["THROUGHPUT_UNITS"] != "Trans/s" {
		return pingPong{}, fmt.Errorf("netperf: unit %q of a request/response test", values["THROUGHPUT_UNITS"])
	}
	rate, errRate := strconv.ParseFloat(values["THROUGHPUT"], 64)
	seconds, errSeconds := strconv.ParseFloat(values["ELAPSED_TIME"], 64)
	if err := errors.Join(errRate, errSeconds); err != nil {
		return pingPong{}, fmt.Errorf("netperf: %w", err)
	}
	return pingPong{rate, uint64(rate * seconds)}, nil
}

// latencies is what sockperf measured.
type latencies struct {
	seconds     float64 // Of the valid part of the run.
	received    uint64  // Answers in it.
	total       uint64  // Answers in the whole run.
	sent        uint64  // Messages in the whole run, answered or not.
	dropped     uint64  // Answers that never came, in the valid part.
	percentiles map[float64]float64
}

var (
	sockperfTotal = regexp.MustCompile(`\[Total Run\] RunTime=([\d.]+) sec;.* SentMessages=(\d+); ReceivedMessages=(\d+)`)
	sockperfValid = regexp.MustCompile(`\[Valid Duration\] RunTime=([\d.]+) sec; SentMessages=(\d+); ReceivedMessages=(\d+)`)
	sockperfFault = regexp.MustCompile(`# dropped messages = (\d+); # duplicated messages = (\d+); # out-of-order messages = (\d+)`)
	sockperfShare = regexp.MustCompile(`percentile ([\d.]+) = +([\d.]+)`)
)

// parseSockperf reads the result of ping-pong or under-load. Duplicates and
// messages out of order are an error.
func parseSockperf(out string) (latencies, error) {
	total, valid := sockperfTotal.FindStringSubmatch(out), sockperfValid.FindStringSubmatch(out)
	fault := sockperfFault.FindStringSubmatch(out)
	if total == nil || valid == nil || fault == nil {
		return latencies{}, fmt.Errorf("sockperf printed no result:\n%s", out)
	}
	var n numbers
	l := latencies{
		seconds: n.float(valid[1]), received: n.uint(valid[3]), sent: n.uint(total[2]), total: n.uint(total[3]),
		percentiles: map[float64]float64{},
	}
	for _, m := range sockperfShare.FindAllStringSubmatch(out, -1) {
		l.percentiles[n.float(m[1])] = n.float(m[2])
	}
	l.dropped = n.uint(fault[1])
	duplicated, disordered := n.uint(fault[2]), n.uint(fault[3])
	if n.err != nil {
		return latencies{}, fmt.Errorf("sockperf: %w", n.err)
	}
	if duplicated > 0 || disordered > 0 {
		return latencies{}, fmt.Errorf("sockperf: %d messages duplicated, %d out of order", duplicated, disordered)
	}
	if l.received == 0 || l.seconds <= 0 {
		return latencies{}, errors.New("sockperf received nothing")
	}
	return l, nil
}

var (
	abDone   = regexp.MustCompile(`(?m)^Complete requests: +(\d+)$`)
	abFailed = regexp.MustCompile(`(?m)^Failed requests: +(\d+)$`)
	abRate   = regexp.MustCompile(`(?m)^Requests per second: +([\d.]+) `)
)

// parseAB reads the result of ab. A request that failed is an error, as is an
// answer other than 200.
func parseAB(out string) (pingPong, error) {
	done, failed, rate := abDone.FindStringSubmatch(out), abFailed.FindStringSubmatch(out), abRate.FindStringSubmatch(out)
	if done == nil || failed == nil || rate == nil {
		return pingPong{}, fmt.Errorf("ab printed no result:\n%s", out)
	}
	var n numbers
	r := pingPong{perSecond: n.float(rate[1]), transactions: n.uint(done[1])}
	faults := n.uint(failed[1])
	switch {
	case n.err != nil:
		return pingPong{}, fmt.Errorf("ab: %w", n.err)
	case faults > 0 || strings.Contains(out, "Non-2xx responses:"):
		return pingPong{}, fmt.Errorf("ab: requests failed:\n%s", out)
	case r.transactions == 0 || r.perSecond <= 0:
		return pingPong{}, errors.New("ab made no request")
	}
	return r, nil
}

// numbers parses numbers and keeps the first error.
type numbers struct{ err error }

func (n *numbers) float(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	n.err = errors.Join(n.err, err)
	return v
}

func (n *numbers) uint(s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	n.err = errors.Join(n.err, err)
	return v
}
