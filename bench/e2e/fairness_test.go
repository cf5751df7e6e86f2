package e2e

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/lab"
	"heddle/bench/load"
)

// One worker has to serve all, and one source gives it more than it can take:
// the others keep their shares.
//
//	source: flood of 60 B ──┐
//	container: sockperf ────┤     ┌── container: its server, one byte there and back
//	container: a TCP stream ┤ swd ├── container, which takes the stream
//	                              └── container that the flood is for

const (
	// drowning is frames a second: more than a worker takes from any source, if the
	// sender gets as far; it sleeps between its batches all the same.
	drowning = 1_000_000
	// calm is how long a figure is taken for.
	calm = time.Second
)

// The shares: what is left to them during a flood at the least. A worker gives
// the others a turn after each 0.1 ms and a batch; the rest of the bounds is
// what the kernel's scheduler needs on a machine of two cores that three
// processes want.
const (
	mostP99     = 20 * time.Millisecond
	leastTrips  = 500          // Round trips a second.
	leastStream = bulkRate / 4 // Bytes a second, of bulkRate.
)

// What swd takes of a flood at the least, in frames a second, while it leaves the
// others their shares: a flood that doesn't come through takes nothing from
// anybody. On two cores it takes 2.4 (the slow receiver's) to 7 times as much, and
// at least twice as much beside four programs that want them too.
const (
	leastTaken   = 50_000
	leastFlooded = 5_000  // Each goes to all ports.
	leastOutside = 25_000 // The kernel's stack has had them before.
)

// victims are the containers that keep their shares.
type victims struct {
	w              *world
	client, server *station
	stream         *bulk
}

// newVictims makes them and their traffic, on TAP ports.
func newVictims(w *world) *victims {
	w.Helper()
	v := &victims{w: w, client: w.add(onTAP), server: w.add(onTAP)}
	from, to := w.add(onTAP), w.add(onTAP)
	w.reach(v.client, v.server.ip4)
	w.reach(from, to.ip4)
	_, err := v.server.ns.Start("sockperf", "server", "-i", v.server.ip4, "-p", "11111", "--tcp")
	w.NoError(err)
	w.NoError(v.server.ns.WaitListening(w.Context(), "tcp", 11111))
	v.stream = w.startBulk(from.ns, to.ns, to.ip4)
	return v
}

// share is what the victims had for a while.
type share struct {
	trips    float64 // A second.
	p50, p99 time.Duration
	stream   float64 // Bytes a second.
}

func (s share) String() string {
	return fmt.Sprintf("%.0f round trips/s, p50 %v, p99 %v; stream %.2f Gb/s", s.trips, s.p50, s.p99, gbits(s.stream))
}

var (
	sockperfRun  = regexp.MustCompile(`\[Valid Duration\] RunTime=([\d.]+) sec; SentMessages=\d+; ReceivedMessages=(\d+)`)
	sockperfRank = regexp.MustCompile(`percentile (50|99)\.000 = +([\d.]+)`)
)

// measure takes the victims' shares for calm.
func (v *victims) measure() (s share) {
	w := v.w
	w.Helper()
	s.p50, s.p99 = calm, calm // Until it is known better.
	begun, got := time.Now(), v.stream.got.Load()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	out, err := v.client.ns.Run(ctx, "sockperf", "ping-pong", "-i", v.server.ip4, "-p", "11111", "--tcp", "--full-rtt",
		"-t", strconv.Itoa(int(calm/time.Second)))
	s.stream = float64(v.stream.got.Load()-got) / time.Since(begun).Seconds()
	number := func(text string) float64 {
		f, err := strconv.ParseFloat(text, 64)
		w.NoError(err)
		return f
	}
	run := sockperfRun.FindStringSubmatch(out.Stdout)
	if run == nil || number(run[1]) == 0 {
		// Nothing came in all of calm: the machine had no time for them.
		w.Logf("sockperf has no result (%v):\n%s", err, out.Stdout)
		return s
	}
	w.NoError(err)
	s.trips = number(run[2]) / number(run[1])
	for _, m := range sockperfRank.FindAllStringSubmatch(out.Stdout, -1) {
		took := time.Duration(number(m[2]) * float64(time.Microsecond))
		if m[1] == "50" {
			s.p50 = took
		} else {
			s.p99 = took
		}
	}
	return s
}

// glut is a flood and where it comes from.
type glut struct {
	name   string
	from   *lab.NetNS
	ifname string
	frame  []byte
	// taken reads how many frames of the source swd has taken, of which it is to
	// take least a second.
	taken func() uint64
	least float64
}

// keep fails the test if the victims don't keep their shares during a flood, or
// swd takes too little of it. What else runs on the machine takes from them too,
// so it is tried again, until the machine was left alone for once.
func (v *victims) keep(g *glut) {
	w := v.w
	w.Helper()
	const tries = 15
	var during share
	var taken float64
	for range tries {
		before := v.measure()
		ctx, cancel := context.WithCancel(w.Context())
		ended := make(chan error, 1)
		var sent load.Sent
		go func() {
			ended <- g.from.Do(func() (err error) {
				sent, err = load.Flood(ctx, g.ifname, g.frame, func([]byte, uint64) {}, drowning)
				return err
			})
		}()
		w.Eventually(patience, "the flood begins", func() error {
			if was := g.taken(); was == g.taken() {
				return fmt.Errorf("%d frames are taken", was)
			}
			return nil
		})
		took, begun := g.taken(), time.Now()
		during = v.measure()
		taken = float64(g.taken()-took) / time.Since(begun).Seconds()
		cancel()
		w.NoError(<-ended)
		w.Logf("%s: %.0f frames/s sent, %.0f taken\nbefore: %v\nduring: %v", g.name, float64(sent.Frames)/sent.Seconds, taken, before, during)
		if during.p99 <= mostP99 && during.trips >= leastTrips && during.stream >= leastStream && taken >= g.least {
			return
		}
	}
	w.Errorf("%s leaves %v, and swd takes %.0f frames/s of it, not %.0f", g.name, during, taken, g.least)
}

