package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/bench/load"
	"heddle/dataplane/wire"
)

const (
	floodRate = 100_000 // SYNs a second.
	floodTime = 2 * time.Second
	// floodConns is how many connections swd may hold: a flood has more.
	floodConns = 100_000
	// nowhere is where the router drops everything.
	nowhere = "203.0.113.0/24"
)

// During floods of SYNs an established connection keeps half of its rate, and
// within a second after one new connections are made: when a container floods by
// its own address, when it takes all addresses of its subnet, and when somebody
// outside floods a published port with addresses that he doesn't have. Each
// flood is of twice as many connections as swd may hold.
//
//	container tap1: flood ──────────┐                    ┌─ 203.0.113.0/24, dropped
//	container tap2: web server on 80┤ swd ── uplink ── router: flood
//	container tap3: a TCP stream ───┘                    └─ server, which takes it
func TestNATSYNFlood(t *testing.T) {
	t.Setenv("SWD_MAX_CONNS", itoa(floodConns))
	modes(t, func(w *natWorld) {
		attacker, web, bystander := w.container(), w.container(), w.container()
		w.Run(w.router, "ip", "route", "add", "blackhole", nowhere)
		w.webServer(w.server, "server", 80)
		w.webServer(web.ns, "web", 80)
		w.publish("8080/tcp", web.name+":80")
		for _, s := range []*station{attacker, web, bystander} {
			w.reach(s, server4)
		}
		w.asks(w.server, w.ext4, 8080, "web")
		w.favour()
		stream := w.startBulk(bystander.ns, w.server, server4)

		gate := w.neighbour(attacker.ns, attacker.ifname, gate4)
		up := w.uplinkMAC()
		inner := w.syn(w.hardware(attacker), gate, attacker.ip4, "203.0.113.1", 80)
		outer := w.syn(w.macOf(w.router, "isp0"), up, "203.0.113.1", w.ext4, 8080)
		news := []newcomer{{"another container", bystander.ns, server4, 80}, {"a client outside", w.server, w.ext4, 8080}}
		for _, f := range []flood{
			{"from a container", attacker.ns, attacker.ifname, inner, func(b []byte, n uint64) {
				varySYN(b, varyDst, uint32(n/60_000), uint16(1024+n%60_000))
			}},
			{"from all of a subnet", attacker.ns, attacker.ifname, inner, func(b []byte, n uint64) {
				varySYN(b, varySrc, uint32(100+n%100), uint16(1024+n/100%60_000))
			}},
			{"from outside", w.router, "isp0", outer, func(b []byte, n uint64) {
				varySYN(b, varySrc, uint32(1+n%250), uint16(1024+n/250%60_000))
			}},
		} {
			w.TB.(*testing.T).Run(f.name, func(t *testing.T) { w.in(t).survives(&f, stream, news) })
		}
		w.NoError(stream.finish())
	})
}

// flood is where a flood of SYNs comes from and what it is of.
type flood struct {
	name   string
	from   *lab.NetNS
	ifname string
	frame  []byte
	vary   func(frame []byte, number uint64)
}

// floodTries is how often a flood is tried: what else runs on the machine
// takes from a stream, too.
const floodTries = 10

// survives fails the test if a stream doesn't keep half of its rate during a
// flood, or somebody doesn't connect within a second after it.
func (w *natWorld) survives(f *flood, b *bulk, news []newcomer) {
	w.Helper()
	var before, during float64
	var took time.Duration
	for range floodTries {
		before = b.rate(floodTime / 2)
		created := w.created()
		ctx, cancel := context.WithTimeout(w.Context(), floodTime)
		var sent load.Sent
		ended := make(chan error, 1)
		go func() {
			ended <- f.from.Do(func() (err error) {
				sent, err = load.Flood(ctx, f.ifname, f.frame, f.vary, floodRate)
				return err
			})
		}()
		during = b.rate(floodTime * 9 / 10)
		w.NoError(<-ended)
		cancel()
		over := time.Now()
		for _, n := range news {
			w.Eventually(patience, n.who+" connects", func() error {
				return w.connects(n.from, n.address, n.port, 200*time.Millisecond)
			})
		}
		took = time.Since(over)
		offered := float64(sent.Frames) / sent.Seconds
		w.Logf("%.0f SYN/s, %d connections; the stream had %.2f Gb/s and kept %.2f; new connections after %v",
			offered, w.created()-created, gbits(before), gbits(during), took.Round(time.Millisecond))
		if offered > floodRate*9/10 && during >= before/2 && took <= time.Second {
			return
		}
		w.Eventually(patience, "the stream recovers", func() error {
			if r := b.rate(floodTime / 10); r < before/2 {
				return fmt.Errorf("it has %.2f Gb/s", gbits(r))
			}
			return nil
		})
	}
	w.Errorf("the stream had %.2f Gb/s and kept %.2f; new connections after %v", gbits(before), gbits(during), took)
}

// newcomer is who connects after a flood.
type newcomer struct {
	who     string
	from    *lab.NetNS
	address string
	port    int
}

// syn is the first segment of a connection.
func (w *natWorld) syn(from, to net.HardwareAddr, src, dst string, port int) []byte {
	w.Helper()
	return w.build(
		&layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)},
		&layers.TCP{SrcPort: 1024, DstPort: layers.TCPPort(port), SYN: true, Window: 64240, Seq: 1})
}

// Which of the addresses of a SYN varySYN changes.
const (
	varySrc = etherLen + 12
	varyDst = etherLen + 16
)

