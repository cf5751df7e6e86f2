package tunnel

import (
	"fmt"
	"testing"

	"heddle/dataplane/wire"
)

// TestSYNsAreClampedBothWays: neither end of a connection is told of longer
// segments than the tunnel takes, and checksums stay right.
func TestSYNsAreClampedBothWays(t *testing.T) {
	const syn, synAck = wire.TCPSyn, wire.TCPSyn | wire.TCPAck
	for _, c := range []struct {
		what        string
		s           spec
		a, b        string // Options in and out.
		outer6      bool
		tags        int
		sent, heard int // SYNs that were changed.
	}{
		{"IPv4 in IPv4", spec{flags: syn}, "020405b4", "0204054a", false, 0, 1, 1}, // 1500-50-40 = 1410 → 1354 at the shorter end
		{"a SYN-ACK", spec{flags: synAck}, "020405b4", "0204054a", false, 0, 1, 1},
		{"IPv6 in IPv4", spec{flags: syn, v6: true}, "020405a0", "02040536", false, 0, 1, 1},
		{"IPv4 in IPv6", spec{flags: syn}, "020405b4", "02040536", true, 0, 1, 1},
		{"behind a NOP", spec{flags: syn}, "01020405b4010101", "010204054a010101", false, 0, 1, 1},
		{"small enough", spec{flags: syn}, "02040218", "02040218", false, 0, 0, 0},
		{"without the option", spec{flags: syn}, "01010101", "01010101", false, 0, 0, 0},
		{"malformed options", spec{flags: syn}, "030902b4", "030902b4", false, 0, 0, 0},
		{"no SYN", spec{flags: wire.TCPAck}, "020405b4", "020405b4", false, 0, 0, 0},
		{"a tag takes 4 bytes", spec{flags: syn, tags: 1}, "020405b4", "02040546", false, 0, 1, 1},
		{"with data", spec{flags: syn, payload: 300}, "020405b4", "0204054a", false, 0, 1, 1},
	} {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partial %v", c.what, partial), func(t *testing.T) {
				fam := families[0]
				if c.outer6 {
					fam = families[1]
				}
				p := newPair(t, fam.a, fam.b)
				p.b.must(p.b.v.SetPathMTU(p.tb.Peer(), 1444)) // The way back is shorter.
				c.s.options, c.s.partial = c.a, partial
				f := c.s.frame()
				before := string(f.Bytes())
				p.a.send(p.ta, f)
				if !partial && string(f.Bytes()) != before {
					t.Error("Push changed a frame that others may get too")
				}
				p.b.pull()
				got := p.netB.take()
				if len(got) != 1 || !sumsRight(onWire(t, got[0].data, got[0].f.Owes)[0]) {
					t.Fatalf("got %x", got)
				}
				c.s.options, c.s.partial = c.b, false
				want := c.s.frame()
				same(t, got, [][]byte{want.Bytes()})
				expect(t, "clamped", []uint64{p.a.v.Stats().Clamped, p.b.v.Stats().Clamped}, []uint64{uint64(c.sent), uint64(c.heard)})
			})
		}
	}
}
