package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"heddle/bench/lab"
	"heddle/bench/load"
	"heddle/dataplane/wire"
)

// bigTable is how many connections TestNATBigTable makes, at least: bigHosts
// addresses have as many each.
const (
	bigTable = 1_000_000
	bigHosts = 100
)

// A million connections are listed, counted and flushed while packets go on:
// they take as long as ever, and don't get lost.
//
//	container tap1: datagrams of a million flows ──┐                    ┌─ 203.0.113.0/24, dropped
//	container tap2: asks and is answered ──────────┴ swd ── uplink ── router ── server: UDP echo
func TestNATBigTable(t *testing.T) {
	t.Setenv("SWD_MAX_CONNS", itoa(bigTable*5/4))
	w := newNATWorld(t, own)
	w.settings("udp_one_way: 600s")
	filler, asking := w.container(), w.container()
	w.Run(w.router, "ip", "route", "add", "blackhole", nowhere)
	w.udpEcho(w.server, 53)
	w.reach(filler, server4)
	asker := w.dialUDP(asking.ns, server4, 53)
	w.Eventually(patience, "the echo answers", func() error { _, err := asker.ask(time.Second); return err })
	w.favour()
	began := time.Now()
	w.fill(filler)
	took := time.Since(began)
	made := w.counted()
	t.Logf("%d connections in %.1f s", made, took.Seconds())

	quiet := w.waits(asker, func() {
		if got := w.counted(); got < bigTable {
			t.Errorf("conn count says %d", got)
		}
	})
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"conn ls -o json", func() error { return w.lists(made, made/1000, `"state"`, "-o", "json", "conn", "ls") }},
		{"conn ls --src", func() error {
			return w.lists(made/bigHosts, made/bigHosts/10, "^udp", "conn", "ls", "--src", "198.18.0.101")
		}},
		{"conn flush --src", func() error {
			w.ctl("conn", "flush", "--src", "198.18.0.101")
			if left, want := w.counted(), made-made/bigHosts; left > want+want/1000 || left < want-want/1000 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		}},
		{"conn flush --dst", func() error {
			w.ctl("conn", "flush", "--dst", nowhere)
			if left := w.counted(); left > 10 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		}},
	} {
		var took time.Duration
		during := w.waits(asker, func() {
			began := time.Now()
			if err := c.do(); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			took = time.Since(began)
		})
		t.Logf("%s took %.2f s; answers took %v, before %v", c.what, took.Seconds(), during, quiet)
		// Queues of the kernel that all namespaces share may overflow.
		if during.lost > 1+during.asked/10_000 || during.median > max(10*quiet.median, 5*time.Millisecond) {
			t.Errorf("%s disturbs others: answers took %v, before %v", c.what, during, quiet)
		}
	}
	w.reach(filler, server4)
}

// fill makes bigTable connections from a container's interface.
func (w *natWorld) fill(s *station) {
	w.Helper()
	gate := w.neighbour(s.ns, s.ifname, gate4)
	frame := w.build(&layers.Ethernet{SrcMAC: w.hardware(s), DstMAC: gate, EthernetType: layers.EthernetTypeIPv4},
		w.ip(layers.IPProtocolUDP, "198.18.0.100", "203.0.113.1"), &layers.UDP{SrcPort: 5000}, gopacket.Payload(make([]byte, 18)))
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.ns.Do(func() error {
			_, err := load.Flood(ctx, s.ifname, frame, func(b []byte, n uint64) {
				host, to := n%bigHosts, n/bigHosts
				ip := b[etherLen:]
				ip[15], ip[19] = byte(100+host), byte(1+to%250)
				binary.BigEndian.PutUint16(ip[22:], uint16(1000+to/250))
				ip[10], ip[11], ip[26], ip[27] = 0, 0, 0, 0 // UDP without a checksum.
				binary.BigEndian.PutUint16(ip[10:], ^wire.Fold(wire.Sum(ip[:20], 0)))
			}, 200_000)
			return err
		})
	}()
	w.Eventually(120*time.Second, "a million connections", func() error {
		if n := w.counted(); n < bigTable {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	cancel()
	w.NoError(<-ended)
}

// counted is what conn count says.
func (w *natWorld) counted() int {
	w.Helper()
	var count struct{ Count int }
	w.NoError(w.ask(&count, "conn", "count"))
	return count.Count
}

// lists runs swctl, which has to print a line that fits for each connection:
// want of them, or up to slack more or less.
func (w *natWorld) lists(want, slack int, fits string, args ...string) error {
	ctx, cancel := context.WithTimeout(w.Context(), 60*time.Second)
	defer cancel()
	bin, err := lab.Build()
	if err != nil {
		return err
	}
	command := fmt.Sprintf("%s --socket %s %s | grep -c '%s'", bin.Swctl, w.swd.Socket, strings.Join(args, " "), fits)
	out, err := w.Lab.Run(ctx, "sh", "-c", command)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscan(out.Stdout, &n); err != nil {
		return err
	}
	if n < want-slack || n > want+slack {
		return fmt.Errorf("%d lines for %d connections", n, want)
	}
	return nil
}

// waits are how long answers took.
type waits struct {
	asked, lost   int
	median, worst time.Duration
}

func (v waits) String() string {
	return fmt.Sprintf("%v (median), %v (worst of %d), %d lost", v.median, v.worst, v.asked, v.lost)
}

// waits asks and asks while something is done.
func (w *natWorld) waits(asker udpClient, done func()) (v waits) {
	w.Helper()
	stop, ended := make(chan struct{}), make(chan struct{})
	var took []time.Duration
	go func() {
		defer close(ended)
		for {
			began := time.Now()
			if _, err := asker.ask(3 * time.Second); err != nil {
				v.lost++
			}
			took = append(took, time.Since(began))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	done()
	close(stop)
	<-ended
	slices.Sort(took)
	v.asked, v.median, v.worst = len(took), took[len(took)/2], took[len(took)-1]
	return v
}
