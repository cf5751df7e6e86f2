package tunnel

import (
	"bytes"
	"net/netip"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// ask is 198.18.0.1 or 2001:db8::1, at mac(1), asking everybody for a host.
func ask(t testing.TB, v6 bool, host byte) []byte {
	t.Helper()
	if !v6 {
		b := golden.Bytes(t, arpRequest)
		b[len(b)-1] = host
		return b
	}
	b := golden.Bytes(t, `
		33 33 ff 00 00 00  02 00 00 00 00 01  86 dd
		60 00 00 00 00 20 3a ff                             # ICMPv6, hop limit 255
		20 01 0d b8 00 00 00 00  00 00 00 00 00 00 00 01
		ff 02 00 00 00 00 00 00  00 00 00 01 ff 00 00 00
		87 00 00 00 00 00 00 00                             # neighbour solicitation
		20 01 0d b8 00 00 00 00  00 00 00 00 00 00 00 00    # for
		01 01 02 00 00 00 00 01                             # I am at`)
	b[5], b[53], b[77] = host, host, host
	sumND(b)
	return b
}

// sumND makes the checksum of an ND frame good.
func sumND(b []byte) {
	b[56], b[57] = 0, 0
	sumICMPv6(b, wire.EthHdrLen, b[ndAt:])
}

const answerARP = `
	02 00 00 00 00 01  02 00 00 00 00 09  08 06
	00 01 08 00 06 04 00 02                       # reply
	02 00 00 00 00 09  c6 12 00 09                # 198.18.0.9 is at ...09
	02 00 00 00 00 01  c6 12 00 01`

const answerND = `
	02 00 00 00 00 01  02 00 00 00 00 09  86 dd
	60 00 00 00 00 20 3a ff
	20 01 0d b8 00 00 00 00  00 00 00 00 00 00 00 09
	20 01 0d b8 00 00 00 00  00 00 00 00 00 00 00 01
	88 00 00 00 60 00 00 00                             # advertisement, solicited, override
	20 01 0d b8 00 00 00 00  00 00 00 00 00 00 00 09
	02 01 02 00 00 00 00 09                             # it is at`

var announced = []netip.Addr{netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("2001:db8::9")}

func TestRequestsForAnnouncedAddressesAreAnsweredHere(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		p := newPair(t, "192.0.2.1", "192.0.2.2")
		p.a.u.net.host("192.0.2.3", 1)
		other := p.a.tunnel(p.a.peer("c", "192.0.2.3"), 42, 6, p.netA)
		p.a.must(p.ta.Announce(mac(9), announced...))

		p.a.send(other, frameOf(ask(t, v6, 9)))
		expect(t, "another tunnel leaves it out", len(p.a.u.take())+len(p.netA.take()), 0)
		p.a.send(p.ta, frameOf(ask(t, v6, 9)))
		expect(t, "sent", len(p.a.u.take()), 0)
		want := golden.Bytes(t, answerARP)
		if v6 {
			want = golden.Bytes(t, answerND)
			sumND(want)
		}
		got := p.netA.take()
		if len(got) != 1 || !bytes.Equal(got[0].data, want) || got[0].in != 5 {
			t.Errorf("got %x\nwant % x on port 5", got, want)
		}
		s := p.a.v.Stats()
		expect(t, "stats", []uint64{s.Suppressed, s.Answered}, []uint64{2, 1})

		p.a.send(p.ta, frameOf(ask(t, v6, 8)))
		expect(t, "for an unknown address", len(p.a.u.take()), 1)
		expect(t, "withdrawn", p.ta.Withdraw(mac(9), announced...), 2)
		p.a.send(p.ta, frameOf(ask(t, v6, 9)))
		expect(t, "for a withdrawn one", len(p.a.u.take()), 1)
		expect(t, "drops", drops(p.ta.Counters()), "")
	}
}

// TestWhatIsForEverybodyIsFlooded: probes and gratuitous packets go out though
// the address is known.
func TestWhatIsForEverybodyIsFlooded(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.must(p.ta.Announce(mac(9), announced...))
	p.a.must(p.ta.Announce(mac(1), netip.MustParseAddr("198.18.0.7")))
	probe := ask(t, false, 9)
	clear(probe[28:32])
	gratuitous := ask(t, false, 9)
	copy(gratuitous[28:32], gratuitous[38:42])
	reply := ask(t, false, 9)
	reply[21] = wire.ARPReply
	dad := ask(t, true, 9)
	clear(dad[22:38])
	unsolicited := ask(t, true, 9)
	unsolicited[54] = wire.ICMPv6NeighAdvert
	forwarded := ask(t, true, 9)
	forwarded[21] = 254
	unicast := ask(t, false, 9)
	mac(9).Put(unicast)
	tagged := append(bytes.Clone(ask(t, false, 9)[:12]), append([]byte{0x81, 0, 0, 7}, ask(t, false, 9)[12:]...)...)
	truncated := ask(t, true, 9)[:77]
	truncated[19] = 77 - ndAt
	for what, b := range map[string][]byte{
		"an ARP probe": probe, "gratuitous ARP": gratuitous, "a broadcast reply": reply, "duplicate address detection": dad,
		"an unsolicited advertisement": unsolicited, "forwarded ND": forwarded, "a unicast request": unicast,
		"a request on a VLAN": tagged, "a truncated request": ask(t, false, 9)[:41], "truncated ND": truncated,
		"a request for one's own address": ask(t, false, 7),
	} {
		p.a.send(p.ta, frameOf(b))
		expect(t, what+": sent", len(p.a.u.take()), 1)
		expect(t, what+": answered", len(p.netA.take()), 0)
	}
}

