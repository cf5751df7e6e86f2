package nat_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/nat"
	vswitch "heddle/switch"
)

// BenchmarkWorkers is what workers that push at the same time cost each other:
// each pushes batches of 64 frames of 64 flows of its own to one gateway, and
// between two of them works for some time on what is nobody else's, as on the
// system calls that bring and take the frames: 64 of 1 µs and more each way on a
// TAP. It reports the CPU time that a worker spends on a frame, without that in
// between, and with it the time that passes.
func BenchmarkWorkers(b *testing.B) {
	for _, between := range []time.Duration{0, 20 * time.Microsecond, 100 * time.Microsecond} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%v between, %d workers", between, workers), func(b *testing.B) {
				push := newCrowd(b, workers)
				spent := make([]time.Duration, workers)
				begun := time.Now()
				var all sync.WaitGroup
				for w := range workers {
					all.Go(func() {
						runtime.LockOSThread()
						defer runtime.UnlockOSThread()
						for range b.N {
							before := cost.CPU()
							push(w)
							after := cost.CPU()
							spent[w] += after - before
							for cost.CPU()-after < between {
								continue
							}
						}
					})
				}
				all.Wait()
				passed := time.Since(begun)
				total := time.Duration(0)
				for _, s := range spent {
					total += s
				}
				b.ReportMetric(float64(total)/float64(b.N*workers*dataplane.BatchSize), "cpu-ns/frame")
				b.ReportMetric(float64(passed)/float64(b.N*dataplane.BatchSize), "wall-ns/frame")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// newCrowd makes a NAT for workers, and returns what has one of them push a
// batch.
func newCrowd(b *testing.B, workers int) (push func(worker int)) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	sw := vswitch.New(workers, 1000)
	network, err := sw.AddNetwork(vswitch.NetworkConfig{})
	must(err)
	n, err := nat.New(nat.Config{Workers: workers, MaxConns: 1000})
	must(err)
	gw, err := n.AddGateway(nat.GatewayConfig{
		Name: "net", MAC: gwMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}, MTU: 1500, Network: network, Port: 2,
	})
	must(err)
	up, err := n.AddUplink(nat.UplinkConfig{
		Name: "up", Mode: nat.Own, MAC: upMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
		NextHop4: netip.MustParseAddr("192.0.2.1"), MTU: 1500,
		Port: mem.NewLoop(mem.Config{Workers: workers, Restore: 64}, outFrames(1)...),
	})
	must(err)
	_, err = n.AddMasquerade(nat.MasqueradeConfig{Gateway: gw, Uplink: up})
	must(err)
	must(up.SetNeighbour(netip.MustParseAddr("192.0.2.1"), routerMAC))
	batches := make([]dataplane.Batch, workers)
	loops := make([]*mem.Port, workers)
	for w := range workers {
		var frames []mem.Frame
		for i := range dataplane.BatchSize {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(w)}), uint16(5000+i))
			frames = append(frames, mem.Frame{Data: udpFrame(gwMAC, hostMAC, from, addrPort("203.0.113.9:53"))})
		}
		loops[w] = mem.NewLoop(mem.Config{Workers: workers, Restore: 64}, frames...)
	}
	return func(w int) {
		bt := &batches[w]
		bt.Reset()
		bt.Worker = w
		loops[w].Pull(bt)
		gw.Push(bt)
	}
}
