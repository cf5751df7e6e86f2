package tunnel

import (
	"bytes"
	"fmt"
	"testing"

	"heddle/bench/golden"
	"heddle/dataplane/wire"
)

// TestECNIsAsRFC6040HasIt is figure 4 of the RFC and its normal mode, through
// both ends.
func TestECNIsAsRFC6040HasIt(t *testing.T) {
	const no, e0, e1, ce, drop = 0, 2, 1, 3, -1
	table := map[int][4]int{ // Inner field: what comes out for outer no, e0, e1, ce.
		no: {no, no, no, drop},
		e0: {e0, e0, e1, ce},
		e1: {e1, e1, e1, ce},
		ce: {ce, ce, ce, ce},
	}
	const dscp = 46 << 2 // Expedited forwarding: stays inside.
	for in, row := range table {
		for i, out := range []int{no, e0, e1, ce} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("inner %d outer %d IPv6 %v", in, out, v6), func(t *testing.T) {
					p := newPair(t, "192.0.2.1", "192.0.2.2")
					p.b.u.tos = func(uint8) uint8 { return uint8(out) }
					s := spec{v6: v6, proto: wire.ProtoUDP, payload: 10, tos: uint8(dscp | in)}
					p.a.send(p.ta, s.frame())
					expect(t, "sent with", p.a.u.take()[0].TOS, uint8(in))
					p.b.pull()
					got := p.netB.take()
					if row[i] == drop {
						expect(t, "frames", len(got), 0)
						expect(t, "drops", drops(p.tb.Counters()), "ecn-marked=1")
						return
					}
					s.tos = uint8(dscp | row[i])
					want := s.frame()
					if len(got) != 1 || !bytes.Equal(got[0].data, want.Bytes()) {
						t.Errorf("got  %x\nwant % x", got, want.Bytes())
					}
				})
			}
		}
	}
}

func TestAMarkOnWhatIsNoIPChangesNothing(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	p.b.u.tos = func(uint8) uint8 { return 3 }
	p.a.send(p.ta, frameOf(golden.Bytes(t, arpRequest)))
	p.b.pull()
	expect(t, "frames", len(p.netB.take()), 1)
}
