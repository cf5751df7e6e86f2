package offload

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"heddle/dataplane/wire"
)

func TestAdopt(t *testing.T) {
	for _, c := range []struct {
		name      string
		from      super
		complete  bool
		mtu, size int
		want      wire.VNetHdr
	}{
		{"complete", super{payload: 100}, true, 1450, 0, wire.VNetHdr{}},
		{"partial", super{payload: 100}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
		{"partial UDP", super{udp: true, payload: 100}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 6}},
		{"as long as the MTU", super{payload: 1410}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
		{"TCP4 GSO", super{tcpOpts: 12, payload: 9000}, false, 1450, 0,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOTCP4, HdrLen: 66, GSOSize: 1398, CsumStart: 34, CsumOffset: 16}},
		{"TCP6 GSO, CWR", super{v6: true, flags: wire.TCPCwr, payload: 9000}, false, 1450, 0,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOTCP6 | wire.VNetGSOECN, HdrLen: 74, GSOSize: 1390, CsumStart: 54, CsumOffset: 16}},
		{"UDP GSO", super{udp: true, payload: 9000}, false, 1450, 1400,
			wire.VNetHdr{Flags: 1, GSOType: wire.VNetGSOUDPL4, HdrLen: 42, GSOSize: 1400, CsumStart: 34, CsumOffset: 6}},
		{"UDP of unknown size", super{udp: true, payload: 9000}, false, 1450, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 6}},
		{"longer than the MTU, but complete", super{payload: 9000}, true, 1450, 0, wire.VNetHdr{}},
		{"no MTU", super{payload: 9000}, false, 0, 0, wire.VNetHdr{Flags: 1, CsumStart: 34, CsumOffset: 16}},
	} {
		c.from.partial = !c.complete
		frame, _ := c.from.build(rand.New(rand.NewPCG(23, 23)))
		if got := Adopt(frame, c.mtu, c.size); got != c.want {
			t.Errorf("%s: owes %+v, want %+v", c.name, got, c.want)
		}
		if c.complete {
			continue
		}
		for _, bad := range [][]byte{append(bytes.Clone(frame), 0), frame[:len(frame)-1], frame[:40], nil} {
			if got := Adopt(bad, c.mtu, c.size); got != (wire.VNetHdr{}) {
				t.Errorf("%s: padded or cut to %d bytes, it owes %+v", c.name, len(bad), got)
			}
		}
	}
}
