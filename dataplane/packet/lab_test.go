package packet

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// patience is how long a test waits for something that takes microseconds, on a
// machine that may stand still for seconds.
const patience = 20 * time.Second

// netns is a network namespace of a test's own.
type netns struct {
	tb   testing.TB
	lab  *lab.T
	ns   *lab.NetNS
	name string
}

// newNetNS makes a namespace that says nothing of its own accord: no IPv6, so
// no neighbour discovery, on interfaces made later.
func newNetNS(tb testing.TB) netns {
	tb.Helper()
	l := lab.New(tb)
	ns := l.NewNetNS("packet")
	l.NoError(ns.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	return netns{tb, l, ns, ns.Name}
}

// exec runs a program in the namespace and returns what it prints.
func (n netns) exec(args ...string) string {
	n.tb.Helper()
	return n.lab.Run(n.ns, args...)
}

// ip runs ip(8) in the namespace with the words of args.
func (n netns) ip(args string) string {
	n.tb.Helper()
	return n.exec(append([]string{"ip"}, strings.Fields(args)...)...)
}

// do runs f on a thread in the namespace.
func (n netns) do(f func()) {
	n.tb.Helper()
	n.lab.NoError(n.ns.Do(func() error { f(); return nil }))
}

// open opens a port in the namespace and closes it when the test ends.
func (n netns) open(c Config) *Port {
	n.tb.Helper()
	var p *Port
	var err error
	n.do(func() { p, err = Open(c) })
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { must(n.tb, p.Close()) })
	return p
}

// cable is a veth pair: a port on one end, a plain socket on the other.
//
//	near (Port) ──── far (peer)
type cable struct {
	netns
	port *Port
	far  *peer
}

func newCable(tb testing.TB, workers int) *cable {
	tb.Helper()
	c := &cable{netns: newNetNS(tb)}
	c.ip("link add near mtu 1500 type veth peer far")
	c.ip("link set near up")
	c.ip("link set far up")
	// Until the kernel has seen the carrier it swallows what is sent, without
	// an error (noop_enqueue in net/sched/sch_generic.c).
	near, far := newPeer(c.netns, "near"), newPeer(c.netns, "far")
	connected(tb, near, far)
	connected(tb, far, near)
	near.close()
	far.close()
	c.port = c.open(Config{Interface: "near", Workers: workers, Promiscuous: true})
	c.far = newPeer(c.netns, "far")
	return c
}

// sent is a frame as a peer sends or receives it.
type sent struct {
	frame []byte
	owes  wire.VNetHdr
}

// peer is the slow model of a port: a plain AF_PACKET socket with a
// virtio-net header and auxiliary data, a system call a frame.
type peer struct {
	tb testing.TB
	fd int
}

func newPeer(n netns, ifname string) *peer {
	p := &peer{tb: n.tb}
	var err error
	n.do(func() {
		var name [unix.IFNAMSIZ]byte
		copy(name[:], ifname)
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(n.tb, err)
		ifr, _ := unix.NewIfreq(ifname)
		must(n.tb, unix.IoctlIfreq(p.fd, unix.SIOCGIFINDEX, ifr))
		for _, opt := range []int{unix.PACKET_VNET_HDR, unix.PACKET_AUXDATA, unix.PACKET_IGNORE_OUTGOING} {
			must(n.tb, unix.SetsockoptInt(p.fd, unix.SOL_PACKET, opt, 1))
		}
		must(n.tb, unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
		must(n.tb, unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
		must(n.tb, unix.Bind(p.fd, &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32()), Protocol: 0x0300}))
	})
	n.tb.Cleanup(p.close)
	return p
}

func (p *peer) close() {
	if p.fd >= 0 {
		must(p.tb, unix.Close(p.fd))
	}
	p.fd = -1
}

// connected waits until the last of what from sends has arrived at to.
func connected(tb testing.TB, from, to *peer) {
	tb.Helper()
	start := time.Now()
	for i := uint16(0); time.Since(start) < patience; i++ {
		s := build(recipe{payload: 18, port: i})
		if from.send(s) != nil {
			continue
		}
		for got, ok := to.tryRecv(time.Millisecond); ok; got, ok = to.tryRecv(time.Millisecond) {
			if bytes.Equal(got.frame, s.frame) {
				return
			}
		}
	}
	tb.Fatal("no frame passes the veth pair")
}

// await polls a condition that the kernel brings about a little later.
func await(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for start := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}

// arrived waits until n frames lie in a worker's ring that are still to be
// pulled: a veth pair hands them over by the kernel's backlog, which may not be
// through with them when the sender's system call returns.
func arrived(tb testing.TB, p *Port, worker, n int) {
	tb.Helper()
	q := &p.queues[worker]
	for i := range n {
		hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&q.slots[(q.next+i)%len(q.slots)][0]))
		await(tb, "the ring has what was sent", func() bool { return atomic.LoadUint32(&hdr.Status)&unix.TP_STATUS_USER != 0 })
	}
}

