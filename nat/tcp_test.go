package nat

import (
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

const (
	syn    = wire.TCPSyn
	ackF   = wire.TCPAck
	synAck = wire.TCPSyn | wire.TCPAck
	fin    = wire.TCPFin | wire.TCPAck
	rst    = wire.TCPRst
)

// talk is a TCP connection from a, port 5000, to far4, port 80, through a lab.
type talk struct {
	*lab
	sport uint16
}

func (l *talk) send(flags uint8, seq, ack uint32, n int) (w, in []pkt) {
	l.t.Helper()
	p := tcpPkt(hostA, 5000, far4, 80, flags, seq, ack)
	p.payload = make([]byte, n)
	return l.out(p)
}

func (l *talk) recv(flags uint8, seq, ack uint32, n int) (w, in []pkt) {
	l.t.Helper()
	p := tcpPkt(far4, 80, ext4, l.sport, flags, seq, ack)
	p.payload = make([]byte, n)
	if n > 1400 {
		p.gso, p.partial = 1400, true
	}
	return l.back(p)
}

func (l *talk) state() string {
	for c := range l.n.Conns(Filter{Proto: wire.ProtoTCP}, int64(l.now)) {
		return c.State
	}
	return "none"
}

// opened is a connection whose ends agree: a's next byte is 1001, far4's 2001.
func opened(t *testing.T) *talk {
	t.Helper()
	l := &talk{newLab(t, options{}), 5000}
	l.send(syn, 1000, 0, 0)
	expect(t, "after SYN", l.state(), "opening")
	l.recv(synAck, 2000, 1001, 0)
	expect(t, "after SYN-ACK", l.state(), "answered")
	l.send(ackF, 1001, 2001, 0)
	expect(t, "after ACK", l.state(), "established")
	l.drops()
	return l
}

func TestRFC5382REQ1EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, options{})
	for i, dst := range []netip.Addr{far4, far4b, router} {
		if p, _ := l.out(tcpPkt(hostA, 5000, dst, uint16(80+i), syn, 1, 0)); dst != router {
			expect(t, "port", must1(t, p).sport, 5000)
		}
	}
}

func TestRFC5382REQ2SimultaneousOpen(t *testing.T) {
	l := &talk{newLab(t, options{}), 5000}
	// An unsolicited SYN is dropped silently (REQ-4); then both ends ask.
	l.none(l.recv(syn, 2000, 0, 0))
	l.drops(dataplane.Unsolicited)
	l.send(syn, 1000, 0, 0)
	_, in := l.recv(syn, 2000, 0, 0)
	expect(t, "SYN from outside", len(in), 1)
	expect(t, "after both SYNs", l.state(), "answered")
	l.send(synAck, 1000, 2001, 0)
	l.recv(synAck, 2000, 1001, 0)
	expect(t, "after both SYN-ACKs", l.state(), "established")
	l.drops()
}

func TestRFC5382REQ5Lifetimes(t *testing.T) {
	t.Run("established", func(t *testing.T) {
		l := opened(t)
		l.now += 7440 * time.Second
		l.recv(ackF, 2001, 1001, 0)
		l.drops()
		l.now += 500 * time.Millisecond
		l.none(l.recv(ackF, 2001, 1001, 0))
		l.drops(dataplane.Unsolicited)
	})
	t.Run("opening", func(t *testing.T) {
		l := &talk{newLab(t, options{}), 5000}
		l.send(syn, 1000, 0, 0)
		l.now += 240*time.Second + 500*time.Millisecond
		l.none(l.recv(synAck, 2000, 1001, 0))
		l.drops(dataplane.Unsolicited)
	})
	t.Run("closed", func(t *testing.T) {
		l := opened(t)
		l.now += time.Hour
		l.recv(fin, 2001, 1001, 0) // The state goes on: 240 s from here.
		expect(t, "state", l.state(), "closing")
		l.now += 239 * time.Second
		l.send(fin, 1001, 2002, 0)
		l.recv(ackF, 2002, 1002, 0)
		expect(t, "state", l.state(), "closed")
		l.drops()
		l.now += 240*time.Second + 500*time.Millisecond
		l.none(l.recv(ackF, 2002, 1002, 0))
	})
}

