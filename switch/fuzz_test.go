package vswitch

import (
	"bytes"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// FuzzPush cuts the input into frames of a batch with random lengths and
// offload state. Whatever they are: every frame is pushed to at least one
// port, as it was, or counted as a drop; none goes back to its port.
func FuzzPush(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(append([]byte{20, 0}, frame(mac(2), mac(1), "xxxxxx")...), uint8(1))
	f.Add(append([]byte{14, 1}, frame(wire.Broadcast, mac(1), "")...), uint8(2))
	f.Add(append([]byte{16, 4}, header(mac(2), mac(3), 0x8100)...), uint8(3))
	f.Add(bytes.Repeat([]byte{15, 5, 0xff}, 200), uint8(4))
	f.Fuzz(func(t *testing.T, data []byte, in uint8) {
		l := newLab(t, 8, NetworkConfig{Isolated: in&0x80 != 0}, Ordinary, Ordinary, Gateway, Tunnel)
		l.must(l.net.SetMTU(2, MinMTU))
		l.must(l.net.AddStatic(mac(2), 2))
		port := dataplane.PortID(in%4 + 1)
		var frames [][]byte
		var owes []wire.VNetHdr
		for len(data) > 1 && len(frames) < dataplane.BatchSize {
			n, kind := min(int(data[0]), len(data)-2), data[1]
			frames = append(frames, data[2:2+n])
			owes = append(owes, wire.VNetHdr{Flags: kind & 3, GSOType: kind & 7, GSOSize: uint16(kind), CsumStart: uint16(kind)})
			data = data[2+n:]
		}
		reached := make([]bool, len(frames))
		b := l.batch(port, frames...)
		for i := range owes {
			b.Frames[i].Owes = owes[i]
		}
		for id, p := range l.p {
			p.onPush = func(b *dataplane.Batch) {
				if id == port {
					t.Errorf("port %d was given its own frames %064b", id, b.Sel)
				}
				if b.Sel == 0 || b.Sel>>b.N != 0 && b.N < dataplane.BatchSize {
					t.Errorf("port %d: selection %064b of %d frames", id, b.Sel, b.N)
				}
				for s := b.Sel; s != 0; s &= s - 1 {
					reached[dataplane.First(s)] = true
				}
			}
		}
		l.net.Push(b)

		arrived, tooLong := 0, uint64(0)
		for i := range frames {
			if !bytes.Equal(b.Frames[i].Bytes(), frames[i]) || b.Frames[i].Owes != owes[i] {
				t.Errorf("frame %d was changed", i)
			}
			if reached[i] {
				arrived++
			}
		}
		for _, p := range l.p {
			tooLong += p.drops(dataplane.ExceedsMTU)
		}
		drops := l.p[port].allDrops() - l.p[port].drops(dataplane.ExceedsMTU)
		// A frame that was flooded may be too long for one and reach another.
		if lost := uint64(len(frames) - arrived); lost < drops || lost > drops+tooLong {
			t.Errorf("%d frames reached nobody, %d were counted at the ingress and %d as too long", lost, drops, tooLong)
		}
		l.sw.fdb.verify(t)
	})
}