func TestAnAnnouncedAddressMovesBetweenTunnels(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	other := p.a.tunnel(p.a.peer("c", "192.0.2.3"), 42, 6, p.netA)
	third := p.a.tunnel(other.Peer(), 43, 7, p.netA)
	p.a.must(p.ta.Announce(mac(9), announced...))
	p.a.must(other.Announce(mac(8), announced...))
	expect(t, "announced", []int{p.ta.Announced(), other.Announced(), p.a.v.Stats().Announced}, []int{0, 2, 2})
	expect(t, "the old one's withdrawal", p.ta.Withdraw(mac(9), announced...), 0)
	expect(t, "another MAC's", other.Withdraw(mac(9), announced...), 0)
	p.a.send(p.ta, frameOf(ask(t, false, 9)))
	expect(t, "the old one's answers", len(p.netA.take()), 0)
	p.a.send(other, frameOf(ask(t, false, 9)))
	got := p.netA.take()
	if len(got) != 1 || got[0].in != 6 || wire.SrcMAC(got[0].data) != mac(8) {
		t.Errorf("got %x, want one answer of %v on port 6", got, mac(8))
	}
	p.a.send(third, frameOf(ask(t, false, 9)))
	expect(t, "another network's request is sent", len(p.a.u.take()), 1)
	p.a.must(p.a.v.RemoveTunnel(other))
	expect(t, "after its tunnel has gone", p.a.v.Stats().Announced, 0)
	p.a.send(p.ta, frameOf(ask(t, false, 9)))
	expect(t, "sent", len(p.a.u.take()), 1)
}

// TestAGatewayStaysAtHome: what asks for, tells of or claims to be a gateway of
// this host's passes no tunnel, in either direction.
func TestAGatewayStaysAtHome(t *testing.T) {
	gateways := []netip.Addr{netip.MustParseAddr("198.18.0.254"), netip.MustParseAddr("2001:db8::fe")}
	from254 := func(op byte) []byte { // The gateway's own ARP.
		b := ask(t, false, 9)
		b[21], b[31] = op, 254
		return b
	}
	gratuitous := from254(wire.ARPRequest)
	gratuitous[41] = 254
	advert := ask(t, true, 0xfe)
	advert[54] = wire.ICMPv6NeighAdvert
	fromFE := ask(t, true, 9)
	fromFE[37] = 0xfe
	for _, c := range []struct {
		what    string
		b       []byte
		out, in bool // Whether it passes.
	}{
		{"a request for it", ask(t, false, 254), false, true},
		{"a solicitation for it", ask(t, true, 0xfe), false, true},
		{"its gratuitous ARP", gratuitous, false, false},
		{"its broadcast reply", from254(wire.ARPReply), false, false},
		{"its unsolicited advertisement", advert, false, false},
		{"its own request", from254(wire.ARPRequest), true, false},
		{"its own solicitation", fromFE, true, false},
		{"anything else", ask(t, false, 9), true, true},
	} {
		p := newPair(t, "192.0.2.1", "192.0.2.2")
		p.a.must(p.a.v.SetLocal(42, gateways))
		p.a.send(p.ta, frameOf(c.b))
		expect(t, c.what+": sent", len(p.a.u.take()) == 1, c.out)
		p.b.send(p.tb, frameOf(c.b))
		p.a.pull()
		expect(t, c.what+": received", len(p.netA.take()) == 1, c.in)
		want := "gateway-address=1"
		if c.in {
			want = ""
		}
		expect(t, c.what+": drops", drops(p.ta.Counters()), want)

		// The network of another VNI knows no gateway, nor this one when it is gone.
		other := p.a.tunnel(p.ta.Peer(), 43, 6, p.netA)
		p.a.send(other, frameOf(c.b))
		p.a.must(p.a.v.SetLocal(42, nil))
		p.a.send(p.ta, frameOf(c.b))
		expect(t, c.what+": without a gateway", len(p.a.u.take()), 2)
	}
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.must(p.a.v.SetLocal(43, gateways))
	later := p.a.tunnel(p.ta.Peer(), 43, 6, p.netA)
	p.a.send(later, frameOf(ask(t, false, 254)))
	expect(t, "a tunnel that came later", len(p.a.u.take()), 0)
}

// TestAnswersThatFindNoRoomAreCounted: 64 requests in a batch are answered, and
// what a tunnel says from within what it has said is bounded.
func TestAnswersThatFindNoRoomAreCounted(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.must(p.ta.Announce(mac(9), announced...))
	var batch []dataplane.Frame
	for range dataplane.BatchSize {
		batch = append(batch, frameOf(ask(t, false, 9)))
	}
	p.a.send(p.ta, batch...)
	expect(t, "answers", len(p.netA.take()), dataplane.BatchSize)

	loop := &looping{frame: ask(t, false, 9)}
	loop.t = p.a.tunnel(p.ta.Peer(), 43, 6, loop)
	p.a.must(loop.t.Announce(mac(9), announced...))
	p.a.send(loop.t, frameOf(ask(t, false, 9)))
	expect(t, "nested answers", loop.depth, maxNesting)
	expect(t, "drops", drops(loop.t.Counters()), "tx-queue-full=1")
	p.a.send(p.ta, frameOf(ask(t, false, 9)))
	expect(t, "and all is well again", len(p.netA.take()), 1)
}

// looping is a network that turns each answer into another request.
type looping struct {
	t     *Tunnel
	frame []byte
	depth int
}

func (l *looping) Push(*dataplane.Batch) {
	l.depth++
	b := dataplane.NewBatch(0)
	*b.Next() = frameOf(l.frame)
	b.Add()
	l.t.Push(b)
}
