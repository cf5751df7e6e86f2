package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// narrow is a lab with few ports.
func narrow(t *testing.T, ports int, c Config) *lab {
	t.Helper()
	l := newLab(t, options{config: c, uplink: func(c *UplinkConfig) {
		c.Ports = PortRange{10000, uint16(10000 + ports - 1)}
	}})
	return l
}

// begin opens a TCP connection and returns its external port.
func (l *lab) begin(host netip.Addr, sport uint16, far netip.Addr) uint16 {
	l.t.Helper()
	ext := l.outOne(tcpPkt(host, sport, far, 80, syn, 1000, 0)).sport
	l.backOne(tcpPkt(far, 80, ext4, ext, synAck, 2000, 1001))
	l.outOne(tcpPkt(host, sport, far, 80, ackF, 1001, 2001))
	return ext
}

// finish closes it from inside.
func (l *lab) finish(host netip.Addr, sport, ext uint16, far netip.Addr) {
	l.t.Helper()
	l.outOne(tcpPkt(host, sport, far, 80, fin, 1001, 2001))
	l.backOne(tcpPkt(far, 80, ext4, ext, fin, 2001, 1002))
	l.outOne(tcpPkt(host, sport, far, 80, ackF, 1002, 2002))
}

// TestShortConnectionsDontUseUpThePorts: the mappings that have ended make room,
// the oldest first, and only they.
func TestShortConnectionsDontUseUpThePorts(t *testing.T) {
	for _, c := range []Config{{}, {HostPorts: 50}, {HostConns: 50}} {
		l := narrow(t, 100, c)
		long := l.begin(hostA, 4000, far4)
		half := l.begin(hostA, 4001, far4)
		l.outOne(tcpPkt(hostA, 4001, far4, 80, fin, 1001, 2001)) // The other end sends on.
		for i := range uint16(3000) {
			ext := l.begin(hostA, 5000+i, far4)
			if ext == long || ext == half {
				t.Fatalf("%v: a port that is in use was given away", c)
			}
			l.finish(hostA, 5000+i, ext, far4)
		}
		// With fair shares a host has 75 ports, and so 73 that have ended.
		room := uint16(73)
		if c.HostPorts+c.HostConns > 0 {
			room = 48
		}
		for k := range l.n.Conns(Filter{}, int64(l.now)) {
			if p := k.Original.Src.Port(); p >= 5000 && p < 8000-room && c.HostConns == 0 {
				t.Errorf("%v: connection %d is there, which ended before others that aren't", c, p-5000)
			}
		}
		l.outOne(tcpPkt(hostA, 4000, far4, 80, ackF, 1001, 2001))
		l.backOne(tcpPkt(far4, 80, ext4, half, ackF, 2001, 1002))
		l.drops()
		checkTable(t, l.n)
	}
}

// TestReclaimTakesNothingThatIsOpen: of connections that begin, and end by FIN
// or RST, at random, against a list of those that are open. None is refused
// while there is a port that no open one has.
func TestReclaimTakesNothingThatIsOpen(t *testing.T) {
	const ports = 30
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 5))
		l := narrow(t, ports, Config{HostPorts: 1000, HostConns: 1000})
		type end struct {
			host netip.Addr
			port uint16
			ext  uint16
		}
		var open []end
		for i := range uint16(2000) {
			l.now += time.Duration(r.IntN(500)) * time.Millisecond
			if len(open) < ports && (len(open) == 0 || r.IntN(2) == 0) {
				e := end{host: []netip.Addr{hostA, hostB}[r.IntN(2)], port: 5000 + i}
				e.ext = l.begin(e.host, e.port, far4)
				for _, o := range open {
					if o.ext == e.ext {
						t.Fatalf("port %d is that of two open connections", e.ext)
					}
				}
				open = append(open, e)
				continue
			}
			k := r.IntN(len(open))
			e := open[k]
			if r.IntN(3) == 0 {
				l.backOne(tcpPkt(far4, 80, ext4, e.ext, rst, 2001, 0))
			} else {
				l.finish(e.host, e.port, e.ext, far4)
			}
			open = slices.Delete(open, k, k+1)
		}
		for _, e := range open {
			expect(t, "port at the end", l.outOne(tcpPkt(e.host, e.port, far4, 80, ackF, 1001, 2001)).sport, e.ext)
		}
		l.drops()
		checkTable(t, l.n)
	}
}

// TestOthersEndedConnectionsMakeRoom: for a host that has none of its own.
func TestOthersEndedConnectionsMakeRoom(t *testing.T) {
	l := narrow(t, 100, Config{HostPorts: 1000, HostConns: 1000})
	for i := range uint16(100) {
		l.finish(hostA, 5000+i, l.begin(hostA, 5000+i, far4), far4)
	}
	l.begin(hostB, 5000, far4)
	l.drops()
	// UDP flows don't end, so they give way to nobody.
	for i := range uint16(100) {
		l.outOne(udpPkt(hostA, 5000+i, far4, 53))
	}
	w, _ := l.out(udpPkt(hostB, 5000, far4, 53))
	expect(t, "frames out", len(w), 0)
	l.drops(dataplane.NoFreePort)
	checkTable(t, l.n)
}

