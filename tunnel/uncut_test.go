package tunnel

import (
	"bytes"
	"slices"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// TestUncutFramesOfAKernel: what a kernel's vxlan device leaves uncut is one
// frame that owes what it says, and a container's payload is never taken for
// a VXLAN header.
func TestUncutFramesOfAKernel(t *testing.T) {
	const size = 1000
	header := []byte{8, 0, 0, 0, 0, 0, 42, 0}
	for _, c := range []struct {
		what    string
		spec    spec
		segSize int // As the socket says; 0: one datagram.
		want    wire.VNetHdr
	}{
		{"TCP", spec{payload: 20 * size, partial: true}, 0,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOTCP4, GSOSize: 1450 - 40, HdrLen: 54, CsumStart: 34, CsumOffset: 16}},
		{"UDP", spec{proto: wire.ProtoUDP, payload: 20 * size, partial: true}, size,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOUDPL4, GSOSize: size, HdrLen: 42, CsumStart: 34, CsumOffset: 6}},
		{"UDP over IPv6", spec{v6: true, proto: wire.ProtoUDP, payload: 20 * size, partial: true}, size,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOUDPL4, GSOSize: size, HdrLen: 62, CsumStart: 54, CsumOffset: 6}},
		{"short", spec{payload: 10, partial: true}, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
	} {
		p := newPair(t, "192.0.2.1", "192.0.2.2")
		p.a.must(p.ta.SetMTU(1450))
		f := c.spec.frame()
		data := slices.Concat(header, f.Bytes())
		seg := len(data)
		if c.segSize > 0 {
			seg = c.segSize
			// Where the socket's segments begin stands a header of a network
			// that the container has no business in.
			for at := seg; at+8 < len(data); at += seg {
				copy(data[at:], []byte{8, 0, 0, 0, 0, 0, 43, 0})
			}
		}
		p.a.u.receive(0, packet{data, seg, underlay.AddrOf(p.b.u.local), 0})
		p.a.pull()
		got := p.netA.take()
		if len(got) != 1 || !bytes.Equal(got[0].data, data[8:]) || got[0].f.Owes != c.want {
			t.Errorf("%s: %d frames, the first owes %+v, want one that owes %+v", c.what, len(got), owesOf(got), c.want)
		}
		if n := p.a.v.Counters().Totals().Drops[dataplane.UnknownVNI]; n > 0 {
			t.Errorf("%s: payload was taken for %d headers", c.what, n)
		}
	}
}

func owesOf(got []received) wire.VNetHdr {
	if len(got) == 0 {
		return wire.VNetHdr{}
	}
	return got[0].f.Owes
}
