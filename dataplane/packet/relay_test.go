package packet

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// relay is two containers that reach each other through two ports and an
// engine only:
//
//	client eth0 ──── vc (Port) ─ engine ─ (Port) vs ──── eth0 server
type relay struct {
	client, host, server netns
	ports                [2]*Port
}

// across is a sink that sends all to one port.
type across struct{ to *Port }

func (a across) Push(b *dataplane.Batch) { a.to.Push(b) }

func newRelay(tb testing.TB, workers int) *relay {
	tb.Helper()
	r := &relay{client: newNetNS(tb), host: newNetNS(tb), server: newNetNS(tb)}
	for _, end := range []struct {
		ns         netns
		host, addr string
	}{{r.client, "vc", "1"}, {r.server, "vs", "2"}} {
		r.host.ip("link add name " + end.host + " type veth peer eth0 netns " + end.ns.name)
		r.host.ip("link set " + end.host + " up")
		end.ns.exec("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0",
			"net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.eth0.disable_ipv6=0", "net.ipv6.conf.eth0.accept_dad=0")
		end.ns.ip("link set eth0 up")
		end.ns.ip("addr add 198.18.0." + end.addr + "/24 dev eth0")
		end.ns.ip("addr add 2001:db8::" + end.addr + "/64 dev eth0 nodad")
	}
	r.ports[0] = r.host.open(Config{Interface: "vc", Workers: workers, Promiscuous: true})
	r.ports[1] = r.host.open(Config{Interface: "vs", Workers: workers, Promiscuous: true})
	start := time.Now()
	e, err := dataplane.NewEngine(dataplane.Config{Workers: workers, Clock: func() int64 { return int64(time.Since(start)) }})
	must(tb, err)
	must(tb, e.Start())
	tb.Cleanup(e.Stop)
	must(tb, e.Attach(1, r.ports[0], across{r.ports[1]}))
	must(tb, e.Attach(2, r.ports[1], across{r.ports[0]}))
	// The first may be lost: a carrier is there before the kernel has taken note.
	r.client.lab.Eventually(patience, "packets pass", func() error {
		_, err := r.client.ns.Run(tb.Context(), "ping", "-c1", "-W1", "198.18.0.2")
		return err
	})
	return r
}

// allOff is the offloads that a user may have switched off.
const allOff = "tx off rx off sg off tso off gso off gro off rxvlan off txvlan off tx-udp-segmentation off"

func (n netns) offloads(dev, settings string) {
	n.tb.Helper()
	var args []string
	for _, w := range bytes.Fields([]byte(settings)) {
		args = append(args, string(w))
	}
	n.exec(append([]string{"ethtool", "-K", dev}, args...)...)
}

func TestContainersTalk(t *testing.T) {
	for _, tc := range []struct {
		name     string
		switches func(*relay)
		whole    bool // GSO frames pass whole.
	}{
		{"offloads on", func(*relay) {}, true},
		{"containers' offloads off", func(r *relay) {
			r.client.offloads("eth0", allOff)
			r.server.offloads("eth0", allOff)
		}, false},
		{"host ends' offloads off", func(r *relay) {
			r.host.offloads("vc", allOff)
			r.host.offloads("vs", allOff)
		}, true},
		{"client's offloads off, server's host end's off", func(r *relay) {
			r.client.offloads("eth0", allOff)
			r.host.offloads("vs", allOff)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRelay(t, 1)
			tc.switches(r)
			capture := r.capture(t)
			for _, server := range []string{"198.18.0.2", "2001:db8::2"} {
				r.transferTCP(t, server)
				r.transferUDP(t, server)
			}
			for _, s := range capture() {
				checkChecksums(t, s)
			}
			got := r.ports[0].Counters().Totals()
			if mean := got.RxBytes / got.RxFrames; tc.whole != (mean > 2000) { // One alone has 1,514 at most.
				t.Errorf("%d frames of %d bytes in the mean came by the client's port; want GSO frames: %v", got.RxFrames, mean, tc.whole)
			}
			for _, p := range r.ports {
				// A full ring is TCP's to cope with.
				if d := drops(p); len(d) > 1 || len(d) == 1 && d["rx-kernel"] == 0 {
					t.Errorf("drops: %v", d)
				}
			}
		})
	}
}

