package underlay

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
)

// patience is how long a test waits for something that takes microseconds, on a
// machine that may stand still for seconds.
const patience = 20 * time.Second

// port is where the underlays of tests receive.
const port = 4789

// netns is a network namespace of a test's own.
type netns struct {
	tb   testing.TB
	lab  *lab.T
	ns   *lab.NetNS
	name string
}

func newNetNS(tb testing.TB) netns {
	tb.Helper()
	l := lab.New(tb)
	ns := l.NewNetNS("underlay")
	return netns{tb, l, ns, ns.Name}
}

// exec runs a program in the namespace, its name and arguments being the words of args.
func (n netns) exec(args string) {
	n.tb.Helper()
	n.lab.Run(n.ns, strings.Fields(args)...)
}

// ip runs ip(8) in the namespace with the words of args.
func (n netns) ip(args string) {
	n.tb.Helper()
	n.exec("ip " + args)
}

// do runs f on a thread in the namespace.
func (n netns) do(f func()) {
	n.tb.Helper()
	n.lab.NoError(n.ns.Do(func() error { f(); return nil }))
}

// tryOpen opens an underlay in the namespace, and closes it when the test ends.
func (n netns) tryOpen(c Config) (u *Underlay, err error) {
	n.tb.Helper()
	n.do(func() { u, err = Open(c) })
	if err == nil {
		n.tb.Cleanup(func() { must(n.tb, u.Close()) })
	}
	return u, err
}

func (n netns) open(c Config) *Underlay {
	n.tb.Helper()
	u, err := n.tryOpen(c)
	must(n.tb, err)
	return u
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Two hosts on a wire:
//
//	a (192.0.2.1, 2001:db8::1) v0 ──── v0 b (192.0.2.2, 2001:db8::2)
type wired struct {
	tb   testing.TB
	a, b netns
}

func newWired(tb testing.TB) *wired {
	tb.Helper()
	w := &wired{tb, newNetNS(tb), newNetNS(tb)}
	w.a.ip("link add v0 mtu 1500 type veth peer name v0 netns " + w.b.name)
	for i, n := range []netns{w.a, w.b} {
		n.ip(fmt.Sprintf("addr add 192.0.2.%d/24 dev v0", i+1))
		n.ip(fmt.Sprintf("addr add 2001:db8::%d/64 dev v0 nodad", i+1))
		n.ip("link set v0 up")
	}
	return w
}

// address returns that of host 1 or 2 with the port of underlays.
func address(v6 bool, host byte) netip.AddrPort {
	a := netip.AddrFrom4([4]byte{192, 0, 2, host})
	if v6 {
		a = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: host})
	}
	return netip.AddrPortFrom(a, port)
}

// end is an underlay and what it takes to use it from a test.
type end struct {
	tb testing.TB
	*Underlay
	box Outbox
	to  *Dest
}

// pair opens an underlay on each host of a wire by which packets pass.
func (w *wired) pair(v6 bool, c Config) (a, b *end) {
	w.tb.Helper()
	c.Local = address(v6, 1)
	a = &end{tb: w.tb, Underlay: w.a.open(c), to: dest(w.tb, address(v6, 2))}
	c.Local = address(v6, 2)
	b = &end{tb: w.tb, Underlay: w.b.open(c), to: dest(w.tb, address(v6, 1))}
	w.connected(v6)
	return a, b
}

func dest(tb testing.TB, to netip.AddrPort) *Dest {
	tb.Helper()
	d, err := NewDest(to)
	must(tb, err)
	return d
}

// connected waits until packets pass both ways: carriers and neighbours take their
// time. It sends no datagrams, since those that wait for a neighbour may come after
// what is sent later.
func (w *wired) connected(v6 bool) {
	w.tb.Helper()
	w.a.lab.Eventually(patience, "packets pass", func() error {
		_, err := w.a.ns.Run(w.tb.Context(), "ping", "-c1", "-W1", address(v6, 2).Addr().String())
		return err
	})
}

// send sends datagrams of one flow to the other end, each cut in two pieces at
// a place of its own, and returns what became of the messages.
func (e *end) send(entropy uint16, tos uint8, datagrams ...[]byte) (drops []dataplane.Drop) {
	e.tb.Helper()
	for i, d := range datagrams {
		cut := i % (len(d) + 1)
		if e.box.Add(e.to, entropy, tos, d[:cut], d[cut:]) == nil {
			drops = append(drops, e.flush()...)
			e.box.Add(e.to, entropy, tos, d[:cut], d[cut:])
		}
	}
	return append(drops, e.flush()...)
}

func (e *end) flush() (drops []dataplane.Drop) {
	msgs := e.box.Messages()
	for i := range msgs {
		msgs[i].Drop = dataplane.DropCount // Send sets it in any case.
	}
	e.Send(0, msgs)
	for i := range msgs {
		drops = append(drops, msgs[i].Drop)
	}
	e.box.Reset()
	return drops
}

// names returns what became of messages, in words.
func names(drops []dataplane.Drop) string {
	words := make([]string, len(drops))
	for i, d := range drops {
		words[i] = d.String()
	}
	return strings.Join(words, " ")
}

// sends is send for what is to go without a drop.
func (e *end) sends(entropy uint16, tos uint8, datagrams ...[]byte) {
	e.tb.Helper()
	for i, d := range e.send(entropy, tos, datagrams...) {
		if d != dataplane.None {
			e.tb.Fatalf("message %d: %s", i, d)
		}
	}
}

// got is a received datagram with what came beside it.
type got struct {
	data []byte
	src  Addr
	tos  uint8
	of   int // How many the kernel gave in one.
}

// recv receives datagrams on any worker until there are n.
func (e *end) recv(n int) (all []got) {
	e.tb.Helper()
	for len(all) < n {
		before := len(all)
		for worker := range e.receivers {
			all = append(all, e.recvOn(worker)...)
		}
		if len(all) == before && !e.waits() {
			e.tb.Fatalf("%d of %d datagrams arrived", len(all), n)
		}
	}
	return all
}

// waits waits until any worker has something.
func (e *end) waits() bool {
	fds := make([]unix.PollFd, 0, len(e.receivers))
	for worker := range e.receivers {
		fds = append(fds, unix.PollFd{Fd: int32(e.FD(worker)), Events: unix.POLLIN})
	}
	return poll(e.tb, fds, patience)
}

// recvOn receives what a worker's socket has.
func (e *end) recvOn(worker int) (all []got) {
	e.tb.Helper()
	for more := true; more; {
		var in []Datagram
		in, more = e.Recv(worker)
		for i := range in {
			d := &in[i]
			if d.Off < dataplane.Headroom || len(d.Buf)-d.Off < dataplane.MaxFrame || d.Len == 0 {
				e.tb.Fatalf("a datagram of %d bytes at %d of %d", d.Len, d.Off, len(d.Buf))
			}
			of := (d.Len + d.SegSize - 1) / d.SegSize
			for at := 0; at < d.Len; at += d.SegSize {
				n := min(d.SegSize, d.Len-at)
				all = append(all, got{bytes.Clone(d.Buf[d.Off+at:][:n]), d.Src, d.TOS, of})
			}
		}
	}
	return all
}

// readable waits until a descriptor has something, and tells whether it has.
func readable(tb testing.TB, fd int, wait time.Duration) bool {
	tb.Helper()
	return poll(tb, []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait)
}

func poll(tb testing.TB, fds []unix.PollFd, wait time.Duration) bool {
	tb.Helper()
	for {
		n, err := unix.Poll(fds, int(wait.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		must(tb, err)
		return n > 0
	}
}