// in is the victims for a subtest, which fails in its own name.
func (v *victims) in(t *testing.T) *victims {
	inner := *v
	inner.w = v.w.within(t)
	return &inner
}

// A flood from a port of any kind, to one port or to all of a network, takes
// from the others no more than its share. The container that it is for knows
// nothing of its Ethernet type, and drops it.
func TestABusyPortLeavesTheOthersTheirShares(t *testing.T) {
	t.Setenv("SWD_WORKERS", "1")
	w := newWorld(t)
	w.favour()
	v := newVictims(w)
	sink := w.add(onTAP)
	for range 8 {
		w.add(onTAP)
	}
	for _, kind := range []string{onTAP, onVeth, onPacket, onHost} {
		from := w.add(kind)
		w.reach(from, sink.ip4)
		taken := func() uint64 { return w.port(from).RxFrames }
		t.Run(kind, func(t *testing.T) {
			v.in(t).keep(&glut{kind, from.ns, from.ifname, etherFrame(w.mac(sink), w.mac(from), "flood"), taken, leastTaken})
		})
		if kind == onTAP || kind == onVeth {
			t.Run(kind+", broadcast", func(t *testing.T) {
				v.in(t).keep(&glut{kind + ", broadcast", from.ns, from.ifname, etherFrame("ff:ff:ff:ff:ff:ff", w.mac(from), "flood"), taken, leastFlooded})
			})
		}
	}
	w.NoError(v.stream.finish())
}

// What a device can't take is dropped and counted, at the cost of the attempt:
// a receiver that is slow holds nobody up.
//
//	container: flood ── swd ── packet port on a veth end that lets 1 Mb/s through
func TestASlowReceiverHoldsNobodyUp(t *testing.T) {
	t.Setenv("SWD_WORKERS", "1")
	w := newWorld(t)
	w.favour()
	v := newVictims(w)
	from, slow := w.add(onTAP), w.add(onPacket)
	w.reach(from, slow.ip4)
	w.Run(w.host, "tc", "qdisc", "add", "dev", slow.hostEnd(), "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "50ms")
	before := w.port(slow)
	full, sent, took := before.Drops["tx-queue-full"], before.TxFrames, w.port(from).RxFrames
	v.keep(&glut{"slow receiver", from.ns, from.ifname, etherFrame(w.mac(slow), w.mac(from), "flood"),
		func() uint64 { return w.port(from).RxFrames }, leastTaken})
	took = w.port(from).RxFrames - took
	p := w.port(slow)
	// How many are sent goes by the time that it took.
	if full, sent = p.Drops["tx-queue-full"]-full, p.TxFrames-sent; full < took/2 || sent > took/2 {
		t.Errorf("of %d frames %d were dropped because the queue was full, and %d sent", took, full, sent)
	}
	w.NoError(v.stream.finish())
}

// A flood from a peer, by the underlay's socket, leaves the others their shares.
func TestABusyTunnelLeavesTheOthersTheirShares(t *testing.T) {
	t.Setenv("SWD_WORKERS", "1")
	c := newCluster(t)
	n := c.node(1, "--vtep", v4(1))
	far := c.plug(2)
	n.peer("far", v4(2))
	n.favour()
	v := newVictims(n.world)
	sink := n.add(onTAP)
	n.reach(sink, v.client.ip4)
	outer, err := far.MAC("u0")
	c.NoError(err)
	inner := etherFrame(n.mac(sink), "02:00:00:00:99:01", "flood")
	to, err := n.host.MAC("u0")
	c.NoError(err)
	frame := n.build(
		&layers.Ethernet{SrcMAC: outer, DstMAC: to, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(v4(2)), DstIP: net.ParseIP(v4(1))},
		&layers.UDP{SrcPort: 50000, DstPort: 4789},
		gopacket.Payload(vxlan(validVNI, vni, inner)))
	v.keep(&glut{"tunnel", far, "u0", frame, func() uint64 {
		p, err := n.peerState("far")
		n.NoError(err)
		return p.RxFrames
	}, leastOutside})
	c.NoError(v.stream.finish())
}

// So does one from outside, by a NAT's uplink: datagrams to a published port.
func TestABusyUplinkLeavesTheOthersTheirShares(t *testing.T) {
	t.Setenv("SWD_WORKERS", "1")
	modes(t, func(w *natWorld) {
		w.favour()
		v := newVictims(w.world)
		sink := w.container()
		w.reach(sink, server4)
		w.publish("9000/udp", sink.name+":9000")
		frame := w.build(
			&layers.Ethernet{SrcMAC: w.macOf(w.router, "isp0"), DstMAC: w.uplinkMAC(), EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(server4), DstIP: net.ParseIP(w.ext4)},
			&layers.UDP{SrcPort: 40000, DstPort: 9000},
			gopacket.Payload(make([]byte, 18)))
		v.keep(&glut{"uplink", w.router, "isp0", frame, func() uint64 { return w.port(sink).TxFrames }, leastOutside})
		w.NoError(v.stream.finish())
	})
}