func closes(t *testing.T, c io.Closer) {
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// transferTCP sends 4 MB to the server and has the hash of it sent back.
func (r *relay) transferTCP(t *testing.T, server string) {
	t.Helper()
	var l net.Listener
	var err error
	r.server.do(func() { l, err = net.Listen("tcp", net.JoinHostPort(server, "5001")) })
	must(t, err)
	defer closes(t, l)
	answered := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			answered <- err
			return
		}
		defer closes(t, c)
		h := sha256.New()
		_, err = io.Copy(h, c)
		if err == nil {
			_, err = c.Write(h.Sum(nil))
		}
		answered <- err
	}()
	data := make([]byte, 4<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	var c net.Conn
	r.client.do(func() { c, err = net.DialTimeout("tcp", net.JoinHostPort(server, "5001"), patience) })
	must(t, err)
	defer closes(t, c)
	must(t, c.SetDeadline(time.Now().Add(4*patience)))
	_, err = c.Write(data)
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	must(t, err)
	must(t, <-answered)
	if want := sha256.Sum256(data); !bytes.Equal(got, want[:]) {
		t.Errorf("TCP to %s: what arrived is not what was sent", server)
	}
}

// transferUDP sends datagrams of 1,400 bytes by UDP_SEGMENT, and compares what
// arrives. There are 20 at a time, so that those of one round and those of the
// round before, which the worker may not have given back, fit the ring.
func (r *relay) transferUDP(t *testing.T, server string) {
	t.Helper()
	const size, segments, rounds = 1400, 20, 10
	var rx, tx *net.UDPConn
	var err error
	addr := &net.UDPAddr{IP: net.ParseIP(server), Port: 5002}
	r.server.do(func() { rx, err = net.ListenUDP("udp", addr) })
	must(t, err)
	defer closes(t, rx)
	r.client.do(func() { tx, err = net.DialUDP("udp", nil, addr) })
	must(t, err)
	defer closes(t, tx)
	raw, err := tx.SyscallConn()
	must(t, err)
	segment := size
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment) }))
	must(t, err)
	for round := range rounds {
		data := make([]byte, size*segments)
		for i := range segments {
			for j := 0; j+4 <= size; j += 4 {
				binary.BigEndian.PutUint32(data[i*size+j:], uint32(round<<16|i<<8|j&0xff))
			}
		}
		_, err = tx.Write(data)
		must(t, err)
		got := make([]byte, 0, len(data))
		for range segments {
			buf := make([]byte, 2*size)
			must(t, rx.SetReadDeadline(time.Now().Add(patience)))
			n, err := rx.Read(buf)
			if err != nil {
				t.Fatalf("UDP to %s: %d of %d bytes: %v; drops %v, %v", server, len(got), len(data), err, drops(r.ports[0]), drops(r.ports[1]))
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("UDP to %s: what arrived is not what was sent", server)
		}
	}
}

// capture takes what arrives at the server, until the function that it returns
// is called, which gives 3,000 frames at most.
func (r *relay) capture(t *testing.T) func() []sent {
	p := newPeer(r.server, "eth0")
	var got []sent
	var done sync.WaitGroup
	stop := make(chan struct{})
	done.Go(func() {
		for len(got) < 3000 {
			s, ok := p.tryRecv(10 * time.Millisecond)
			if ok {
				got = append(got, sent{slices.Clone(s.frame), s.owes})
				continue
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	return func() []sent {
		close(stop)
		done.Wait()
		if len(got) < 100 {
			t.Errorf("captured %d frames only", len(got))
		}
		return got
	}
}

// checkChecksums holds every checksum of a frame against the slow model,
// after a partial one is completed.
func checkChecksums(t *testing.T, s sent) {
	t.Helper()
	if s.owes.Partial() {
		field := s.frame[s.owes.CsumStart+s.owes.CsumOffset:]
		sum := ^fold(0, s.frame[s.owes.CsumStart:])
		binary.BigEndian.PutUint16(field, sum)
	}
	pkt := gopacket.NewPacket(s.frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if e := pkt.ErrorLayer(); e != nil {
		t.Errorf("frame of %d bytes that doesn't parse: %v", len(s.frame), e.Error())
		return
	}
	var pseudo []byte
	switch ip := pkt.NetworkLayer().(type) {
	case *layers.IPv4:
		if fold(0, ip.Contents) != 0xffff {
			t.Errorf("IPv4 header checksum wrong: % x", ip.Contents)
		}
		pseudo = slices.Concat(ip.SrcIP.To4(), ip.DstIP.To4())
	case *layers.IPv6:
		pseudo = slices.Concat(ip.SrcIP, ip.DstIP)
	}
	l4 := pkt.TransportLayer()
	if l4 == nil {
		return
	}
	proto := uint32(unix.IPPROTO_UDP)
	if l4.LayerType() == layers.LayerTypeTCP {
		proto = unix.IPPROTO_TCP
	}
	segment := slices.Concat(l4.LayerContents(), l4.LayerPayload())
	if fold(proto+uint32(len(segment))+uint32(fold(0, pseudo)), segment) != 0xffff {
		t.Errorf("%v checksum wrong, %d bytes, owes %+v", l4.LayerType(), len(s.frame), s.owes)
	}
}
