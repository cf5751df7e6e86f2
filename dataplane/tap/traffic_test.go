package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// relay carries frames between two ports of one queue until it is stopped,
// and notes the longest.
type relay struct {
	longest atomic.Int64
	stop    atomic.Bool
	done    sync.WaitGroup
}

func startRelay(t *lab.T, a, b *Port) *relay {
	r := &relay{}
	r.done.Go(func() {
		fds := []unix.PollFd{{Fd: int32(a.FD(0)), Events: unix.POLLIN}, {Fd: int32(b.FD(0)), Events: unix.POLLIN}}
		batch := dataplane.NewBatch(0)
		for !r.stop.Load() {
			_, _ = unix.Poll(fds, 10)
			for _, way := range [][2]*Port{{a, b}, {b, a}} {
				batch.Reset()
				way[0].Pull(batch)
				for i := range batch.N {
					r.longest.Store(max(r.longest.Load(), int64(batch.Frames[i].Len)))
				}
				way[1].Push(batch)
			}
		}
	})
	t.Cleanup(r.end)
	return r
}

func (r *relay) end() {
	r.stop.Store(true)
	r.done.Wait()
}

// watch notes how long the frames are that arrive at an interface.
type watch struct {
	mu   sync.Mutex
	most map[uint16]int // By EtherType.
}

func startWatch(t *lab.T, s socket) *watch {
	w := &watch{most: map[uint16]int{}}
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		b := make([]byte, wire.VNetHdrLen+wire.EthHdrLen)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := unix.Poll(fds, 10); err != nil || fds[0].Revents == 0 {
				continue
			}
			n, _, err := unix.Recvfrom(s.fd, b, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			if err != nil {
				continue
			}
			etherType := binary.BigEndian.Uint16(b[wire.VNetHdrLen+12:])
			w.mu.Lock()
			w.most[etherType] = max(w.most[etherType], n-wire.VNetHdrLen)
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() { close(done); reader.Wait() })
	return w
}

func (w *watch) longest(etherType uint16) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most[etherType]
}

// TestTwoContainers has kernels talk through two ports:
//
//	a: t0 198.18.0.1 ── port ── relay ── port ── b: t0 198.18.0.2
func TestTwoContainers(t *testing.T) {
	l := lab.New(t)
	a, b := l.NewNetNS("a"), l.NewNetNS("b")
	c := Config{Name: "t0", GROMax: BigTCP}
	pa, pb := openIn(l, a, c), openIn(l, b, c)
	r := startRelay(l, pa, pb)
	l.NoError(a.AddAddress("t0", "198.18.0.1/24", "2001:db8::1/64"))
	l.NoError(b.AddAddress("t0", "198.18.0.2/24", "2001:db8::2/64"))
	for _, addr := range []string{"198.18.0.2", "2001:db8::2"} {
		l.Eventually(patience, "pings are answered", func() error {
			_, err := a.Run(t.Context(), "ping", "-c1", "-W1", addr)
			return err
		})
	}

	arrived := startWatch(l, openSocket(l, b, "t0"))
	for _, addr := range []string{"198.18.0.2:7000", "[2001:db8::2]:7000"} {
		pass(l, a, b, addr)
	}
	awaitJoined(l, arrived, func() { pass(l, a, b, "198.18.0.2:7000") })
	if n := r.longest.Load(); n < 20000 {
		t.Errorf("the longest frame had %d bytes: TCP's offload didn't pass", n)
	}
}

// awaitJoined sends until a packet has arrived that is longer than any frame.
// Whether frames wait for the relay, to be joined, is the scheduler's to say: a
// few times at least, however long they take.
func awaitJoined(t *lab.T, w *watch, send func()) {
	t.Helper()
	const least = 5
	begin := time.Now()
	for sent := 0; w.longest(wire.EtherTypeIPv4) <= dataplane.MaxFrame; sent++ {
		if sent >= least && time.Since(begin) > patience {
			t.Fatalf("the longest frame that arrived has %d bytes: none were joined", w.longest(wire.EtherTypeIPv4))
		}
		send()
	}
}

// pass sends 4 MB over TCP and compares what arrives.
func pass(t *lab.T, from, to *lab.NetNS, addr string) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	got, err := transfer(from, to, addr, sent)
	t.NoError(err)
	if !bytes.Equal(got, sent) {
		t.Errorf("TCP to %s: %d bytes arrived that aren't the %d sent", addr, len(got), len(sent))
	}
}

// transfer sends data over TCP from a namespace to an address in another, and
// returns what arrived.
func transfer(from, to *lab.NetNS, addr string, data []byte) ([]byte, error) {
	var ln net.Listener
	if err := to.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
		return nil, err
	}
	defer func() { _ = ln.Close() }()
	sendErr := make(chan error, 1)
	go func() {
		sendErr <- from.Do(func() error {
			c, err := net.DialTimeout("tcp", addr, patience)
			if err != nil {
				return errors.Join(err, ln.Close()) // Nobody else ends Accept.
			}
			_, err = c.Write(data)
			return errors.Join(err, c.Close())
		})
	}()
	c, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	got, err := io.ReadAll(c)
	return got, errors.Join(err, <-sendErr)
}

