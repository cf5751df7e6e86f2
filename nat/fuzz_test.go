package nat

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// anew makes the lab one without connections for another test.
func (l *lab) anew(t testing.TB) {
	l.t = t
	l.n.Flush(Filter{})
	l.now += 10 * time.Minute
	l.n.Expire(int64(l.now), 1000)
	l.wire.take()
	l.in.take()
}

// variant makes one of all kinds of packets from numbers.
func variant(what, sport, dport uint16, payload []byte) pkt {
	p := pkt{src: hostA, dst: far4, sport: sport | 1024, dport: dport | 1, payload: payload, win: dport, flags: syn}
	if what&1 != 0 {
		p.src, p.dst = hostA6, far6
	}
	switch what >> 1 & 3 {
	case 0:
		p.proto = wire.ProtoTCP
		p.options = []byte{2, 4, byte(dport >> 8), byte(dport)}
		if what&16 != 0 {
			p.options = append([]byte{1}, append(p.options, 0, 0, 0)...)
		}
	case 1:
		p.proto = wire.ProtoUDP
		p.noCsum = what&32 != 0 && what&1 == 0
	case 2:
		p.proto, p.icmpType = wire.ProtoICMP, wire.ICMPEcho
		if p.v6() {
			p.proto, p.icmpType = wire.ProtoICMPv6, wire.ICMPv6Echo
		}
	case 3:
		p.proto, p.sctp = wire.ProtoSCTP, initChunk(sctpInit, uint32(sport))
		p.payload = nil
	}
	p.partial = what&8 != 0 && !p.noCsum && p.proto != wire.ProtoSCTP && p.proto != wire.ProtoICMP
	return p
}

// FuzzTranslation holds every rewrite, out, back and of an error about it,
// against checksums that are computed anew (in decode), and against the rule
// that a reply restores the endpoints of the question.
func FuzzTranslation(f *testing.F) {
	for what := range uint16(64) {
		f.Add(what, uint16(5000), uint16(80), []byte("some payload"))
		f.Add(what, uint16(0xfffe), uint16(0xffff), []byte{0xff})
	}
	l := newLab(f, options{uplink: func(c *UplinkConfig) { c.MTU = 1400; c.Ports = PortRange{2000, 2999} }})
	f.Fuzz(func(t *testing.T, what, sport, dport uint16, payload []byte) {
		l.anew(t)
		if len(payload) > 1200 {
			payload = payload[:1200]
		}
		p := variant(what, sport, dport, payload)
		w := l.outOne(p)
		expect(t, "no checksum", w.noCsum, p.noCsum)
		if !bytes.Equal(w.payload, p.payload) && p.sctp == nil {
			t.Error("the payload changed")
		}
		r := p
		r.src, r.dst, r.sport, r.dport, r.seq, r.ack = w.dst, w.src, w.dport, w.sport, 7, 1+uint32(len(p.payload))
		r.flags = synAck
		switch p.proto {
		case wire.ProtoICMP:
			r.icmpType, r.sport = wire.ICMPEchoReply, w.sport
		case wire.ProtoICMPv6:
			r.icmpType, r.sport = wire.ICMPv6EchoReply, w.sport
		case wire.ProtoSCTP:
			r.seq, r.sctp = uint32(sport), initChunk(sctpInitAck, 5)
		}
		in := l.backOne(r)
		if in.dst != p.src || in.src != p.dst {
			t.Errorf("%v was answered by %v", p, in)
		}
		if p.proto == wire.ProtoTCP || p.proto == wire.ProtoUDP {
			expect(t, "port", in.dport, p.sport)
		}
		if !w.partial && p.proto != wire.ProtoSCTP {
			w.raw = nil
			e := l.backOne(errorAbout(w.dst, w.src, 1+2*(1-byte(what&1)), 4, w, 1000))
			if len(w.frame().data) < 900 {
				q := e.embedded(t)
				if q.src != p.src || q.sport != p.sport || q.dst != p.dst {
					t.Errorf("an error about %v carries %v", p, q)
				}
			}
		}
		// The same once more takes the short cut where there is one.
		p.flags, p.seq, p.ack = ackF, 1+uint32(len(p.payload)), 8+uint32(len(p.payload))
		if p.proto != wire.ProtoSCTP {
			again := l.outOne(p)
			expect(t, "port again", again.sport, w.sport)
		}
	})
}