// TestAMappingIsKeptWhileOneConnectionTalks: endpoint-independent, with several
// destinations.
func TestAMappingIsKeptWhileOneConnectionTalks(t *testing.T) {
	l := narrow(t, 2, Config{HostPorts: 10, HostConns: 1000})
	first := l.begin(hostA, 5000, far4)
	expect(t, "port to the second", l.begin(hostA, 5000, far4b), first)
	second := l.begin(hostA, 5001, far4)
	l.finish(hostA, 5000, first, far4)
	w, _ := l.out(tcpPkt(hostA, 5002, far4, 80, syn, 1, 0))
	expect(t, "frames out while all talk", len(w), 0)
	l.drops(dataplane.NoFreePort)
	l.finish(hostA, 5001, second, far4)
	expect(t, "port of the one that ended", l.begin(hostA, 5002, far4), second)
	l.finish(hostA, 5000, first, far4b)
	expect(t, "port of the other", l.begin(hostA, 5003, far4), first)
	l.drops()
	checkTable(t, l.n)
}

// TestResetsComeBackOnTime: ports, connections and the host's account of them.
func TestResetsComeBackOnTime(t *testing.T) {
	l := narrow(t, 100, Config{HostPorts: 100, HostConns: 1000})
	for i := range uint16(50) {
		p := l.outOne(tcpPkt(hostA, 5000+i, far4, 80, syn, 1000, 0))
		l.backOne(tcpPkt(far4, 80, ext4, p.sport, rst|ackF, 0, 1001))
	}
	expect(t, "connections", l.n.Stats().Conns, 50)
	l.now += 10 * time.Second
	l.n.Expire(int64(l.now), 1000)
	expect(t, "connections after 10 s", l.n.Stats().Conns, 50)
	l.now += 300 * time.Millisecond
	l.n.Expire(int64(l.now), 1000)
	expect(t, "connections after 10.3 s", l.n.Stats().Conns, 0)
	expect(t, "hosts", l.n.Stats().Hosts, 0)
	checkTable(t, l.n)
}

// TestExpiryIsNeverEarlyNorLate: for each lifetime, when the wheel gets to it.
func TestExpiryIsNeverEarlyNorLate(t *testing.T) {
	for _, x := range []struct {
		name string
		do   func(l *lab)
		life time.Duration
	}{
		{"UDP one-way", func(l *lab) { l.outOne(udpPkt(hostA, 10001, far4, 53)) }, 30 * time.Second},
		{"UDP", func(l *lab) {
			l.outOne(udpPkt(hostA, 10001, far4, 53))
			l.backOne(udpPkt(far4, 53, ext4, 10001))
			l.outOne(udpPkt(hostA, 10001, far4, 53))
		}, 300 * time.Second},
		{"ICMP", func(l *lab) { l.outOne(ping(hostA, far4, 10001, wire.ICMPEcho)) }, 60 * time.Second},
		{"TCP opening", func(l *lab) { l.outOne(tcpPkt(hostA, 10001, far4, 80, syn, 1, 0)) }, 240 * time.Second},
		{"TCP established", func(l *lab) { l.begin(hostA, 10001, far4) }, 7440 * time.Second},
		{"TCP closed", func(l *lab) { l.finish(hostA, 10001, l.begin(hostA, 10001, far4), far4) }, 240 * time.Second},
	} {
		for offset := range time.Duration(4) {
			l := narrow(t, 100, Config{})
			l.now += offset * 100 * time.Millisecond
			x.do(l)
			for end := l.now + x.life; l.now < end; l.now += min(time.Second, end-l.now) {
				l.n.Expire(int64(l.now), 1000)
			}
			l.n.Expire(int64(l.now), 1000)
			if l.n.Stats().Conns != 1 {
				t.Errorf("%s: gone after %v", x.name, x.life)
			}
			l.now += 405 * time.Millisecond // Three ticks.
			l.n.Expire(int64(l.now), 1000)
			if l.n.Stats().Conns != 0 {
				t.Errorf("%s: there after %v and 0.4 s", x.name, x.life)
			}
		}
	}
}

// TestEndedConnectionsMakeRoomInAFullTable: and records of those that were
// removed are there at once.
func TestEndedConnectionsMakeRoomInAFullTable(t *testing.T) {
	l := newLab(t, options{config: Config{MaxConns: 100, HostConns: 1000}})
	for i := range uint16(100) {
		l.finish(hostA, 5000+i, l.begin(hostA, 5000+i, far4), far4)
	}
	for i := range uint16(1000) {
		l.finish(hostB, 5000+i, l.begin(hostB, 5000+i, far4), far4)
	}
	l.drops()
	checkTable(t, l.n)
	expect(t, "flushed", l.n.Flush(Filter{}), 100)
	for i := range uint16(100) {
		l.outOne(udpPkt(hostB, 5000+i, far4, 53))
	}
	l.drops()
	checkTable(t, l.n)
}

// TestRFC6191AMinuteAfterTheEnd: the same endpoints begin anew whatever their
// numbers, which sooner have to be behind the old ones.
func TestRFC6191AMinuteAfterTheEnd(t *testing.T) {
	l := opened(t)
	l.finish(hostA, 5000, 5000, far4)
	l.none(l.send(syn, 500, 0, 0))
	l.drops(dataplane.TCPWindow)
	l.now += 61 * time.Second
	w, _ := l.send(syn, 500, 0, 0)
	expect(t, "port", must1(t, w).sport, 5000)
	l.recv(synAck, 7000, 501, 0)
	l.send(ackF, 501, 7001, 0)
	expect(t, "state", l.state(), "established")
	l.drops()
}