// TestRepliesComeToTheQueueThatAsked holds the kernel's steering against what
// doc.go says of it: a UDP service in the namespace answers each flow, and the
// answers come to the worker that pushed the question.
func TestRepliesComeToTheQueueThatAsked(t *testing.T) {
	const workers, flows, service = 2, 16, 7
	// The kernel forgets a flow that has been silent for 3 s (TUN_FLOW_EXPIRE in
	// drivers/net/tun.c): on a machine that stands still the answer may be as late.
	const remembered = 2 * time.Second
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Queues: workers})
	l.NoError(ns.SetMAC("t0", macB))
	l.NoError(ns.AddAddress("t0", "198.18.0.1/24"))
	link, err := ns.Link("t0")
	l.NoError(err)
	l.NoError(ns.Netlink().NeighAdd(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.IPv4(198, 18, 0, 2), HardwareAddr: macA,
	}))
	var conn *net.UDPConn
	l.NoError(ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(fmt.Sprintf("198.18.0.1:%d", service))))
		return err
	}))
	var echo sync.WaitGroup
	echo.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	t.Cleanup(func() { _ = conn.Close(); echo.Wait() })

	// ask sends a question and returns the worker that gets the answer.
	ask := func(worker int, port uint16) int {
		p.Push(batchOf(worker, transport(wire.ProtoUDP, port, service, 100)))
		for begin := time.Now(); time.Since(begin) < patience; runtime.Gosched() {
			for w := range workers {
				b := dataplane.NewBatch(w)
				p.Pull(b)
				for i := range b.N {
					if f := b.Frames[i].Bytes(); len(f) >= 38 && binary.BigEndian.Uint16(f[36:]) == port {
						return w
					}
				}
			}
		}
		t.Fatalf("no answer to port %d within %v", port, patience)
		return 0
	}
	for i := range flows {
		worker, port := i%workers, uint16(10000+i)
		for again := true; again; {
			begin := time.Now()
			// The kernel notes the queue after it has delivered the question: the
			// first answer may be faster.
			ask(worker, port)
			got, took := ask(worker, port), time.Since(begin)
			if again = got != worker && took >= remembered; got != worker && !again {
				t.Errorf("worker %d asked from port %d and worker %d got the answer", worker, port, got)
			}
		}
	}
}

func TestFaultAndRecovery(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", Queues: 2})
	other := openIn(l, ns, Config{Name: "t1"})
	in := dataplane.NewBatch(1)
	out := batchOf(1, frame{data: plain(60, 1)}, frame{data: plain(60, 2)}, frame{data: plain(60, 3)})
	down := func() uint64 { return p.Counters().Totals().Drops[dataplane.TxDown] }

	if err := p.Fault(); err != nil {
		t.Errorf("Fault of a port that works: %v", err)
	}
	for range 2 {
		before := down()
		l.NoError(ns.SetUp("t0", false))
		p.Push(out)
		if err := p.Fault(); !errors.Is(err, ErrDown) || down() != before+3 {
			t.Errorf("link down: Fault %v, %d frames counted as dropped; want ErrDown and 3", err, down()-before)
		}
		l.NoError(ns.SetUp("t0", true))
		if err := p.Fault(); err != nil {
			t.Errorf("link up again: Fault %v", err)
		}
		exchange(l, ns, p, "t0")
	}

	before := down()
	l.NoError(ns.DeleteLink("t0"))
	in.Reset()
	p.Pull(in)
	p.Push(out)
	if err := p.Fault(); !errors.Is(err, ErrGone) || down() != before+3 || in.N != 0 || in.More {
		t.Errorf("deleted: Fault %v, %d dropped, pulled %d; want ErrGone, 3, none", err, down()-before, in.N)
	}
	exchange(l, ns, other, "t1")
	l.NoError(p.Close())
	p = openIn(l, ns, Config{Name: "t0", Queues: 2})
	exchange(l, ns, p, "t0")
}

// What the container sends faster than the worker reads, the kernel drops
// before Heddle sees it; the sender is told, and it is counted all the same.
func TestDroppedCountsWhatTheQueueCouldNotHold(t *testing.T) {
	const sent = 3000 // The queue of a TAP holds 1,000 frames (txqueuelen).
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	s := openSocket(l, ns, "t0")
	refused := 0
	for range sent {
		if err := s.send(plain(60, 1), wire.VNetHdr{}); errors.Is(err, unix.ENOBUFS) {
			refused++
		} else {
			l.NoError(err)
		}
	}
	p.Refresh()
	dropped := p.Dropped()
	if refused != int(dropped) {
		t.Errorf("the sender was told of %d frames that were dropped, of %d", refused, dropped)
	}
	pulled := 0
	for b := dataplane.NewBatch(0); ; {
		b.Reset()
		if p.Pull(b); b.N == 0 {
			break
		}
		pulled += b.N
	}
	if dropped == 0 || pulled+int(dropped) != sent {
		t.Errorf("of %d frames %d were pulled and %d dropped", sent, pulled, dropped)
	}
	l.NoError(p.Delete())
	p.Refresh()
	if n := p.Dropped(); n != dropped {
		t.Errorf("a deleted port dropped %d, before %d", n, dropped)
	}
}