// varySYN changes an address's last byte and the source port of a SYN, and its
// checksums as they have to be.
func varySYN(frame []byte, address int, last uint32, port uint16) {
	ip := frame[etherLen:]
	tcp := ip[20:]
	frame[address+3] = byte(last)
	binary.BigEndian.PutUint16(tcp, port)
	ip[10], ip[11], tcp[16], tcp[17] = 0, 0, 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^wire.Fold(wire.Sum(ip[:20], 0)))
	pseudo := wire.Sum(ip[12:20], wire.ProtoTCP+20)
	binary.BigEndian.PutUint16(tcp[16:], ^wire.Fold(wire.Sum(tcp[:20], pseudo)))
}

// in is the world for a subtest, which fails in its own name.
func (w *natWorld) in(t *testing.T) *natWorld {
	inner := *w
	inner.world = w.within(t)
	return &inner
}

// favour has swd and the test run before what else runs on the machine until the
// test ends: it is about what a flood takes from a stream, not about that.
func (w *world) favour() {
	w.Helper()
	self := os.Getpid()
	w.NoError(setNice(w.swd.Process().PID(), -20))
	w.NoError(setNice(self, -20))
	w.Cleanup(func() { w.NoError(setNice(self, 0)) })
}

// setNice sets the nice value of a process's threads, which those that they make
// inherit.
func setNice(pid, nice int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // It has ended meanwhile.
			return fmt.Errorf("nice value of thread %s: %w", thread.Name(), err)
		}
	}
	return nil
}

// created is how many connections swd has tracked since it started.
func (w *natWorld) created() uint64 {
	w.Helper()
	var count struct{ Created uint64 }
	w.NoError(w.ask(&count, "conn", "count"))
	return count.Created
}

// connects makes a TCP connection, or fails after bound.
func (w *world) connects(from *lab.NetNS, address string, port int, bound time.Duration) error {
	return from.Do(func() error {
		d := net.Dialer{Timeout: bound}
		c, err := d.DialContext(w.Context(), "tcp", net.JoinHostPort(address, itoa(port)))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// bulkRate is what a bulk connection sends if it can, in bytes a second: what a
// gigabit link carries. It is far from what swd can, so that a test measures
// what a flood takes and not what else runs on the machine.
const bulkRate = 1e9 / 8

// bulk is a TCP connection by which one end sends.
type bulk struct {
	out, in         net.Conn
	sender, counter chan error
	got             atomic.Int64
}

// startBulk makes a bulk connection that lives until finish or the test's end.
func (w *world) startBulk(from, to *lab.NetNS, address string) *bulk {
	w.Helper()
	var l net.Listener
	w.NoError(to.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	}))
	defer func() { w.NoError(l.Close()) }()
	b := &bulk{sender: make(chan error, 1), counter: make(chan error, 1)}
	w.NoError(from.Do(func() (err error) {
		b.out, err = dial(w.Context(), l.Addr().(*net.TCPAddr))
		return err
	}))
	var err error
	b.in, err = l.Accept()
	w.NoError(err)
	w.Cleanup(func() { _, _ = b.out.Close(), b.in.Close() })
	go func() {
		var chunk [64 << 10]byte
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		const each, most = time.Duration(len(chunk) * 1e9 / bulkRate), 100 * time.Millisecond
		for due := time.Now(); ; due = due.Add(each) {
			for time.Until(due) > 0 {
				<-tick.C
			}
			if late := time.Since(due); late > most {
				due = due.Add(late - most) // What was missed long ago isn't made up for.
			}
			if _, err := b.out.Write(chunk[:]); err != nil {
				b.sender <- err
				return
			}
		}
	}()
	go func() {
		chunk := make([]byte, 256<<10)
		for {
			n, err := b.in.Read(chunk)
			b.got.Add(int64(n))
			if err != nil {
				b.counter <- err
				return
			}
		}
	}()
	return b
}

// rate measures for a while, in bytes a second.
func (b *bulk) rate(d time.Duration) float64 {
	began, got := time.Now(), b.got.Load()
	<-time.After(d)
	return float64(b.got.Load()-got) / time.Since(began).Seconds()
}

// finish ends the connection, which has to have lived until now.
func (b *bulk) finish() error {
	got := b.got.Load()
	select {
	case err := <-b.sender:
		return fmt.Errorf("the stream broke after %d bytes: %w", got, err)
	case err := <-b.counter:
		return fmt.Errorf("the stream broke after %d bytes: %w", got, err)
	default:
	}
	if err := b.out.Close(); err != nil {
		return err
	}
	if err := <-b.sender; !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("the stream's sender: %w", err)
	}
	if err := <-b.counter; !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream's end: %w", err)
	}
	return b.in.Close()
}

func gbits(bytes float64) float64 { return bytes * 8 / 1e9 }

// neighbour is the MAC that a namespace has found for an address.
func (w *world) neighbour(n *lab.NetNS, ifname, address string) net.HardwareAddr {
	w.Helper()
	link, err := n.Link(ifname)
	w.NoError(err)
	all, err := n.Netlink().NeighList(link.Attrs().Index, 0)
	w.NoError(err)
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().String() == address && len(a.HardwareAddr) == 6 {
			return a.HardwareAddr
		}
	}
	w.Fatalf("%s doesn't know the MAC of %s", n.Name, address)
	return nil
}

// uplinkMAC is the MAC that the uplink answers by.
func (w *natWorld) uplinkMAC() net.HardwareAddr {
	w.Helper()
	var u struct{ MAC string }
	w.NoError(w.ask(&u, "uplink", "show", "wan"))
	mac, err := net.ParseMAC(u.MAC)
	w.NoError(err)
	return mac
}

func (w *world) macOf(n *lab.NetNS, ifname string) net.HardwareAddr {
	w.Helper()
	mac, err := n.MAC(ifname)
	w.NoError(err)
	return mac
}