func TestTCPResetOnlyInTheWindow(t *testing.T) {
	for _, tt := range []struct {
		name string
		seq  uint32
		ok   bool
	}{
		{"next byte", 2001, true},
		{"in the window", 2001 + 60000, true},
		{"behind the window", 2001 + 70000, false},
		{"before the window", 1<<32 + 2001 - 70000, false},
		{"anywhere", 0x80000000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := opened(t)
			_, in := l.recv(rst, tt.seq, 0, 0)
			expect(t, "passes", len(in) == 1, tt.ok)
			if !tt.ok {
				expect(t, "state", l.state(), "established")
				l.drops(dataplane.TCPWindow)
				return
			}
			expect(t, "state", l.state(), "reset")
			l.now += 10 * time.Second
			l.send(ackF, 1001, 2001, 0) // It lingers and isn't refreshed.
			l.now += 500 * time.Millisecond
			l.none(l.send(ackF, 1001, 2001, 0))
			expect(t, "state after lingering", l.state(), "none")
		})
	}
}

func TestTCPWindow(t *testing.T) {
	l := opened(t)
	for _, tt := range []struct {
		name     string
		seq, ack uint32
		n        int
		ok       bool
	}{
		{"data", 2001, 1001, 1000, true},
		{"again", 2001, 1001, 1000, true},
		{"a gap", 2001 + 30000, 1001, 1000, true},
		{"beyond the window", 2001 + 66000, 1001, 1, false},
		{"long ago", 1<<32 + 2001 - 70000, 1001, 1, false},
		{"acknowledges what wasn't sent", 3001, 5001, 1, false},
		{"keepalive", 2001 + 30999, 1001, 0, true},
	} {
		_, in := l.recv(ackF, tt.seq, tt.ack, tt.n)
		expect(t, tt.name, len(in) == 1, tt.ok)
		if !tt.ok {
			l.drops(dataplane.TCPWindow)
		}
	}
	l.drops()
	// A SYN out of the window from outside doesn't pass.
	l.none(l.recv(syn, 0x70000000, 0, 0))
	l.drops(dataplane.TCPWindow)
}

func TestTCPWindowScale(t *testing.T) {
	l := &talk{newLab(t, options{}), 5000}
	scaled := func(p pkt, shift byte) pkt {
		p.options = []byte{1, 3, 3, shift}
		return p
	}
	l.out(scaled(tcpPkt(hostA, 5000, far4, 80, syn, 1000, 0), 7))
	l.back(scaled(tcpPkt(far4, 80, ext4, 5000, synAck, 2000, 1001), 2))
	l.send(ackF, 1001, 2001, 0) // 65000 << 7 = 8.3 MB for far4.
	for at := uint32(2001); at < 8_000_000; at += 60_000 {
		if _, in := l.recv(ackF, at, 1001, 60_000); len(in) != 1 {
			t.Fatalf("at %d: dropped in a scaled window", at)
		}
	}
	l.none(l.recv(ackF, 8_400_000, 1001, 100))
	l.drops(dataplane.TCPWindow)
}

func TestTCPNeedsASyn(t *testing.T) {
	l := newLab(t, options{})
	l.mustPublish("web", wire.ProtoTCP, netip.Addr{}, one(80), hostA, 80)
	for _, flags := range []uint8{ackF, synAck, fin, rst, syn | wire.TCPFin, syn | rst, 0} {
		l.none(l.out(tcpPkt(hostA, 5000, far4, 80, flags, 1, 1)))
		l.none(l.back(tcpPkt(far4, 5000, ext4, 80, flags, 1, 1)))
		l.drops(dataplane.NoConnection, dataplane.NoConnection)
	}
	expect(t, "connections", l.n.Stats().Conns, 0)
	expect(t, "hosts", l.n.Stats().Hosts, 0)
}

