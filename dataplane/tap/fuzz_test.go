package tap

import (
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// FuzzLend gives a queue whatever a device could hand over, and requires that
// what it lends lies where it was read and owes what its frame can pay.
func FuzzLend(f *testing.F) {
	for _, fr := range []frame{
		{data: plain(60, 1)},
		transport(wire.ProtoUDP, 1, 2, 100),
		transport(wire.ProtoTCP, 1, 2, 3000).gso(wire.VNetGSOTCP4, 1448),
		transport(wire.ProtoUDP, 1, 2, 3000).gso(wire.VNetGSOUDPL4, 1400),
	} {
		hdr := make([]byte, wire.VNetHdrLen)
		fr.owes.Encode(hdr)
		f.Add(append(hdr, fr.data...))
	}
	slab := dataplane.NewBatch(0).Slab
	f.Fuzz(func(t *testing.T, read []byte) {
		read = read[:min(len(read), readLen)]
		copy(slab[dataplane.Headroom-wire.VNetHdrLen:], read)
		var fr dataplane.Frame
		if lend(&fr, slab, dataplane.Headroom, len(read)) != dataplane.None {
			return
		}
		if fr.Off != dataplane.Headroom || fr.Len != len(read)-wire.VNetHdrLen || fr.Len > dataplane.MaxFrame {
			t.Errorf("%d bytes were lent as %d at %d", len(read), fr.Len, fr.Off)
		}
		if !offload.Check(fr.Bytes(), &fr.Owes) {
			t.Errorf("the frame of %d bytes can't owe %+v", fr.Len, fr.Owes)
		}
		if fr.Owes.GSO() && offload.HeaderLen(fr.Bytes(), &fr.Owes) == 0 {
			t.Errorf("no header in a GSO frame of %d bytes owing %+v", fr.Len, fr.Owes)
		}
	})
}

// FuzzAttributes parses what no kernel sends.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 8, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for _, value := range attributes(b) {
			n += len(value)
		}
		if n > len(b) {
			t.Errorf("%d bytes of values in %d", n, len(b))
		}
		var d device
		d.parse(attributes(b))
		_ = d.free()
	})
}
