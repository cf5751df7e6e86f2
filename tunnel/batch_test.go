package tunnel

import (
	"math/rand/v2"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// small is a UDP frame of 60 bytes, or a little more, of a flow.
func small(flow int, more int) dataplane.Frame {
	return spec{proto: wire.ProtoUDP, sport: uint16(flow), dport: 9, payload: 18 + more}.frame()
}

func shapes(msgs []underlay.Message) (s [][2]int) {
	for _, m := range msgs {
		s = append(s, [2]int{m.Frames, m.SegSize})
	}
	return s
}

// TestSmallFramesShareMessages: that is where the speed of small packets comes
// from. A message holds datagrams of one size and source port, of which the last
// may be shorter.
func TestSmallFramesShareMessages(t *testing.T) {
	rep := func(n int, f func() dataplane.Frame) (fs []dataplane.Frame) {
		for range n {
			fs = append(fs, f())
		}
		return fs
	}
	one := func() dataplane.Frame { return small(1, 0) }
	marked := func() dataplane.Frame {
		return spec{proto: wire.ProtoUDP, sport: 1, dport: 9, payload: 18, tos: 2}.frame()
	}
	for _, c := range []struct {
		what   string
		frames []dataplane.Frame
		want   [][2]int // Frames, size of each datagram.
	}{
		{"one flow", rep(64, one), [][2]int{{64, 68}}},
		{"a shorter one ends the message", append(append(rep(3, func() dataplane.Frame { return small(1, 4) }), one()), rep(2, func() dataplane.Frame { return small(1, 4) })...),
			[][2]int{{4, 72}, {2, 72}}},
		{"a longer one begins another", append(rep(3, one), small(1, 100)), [][2]int{{3, 68}, {1, 168}}},
		{"another TOS begins another", append(rep(3, one), marked()), [][2]int{{3, 68}, {1, 68}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPair(t, "192.0.2.1", "192.0.2.2")
			p.a.send(p.ta, c.frames...)
			expect(t, "messages", shapes(p.a.u.take()), c.want)
			expect(t, "calls", p.a.u.calls, 1)
		})
	}
}

// TestFlowsInTurnShareMessagesToo: two flows whose frames alternate are two
// messages, not 64.
func TestFlowsInTurnShareMessagesToo(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	var fs []dataplane.Frame
	for i := range dataplane.BatchSize {
		fs = append(fs, small(1+i%2, 0))
	}
	p.a.send(p.ta, fs...)
	msgs := p.a.u.take()
	expect(t, "messages", shapes(msgs), [][2]int{{32, 68}, {32, 68}})
	expect(t, "of one port", msgs[0].Entropy == msgs[1].Entropy, false)
}

// TestASuperFrameIsOneMessage of up to 64 segments and 65,507 bytes.
func TestASuperFrameIsOneMessage(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.send(p.ta, spec{payload: 44 * 1398, size: 1398, partial: true}.frame())
	msgs := p.a.u.take()
	expect(t, "messages", shapes(msgs), [][2]int{{1, 1398 + 54 + 8}})
	expect(t, "length", msgs[0].Len, 44*(1398+54+8))
	p.a.send(p.ta, spec{payload: 46 * 1398, size: 1398, partial: true}.frame())
	expect(t, "messages of one that is too long", shapes(p.a.u.take()), [][2]int{{0, 1460}, {1, 1460}})
	p.a.send(p.ta, spec{payload: 60000, size: 100}.frame())
	expect(t, "of 600 segments, which fill the slab once", len(p.a.u.take()), 11)
	expect(t, "frames", p.ta.Counters().Totals().TxFrames, 3)
}

// TestSourcePortsSpreadFlows: a flow has one, flows have many.
func TestSourcePortsSpreadFlows(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		p := newPair(t, "192.0.2.1", "192.0.2.2")
		r := rand.New(rand.NewPCG(1, 1))
		used := map[uint16]bool{}
		for range 640 {
			s := spec{v6: v6, sport: uint16(r.Uint32()), dport: 80, payload: 10}
			p.a.send(p.ta, s.frame())
			first := p.a.u.take()[0].Entropy
			s.payload, s.seq, s.tos = 900, 77, 4
			p.a.send(p.ta, s.frame())
			if again := p.a.u.take()[0].Entropy; again != first || first >= ports {
				t.Fatalf("source ports %d and %d for one flow", first, again)
			}
			used[first] = true
		}
		if len(used) < ports*9/10 {
			t.Errorf("640 flows use %d of %d source ports", len(used), ports)
		}
	}
}

// TestFragmentsOfAPacketStayTogether: the first has ports, the others don't.
func TestFragmentsOfAPacketStayTogether(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	first, second := small(1, 0), small(9999, 0)
	first.Bytes()[20] = 0x20 // More fragments.
	second.Bytes()[21] = 3
	p.a.send(p.ta, first, second)
	expect(t, "messages", len(p.a.u.take()), 1)
}

// TestWhatTheUnderlayRefusesIsCounted, by frames and with its reason.
func TestWhatTheUnderlayRefusesIsCounted(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.a.u.fail = dataplane.TxQueueFull
	p.a.send(p.ta, small(1, 0), small(1, 0), spec{payload: 60000, size: 1000}.frame())
	expect(t, "drops", drops(p.ta.Counters()), "tx-queue-full=3")
	p.a.u.fail = dataplane.None
	p.a.send(p.ta, small(1, 0))
	expect(t, "sent", p.ta.Counters().Totals().TxFrames, 1)
}

// TestWhatCannotBeMadeIsCounted: owed what the frame can't be.
func TestWhatCannotBeMadeIsCounted(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	gso, partial := small(1, 0), small(1, 0)
	gso.Owes = wire.VNetHdr{GSOType: wire.VNetGSOTCP4, GSOSize: 8}
	partial.Owes = wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: 4000}
	p.a.send(p.ta, gso, partial, frameOf([]byte{1, 2, 3}))
	expect(t, "drops", drops(p.ta.Counters()), "runt=1 tx-offload=2")
}

// TestAPacketThatIsLongerThanItsFrameIsDropped: whoever receives it joined with
// others, as one super-packet, would take those for its payload.
func TestAPacketThatIsLongerThanItsFrameIsDropped(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, tags := range []int{0, 1, 2} {
			p := newPair(t, "192.0.2.1", "192.0.2.2")
			good := spec{v6: v6, tags: tags, proto: wire.ProtoUDP, payload: 40}.frame()
			bad := frameOf(good.Bytes())
			bad.Len--
			p.a.send(p.ta, bad, good)
			expect(t, "drops", drops(p.ta.Counters()), "bad-packet=1")
			expect(t, "sent", p.ta.Counters().Totals().TxFrames, 1)
		}
	}
}