// newTAP makes a TAP device: what the peer sends comes in by the interface.
func newTAP(n netns, ifname string) *peer {
	fd, err := n.ns.TAP(ifname)
	must(n.tb, err)
	p := &peer{tb: n.tb, fd: fd}
	n.tb.Cleanup(p.close)
	return p
}

// send sends a frame and returns the kernel's opinion.
func (p *peer) send(s sent) error {
	msg := make([]byte, wire.VNetHdrLen+len(s.frame))
	s.owes.Encode(msg)
	copy(msg[wire.VNetHdrLen:], s.frame)
	_, err := unix.Write(p.fd, msg)
	return err
}

// recv waits for the next frame and returns it with its tag put back.
func (p *peer) recv() sent {
	p.tb.Helper()
	s, ok := p.tryRecv(patience)
	if !ok {
		p.tb.Fatal("nothing arrived at the far end")
	}
	return s
}

func (p *peer) tryRecv(wait time.Duration) (s sent, ok bool) {
	p.tb.Helper()
	if !readable(p.tb, p.fd, wait) {
		return s, false
	}
	buf, oob := make([]byte, 1<<17), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(p.fd, buf, oob, 0)
	must(p.tb, err)
	s.owes.Decode(buf)
	s.frame = buf[wire.VNetHdrLen:n]
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(p.tb, err)
	for _, c := range cmsgs {
		// struct tpacket_auxdata: status, len, snaplen, mac, net, tci, tpid.
		if status := binary.NativeEndian.Uint32(c.Data); status&unix.TP_STATUS_VLAN_VALID != 0 {
			tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(c.Data[18:]))
			tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(c.Data[16:]))
			s.frame = bytes.Join([][]byte{s.frame[:12], tag, s.frame[12:]}, nil)
			if s.owes.Partial() {
				s.owes.CsumStart += 4
			}
		}
	}
	return s, true
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// readable waits until a descriptor has something, and tells whether it has.
func readable(tb testing.TB, fd int, wait time.Duration) bool {
	tb.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(wait.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		must(tb, err)
		return n > 0
	}
}

// pull pulls until n frames have come and nothing more is there, and returns
// copies.
func pull(tb testing.TB, p *Port, worker, n int) (got []sent) {
	tb.Helper()
	b := dataplane.NewBatch(worker)
	for len(got) < n || b.More {
		if !b.More && !readable(tb, p.FD(worker), patience) {
			tb.Fatalf("%d of %d frames arrived; drops: %v", len(got), n, drops(p))
		}
		b.Reset()
		p.Pull(b)
		for i := range b.N {
			f := &b.Frames[i]
			if f.Off < dataplane.Headroom {
				tb.Fatalf("%d bytes of headroom", f.Off)
			}
			got = append(got, sent{bytes.Clone(f.Bytes()), f.Owes})
		}
	}
	return got
}

// batchOf returns a batch of copies of frames, all selected, in buffers of
// their own.
func batchOf(worker int, frames ...sent) *dataplane.Batch {
	b := &dataplane.Batch{Worker: worker}
	for _, s := range frames {
		f := b.Next()
		f.Buf = append(make([]byte, dataplane.Headroom), s.frame...)
		f.Off, f.Len, f.Owes = dataplane.Headroom, len(s.frame), s.owes
		b.Add()
	}
	return b
}

// drops returns the port's drops by their names.
func drops(p *Port) map[string]uint64 {
	m := map[string]uint64{}
	for d, n := range p.Counters().Totals().Drops {
		if n > 0 {
			m[dataplane.Drop(d).String()] = n
		}
	}
	return m
}

// same fails the test if got is not want; HdrLen is a hint and may differ.
func same(tb testing.TB, got, want sent) {
	tb.Helper()
	got.owes.HdrLen, want.owes.HdrLen = 0, 0
	got.owes.Flags &= wire.VNetNeedsCsum
	if !want.owes.Partial() {
		got.owes.CsumStart, got.owes.CsumOffset = 0, 0
	}
	if got.owes != want.owes {
		tb.Errorf("owes %+v, want %+v", got.owes, want.owes)
	}
	if !bytes.Equal(got.frame, want.frame) {
		at := 0
		for at < min(len(got.frame), len(want.frame)) && got.frame[at] == want.frame[at] {
			at++
		}
		tb.Errorf("frame of %d bytes, want %d; they differ from byte %d on: % x, want % x", len(got.frame), len(want.frame),
			at, got.frame[at:min(at+16, len(got.frame))], want.frame[at:min(at+16, len(want.frame))])
	}
}
