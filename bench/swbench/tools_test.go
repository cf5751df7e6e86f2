package main

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What iperf3 3.12 -J prints, shortened.
const iperf3Output = `{
	"start": {"version": "iperf 3.12"},
	"intervals": [],
	"end": {
		"sum_sent": {"start": 0, "end": 3.000122, "bytes": 4735893504, "bits_per_second": 12628535919.7, "retransmits": 0},
		"sum_received": {"start": 0, "end": 3.000213, "bytes": 4735762432, "bits_per_second": 12627803357.2, "sender": true}
	}
}`

func TestParseIperf3(t *testing.T) {
	got, err := parseIperf3(iperf3Output)
	if err != nil || got != (bulk{12627803357.2, 4735762432, 4735893504, 0}) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, out := range map[string]string{
		"nothing":  "",
		"refused":  `{"start": {}, "error": "unable to connect to server: Connection refused"}`,
		"no bytes": `{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}`,
	} {
		if _, err := parseIperf3(out); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	more := strings.Replace(iperf3Output, "4735893504", "4735762431", 1)
	if _, err := parseIperf3(more); err == nil {
		t.Error("more bytes came than were sent, and nobody minds")
	}
	if _, err := parseIperf3(`{"error": "unable to connect"}`); err == nil || !strings.Contains(err.Error(), "unable to connect") {
		t.Errorf("iperf3's own error is lost: %v", err)
	}
}

func TestParseNetperf(t *testing.T) {
	const stream = "THROUGHPUT=17234.56\nTHROUGHPUT_UNITS=10^6bits/s\nREMOTE_RECV_CALLS=98765\nREMOTE_BYTES_RECVD=6462960000\nELAPSED_TIME=3.00\n"
	got, err := parseNetperfStream(stream)
	if err != nil || math.Abs(got.bitsPerSecond-17.23456e9) > 1 || got.bytes != 6462960000 {
		t.Errorf("%+v, %v", got, err)
	}
	const rr = "THROUGHPUT=14901.22\nTHROUGHPUT_UNITS=Trans/s\nREMOTE_RECV_CALLS=44704\nREMOTE_BYTES_RECVD=44703\nELAPSED_TIME=3.00\n"
	back, err := parseNetperfRR(rr)
	if err != nil || back.perSecond != 14901.22 || back.transactions != 44703 {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := parseNetperfStream(rr); err == nil {
		t.Error("transactions were taken for a stream")
	}
	if _, err := parseNetperfRR(stream); err == nil {
		t.Error("a stream was taken for transactions")
	}
	if _, err := parseNetperfStream("establish control: are you sure there is a netserver listening?\n"); err == nil {
		t.Error("an error message was taken for a result")
	}
}

// What sockperf 3.7 under-load prints, colours included.
const sockperfOutput = "sockperf: \x1b[2;35m== version #3.7-no.git == \x1b[0m\n" + `sockperf: Test ended
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=20010; ReceivedMessages=1992
sockperf: ========= Printing statistics for Server No: 0
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=11101; ReceivedMessages=1111
sockperf: # dropped messages = 3; # duplicated messages = 0; # out-of-order messages = 0
sockperf: ---> <MAX> observation = 3875.569
sockperf: ---> percentile 99.900 = 3685.194
sockperf: ---> percentile 99.000 = 2282.379
sockperf: ---> percentile 90.000 =  892.699
sockperf: ---> percentile 50.000 =   75.746
`

func TestParseSockperf(t *testing.T) {
	got, err := parseSockperf(sockperfOutput)
	if err != nil {
		t.Fatal(err)
	}
	if got.seconds != 0.55 || got.received != 1111 || got.total != 1992 || got.sent != 20010 || got.dropped != 3 {
		t.Errorf("%+v", got)
	}
	for percent, want := range map[float64]float64{50: 75.746, 90: 892.699, 99: 2282.379, 99.9: 3685.194} {
		if got.percentiles[percent] != want {
			t.Errorf("p%v is %v, want %v", percent, got.percentiles[percent], want)
		}
	}
	for name, change := range map[string][2]string{
		"duplicates":   {"duplicated messages = 0", "duplicated messages = 1"},
		"out of order": {"out-of-order messages = 0", "out-of-order messages = 1"},
		"nothing":      {"ReceivedMessages=1111", "ReceivedMessages=0"},
		"no summary":   {"[Valid Duration]", "[Nothing]"},
	} {
		if _, err := parseSockperf(strings.Replace(sockperfOutput, change[0], change[1], 1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// What ab 2.3 -q prints, shortened.
const abOutput = `Server Port:            8080

Concurrency Level:      16
Time taken for tests:   1.001 seconds
Complete requests:      5631
Failed requests:        0
Total transferred:      332111 bytes
Requests per second:    5627.90 [#/sec] (mean)
Time per request:       2.843 [ms] (mean)
`

func TestParseAB(t *testing.T) {
	got, err := parseAB(abOutput)
	if err != nil || got != (pingPong{5627.90, 5631}) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, change := range map[string][2]string{
		"failures":  {"Failed requests:        0", "Failed requests:        4"},
		"an error":  {"Requests per second:", "Non-2xx responses:      9\nRequests per second:"},
		"nothing":   {"Complete requests:      5631", "Complete requests:      0"},
		"no result": {"Complete requests:", "apr_socket_recv: Connection refused (111)"},
	} {
		if _, err := parseAB(strings.Replace(abOutput, change[0], change[1], 1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseGoBench(t *testing.T) {
	got := parseGoBench(`goos: linux
BenchmarkMemPorts-2              	  234484	        12.61 cpu-ns/frame	       0 B/op	       0 allocs/op
BenchmarkLookup/1000_MACs-2      	   93439	        25.68 cpu-ns/frame
BenchmarkMemPorts-2              	  234484	        13.00 cpu-ns/frame	       0 B/op	       0 allocs/op
BenchmarkPush/a-b                	  234484	        13.00 ns/op
Benchmark of something else that is no result
PASS
`)
	if v := got["BenchmarkMemPorts"]["cpu-ns/frame"]; len(v) != 2 || v[0] != 12.61 || v[1] != 13 {
		t.Errorf("two runs gave %v", v)
	}
	if v := got["BenchmarkMemPorts"]["allocs/op"]; len(v) != 2 || v[0] != 0 {
		t.Errorf("allocations: %v", v)
	}
	if v := got["BenchmarkLookup/1000_MACs"]["cpu-ns/frame"]; len(v) != 1 || v[0] != 25.68 {
		t.Errorf("a benchmark with a slash gave %v", v)
	}
	if v := got["BenchmarkPush/a-b"]["ns/op"]; len(v) != 1 {
		t.Errorf("a name with a hyphen was cut: %v", got)
	}
}

// What a process uses is told to less than a millisecond, and to the page.
func TestUsage(t *testing.T) {
	before, rss, err := usage([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for time.Since(began) < 3*time.Millisecond {
	}
	after, _, err := usage([]int{os.Getpid()})
	if err != nil || after <= before || after-before > time.Minute || rss < 1<<20 {
		t.Errorf("%v, then %v, %d B resident, %v", before, after, rss, err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := usage([]int{gone.Process.Pid}); err == nil {
		t.Error("a process that has ended uses something")
	}
}