// TestAShortCutIsOneConnections has the record of a connection of UDP go to one
// of TCP with the same endpoints, whose fragment makes no short cut of its own.
func TestAShortCutIsOneConnections(t *testing.T) {
	l := newLab(t, options{config: Config{MaxConns: 1, HostConns: 1}})
	u := udpPkt(hostA, 5000, far4, 80)
	l.outOne(u)
	expect(t, "flushed", l.n.Flush(Filter{}), 1)
	s := tcpPkt(hostA, 5000, far4, 80, syn, 1000, 0)
	s.more, s.payload = true, make([]byte, 20)
	l.outOne(s)
	if w, _ := l.out(u); len(w) != 0 {
		t.Errorf("UDP went out by the connection of TCP: %v", w)
	}
	l.drops(dataplane.ConnTableFull)
}

// TestShortCutsDoWhatTheLongWayDoes sends the same packets through two labs,
// one of which forgets its short cuts all the time.
func TestShortCutsDoWhatTheLongWayDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	short, long := newLab(t, options{}), newLab(t, options{})
	var shortCuts, superFrames int
	seqs := map[uint16]uint32{}
	for range 20000 {
		port := uint16(5000 + r.IntN(8))
		p := udpPkt(hostA, port, far4, 53)
		if r.IntN(2) == 0 {
			p = tcpPkt(hostA, port, far4, 80, ackF, 1001+seqs[port], 2001)
			p.payload = make([]byte, r.IntN(100))
			switch k := r.IntN(50); {
			case k == 0:
				p.flags, p.seq = rst|ackF, 1001
			case k < 4 || seqs[port] == 0:
				p.flags, p.seq, p.payload = syn, 1000, nil
				seqs[port] = 1
			}
		}
		p.payload = append([]byte(nil), p.payload...)
		p.partial = r.IntN(3) == 0
		p.noCsum = p.proto == wire.ProtoUDP && r.IntN(5) == 0
		p.partial = p.partial && !p.noCsum
		if p.proto == wire.ProtoTCP && p.flags == ackF && r.IntN(4) == 0 {
			// Its segments fit, or are 10 bytes longer than the MTU.
			p.payload, p.partial, p.gso = make([]byte, 1470+r.IntN(6000)), true, 1400+110*r.IntN(2)
		}
		p.ttl = uint8(1 + r.IntN(8))
		inwards := r.IntN(3) == 0
		if inwards {
			p.src, p.dst, p.sport, p.dport = p.dst, ext4, p.dport, p.sport
			if p.proto == wire.ProtoTCP {
				p.seq, p.ack = 2001, 1001
				if p.flags == syn {
					p.flags, p.seq = synAck, 2000
				}
			}
		}
		if r.IntN(100) == 0 {
			step := time.Duration(r.IntN(40)) * time.Second
			short.now += step
			long.now += step
		}
		long.n.workers[0].flows = [maxFlows]flow{}
		var got [2][]sent
		for i, l := range []*lab{short, long} {
			if inwards {
				p.dstMAC, p.srcMAC = macUp, macRouter
				l.up.Push(l.batch(p.frame()))
			} else {
				p.dstMAC, p.srcMAC = macGW, macA
				l.gw.Push(l.batch(p.frame()))
			}
			got[i] = append(l.wire.take(), l.in.take()...)
		}
		if len(got[0]) != len(got[1]) {
			t.Fatalf("%v: %d frames by the short cut, %d by the long way", p, len(got[0]), len(got[1]))
		}
		for i := range got[0] {
			if !bytes.Equal(got[0][i].data, got[1][i].data) || got[0][i].owes != got[1][i].owes {
				t.Fatalf("%v:\nshort % x\nlong  % x", p, got[0][i].data, got[1][i].data)
			}
			decode(t, got[0][i])
		}
		if short.n.workers[0].turns[0].missed == 0 && len(got[0]) > 0 {
			shortCuts++
			if p.gso != 0 {
				superFrames++
			}
		}
	}
	for d, n := range short.gw.counters.Totals().Drops {
		expect(t, dataplane.Drop(d).String(), n, long.gw.counters.Totals().Drops[d])
	}
	a, b := list(short), list(long)
	for k, v := range a {
		expect(t, "connection "+k, v, b[k])
	}
	expect(t, "connections", len(a), len(b))
	if shortCuts < 5000 || superFrames < 200 {
		t.Errorf("only %d packets took the short cut, %d super-frames", shortCuts, superFrames)
	}
}