func TestTCPRefusedConnection(t *testing.T) {
	l := &talk{newLab(t, options{}), 5000}
	l.send(syn, 1000, 0, 0)
	l.none(l.recv(rst|ackF, 0, 999, 0)) // It acknowledges nothing that was sent.
	l.drops(dataplane.TCPWindow)
	_, in := l.recv(rst|ackF, 0, 1001, 0)
	expect(t, "passes", len(in), 1)
	expect(t, "state", l.state(), "reset")
	// The container tries again at once from the same port.
	w, _ := l.send(syn, 5000, 0, 0)
	expect(t, "again", len(w), 1)
	_, in = l.recv(synAck, 9000, 5001, 0)
	expect(t, "answer", len(in), 1)
	l.send(ackF, 5001, 9001, 0)
	expect(t, "state", l.state(), "established")
	l.drops()
}

func TestRFC6191SameEndpointsAgain(t *testing.T) {
	l := opened(t)
	l.send(fin, 1001, 2001, 0)
	l.recv(fin, 2001, 1002, 0)
	l.send(ackF, 1002, 2002, 0)
	expect(t, "state", l.state(), "closed")
	w, _ := l.send(syn, 50000, 0, 0)
	expect(t, "new SYN", must1(t, w).sport, 5000)
	l.recv(synAck, 90000, 50001, 0)
	l.send(ackF, 50001, 90001, 0)
	expect(t, "state", l.state(), "established")
	l.drops()
	// A container that has restarted asks again in the middle.
	w, _ = l.send(syn, 0x70000000, 0, 0)
	expect(t, "SYN in the middle", len(w), 1)
	_, in := l.recv(ackF, 90001, 50001, 0) // A challenge (RFC 5961 4).
	expect(t, "challenge", len(in), 1)
	l.send(rst, 50001, 0, 0)
	expect(t, "state", l.state(), "reset")
	w, _ = l.send(syn, 0x70000000, 0, 0)
	expect(t, "SYN again", len(w), 1)
	l.drops()
}

func TestSCTPAssociation(t *testing.T) {
	l := newLab(t, options{uplink: func(c *UplinkConfig) { c.Ports = PortRange{7000, 7100} }})
	out := func(tag uint32, c []byte) ([]pkt, []pkt) {
		return l.out(pkt{src: hostA, dst: far4, sport: 5000, dport: 80, proto: wire.ProtoSCTP, seq: tag, sctp: c})
	}
	w, _ := out(0, initChunk(sctpInit, 111))
	p := must1(t, w) // Its port changed, and decode found the checksum right.
	back := func(tag uint32, c []byte) ([]pkt, []pkt) {
		return l.back(pkt{src: far4, dst: ext4, sport: 80, dport: p.sport, proto: wire.ProtoSCTP, seq: tag, sctp: c})
	}
	l.none(back(112, initChunk(sctpInitAck, 222)))
	l.drops(dataplane.TCPWindow)
	_, in := back(111, initChunk(sctpInitAck, 222))
	expect(t, "port inside", must1(t, in).dport, 5000)
	out(222, []byte{sctpCookieEcho, 0, 0, 4})
	back(111, []byte{sctpCookieAck, 0, 0, 4})
	state := func() string {
		for c := range l.n.Conns(Filter{Proto: wire.ProtoSCTP}, int64(l.now)) {
			return c.State
		}
		return "none"
	}
	expect(t, "state", state(), "established")
	l.none(back(112, []byte{sctpAbort, 0, 0, 4}))
	l.drops(dataplane.TCPWindow)
	out(222, []byte{sctpShutdown, 0, 0, 8, 0, 0, 0, 1})
	expect(t, "state", state(), "closing")
	back(111, []byte{sctpShutdownAck, 0, 0, 4})
	out(222, []byte{sctpShutdownComplete, 0, 0, 4})
	expect(t, "state", state(), "closed")
	l.drops()
	out(0, initChunk(sctpInit, 333))
	expect(t, "state", state(), "opening")
	back(333, []byte{sctpAbort, 0, 0, 4})
	expect(t, "state", state(), "reset")
	l.now += 11 * time.Second
	expect(t, "state", state(), "none")
	// A wrong checksum is not made right.
	q := pkt{src: hostA, dst: far4, sport: 5001, dport: 80, proto: wire.ProtoSCTP, sctp: initChunk(sctpInit, 1), dstMAC: macGW, srcMAC: macA}
	f := q.frame()
	f.data[14+20+8]++
	l.none(l.push(l.gw, f))
	l.drops(dataplane.BadChecksum)
}