func list(l *lab) map[string]Conn {
	m := map[string]Conn{}
	for c := range l.n.Conns(Filter{}, int64(l.now)) {
		c.Gateway, c.Uplink = nil, nil
		m[c.Original.Src.String()+string(rune(c.Proto))+c.Original.Dst.String()] = c
	}
	return m
}

func fixedRandom() random { return random{rand.NewChaCha8([32]byte{1})} }

// FuzzPush throws any bytes at both sides: nothing panics, and the table stays
// what it has to be.
func FuzzPush(f *testing.F) {
	for what := range uint16(64) {
		p := variant(what, 5000, 80, []byte("some payload"))
		p.dstMAC, p.srcMAC = macGW, macA
		f.Add(p.frame().data, uint8(what), uint16(14), uint16(6))
		e := errorAbout(far4, ext4, 3, 3, udpPkt(ext4, 5000, far4, 81), 100)
		e.dstMAC, e.srcMAC = macUp, macRouter
		f.Add(e.frame().data, uint8(what), uint16(34), uint16(2))
	}
	f.Add(arpFrame4(wire.Broadcast, macB, wire.ARPRequest, hostB, 0, gw4).data, uint8(0), uint16(0), uint16(0))
	f.Add(nsFrame(macGW, macA, hostA6, gw6, gw6, wire.ICMPv6NeighSolicit, ndSourceMAC).data, uint8(0), uint16(0), uint16(0))
	f.Add(cutFrame(udpPkt(hostA, 5000, far4, 80)), uint8(0), uint16(0), uint16(0))
	l := newLab(f, options{config: Config{MaxConns: 20}, masq: func(c *MasqueradeConfig) { c.OpenFiltering = true }})
	l.mustPublish("x", wire.ProtoUDP, netip.Addr{}, PortRange{53, 1000}, hostB, 53)
	f.Fuzz(func(t *testing.T, data []byte, flags uint8, start, offset uint16) {
		if len(data) > 60000 {
			return
		}
		l.anew(t)
		for _, to := range []dataplane.Sink{l.gw, l.up, l.gw} {
			s := sent{data: append([]byte(nil), data...)}
			if len(data) > 14 {
				mac := macGW
				if to == dataplane.Sink(l.up) {
					mac = macUp
				}
				mac.Put(s.data)
				if data[12] == 8 && data[13] == 0 && len(data) >= 34 && flags&1 != 0 { // So that not all are wrong here.
					if c, ok := wire.IPv4Checksum(s.data, 14); ok {
						s.data[24], s.data[25] = byte(c>>8), byte(c)
					}
				}
			}
			s.owes = wire.VNetHdr{Flags: flags >> 1 & 1, CsumStart: start, CsumOffset: offset}
			to.Push(l.batch(s))
			l.wire.take()
			l.in.take()
		}
		checkTable(t, l.n)
	})
}

func cutFrame(p pkt) []byte {
	p.dstMAC, p.srcMAC, p.payload = macGW, macA, make([]byte, 100)
	return cut(p, 1, 48)[1].frame().data
}
