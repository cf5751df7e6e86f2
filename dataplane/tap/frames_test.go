package tap

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Every test here has the same topology:
//
//	test ── port (TAP) ── t0 in a namespace ── AF_PACKET socket ── test

func TestPullGivesWhatTheInterfaceSends(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	s := openSocket(l, ns, "t0")

	frames := []frame{
		{data: plain(60, 1)},
		{data: plain(1514, 2)},
		transport(wire.ProtoUDP, 1, 2, 100),
		transport(wire.ProtoTCP, 1, 2, 60000).gso(wire.VNetGSOTCP4, 1448),
		transport(wire.ProtoUDP, 1, 2, 60000).gso(wire.VNetGSOUDPL4, 1400),
		{data: plain(61, 3)},
	}
	for _, f := range frames {
		l.NoError(s.send(f.data, f.owes))
	}
	got := 0
	for got < len(frames) {
		b, err := pullSome(p, 0)
		l.NoError(err)
		for i := range b.N {
			f, want := &b.Frames[i], frames[got]
			if !bytes.Equal(f.Bytes(), want.data) {
				t.Errorf("frame %d: %d bytes, want the %d sent", got, f.Len, len(want.data))
			}
			f.Owes.HdrLen = 0 // The kernel's hint.
			if f.Owes != want.owes {
				t.Errorf("frame %d owes %+v, want %+v", got, f.Owes, want.owes)
			}
			if f.Off < dataplane.Headroom || !aligned(f) {
				t.Errorf("frame %d begins at %d, want a line's beginning after the headroom", got, f.Off)
			}
			got++
		}
	}
	if c := p.Counters().Totals(); c.RxFrames != uint64(len(frames)) {
		t.Errorf("rx counted %d frames, want %d", c.RxFrames, len(frames))
	}
}

func TestPullIsBounded(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	s := openSocket(l, ns, "t0")
	b := dataplane.NewBatch(0)
	pull := func() int { b.Reset(); p.Pull(b); return b.N }

	for i := range dataplane.BatchSize + 1 {
		l.NoError(s.send(plain(60, i), wire.VNetHdr{}))
	}
	if n := pull(); n != dataplane.BatchSize || !b.More {
		t.Errorf("pulled %d frames, more %v; want %d and more", n, b.More, dataplane.BatchSize)
	}
	for i := range b.N {
		if f := &b.Frames[i]; !bytes.Equal(f.Bytes(), plain(60, i)) {
			t.Errorf("frame %d was overwritten by another", i)
		}
	}
	if n := pull(); n != 1 || b.More {
		t.Errorf("pulled %d frames, more %v; want the last", n, b.More)
	}
	big := transport(wire.ProtoTCP, 1, 2, 65000).gso(wire.VNetGSOTCP4, 1448)
	for range 4 {
		l.NoError(s.send(big.data, big.owes))
	}
	// Twice 65,054 is below 128 KB, three times is not.
	if n := pull(); n != 3 || !b.More {
		t.Errorf("pulled %d frames of 65,054 bytes, more %v; want 3 and more", n, b.More)
	}
	for i := range b.N {
		if !bytes.Equal(b.Frames[i].Bytes(), big.data) {
			t.Errorf("large frame %d was overwritten by another", i)
		}
	}
}

// TestLendRefuses checks what no kernel sends.
func TestLendRefuses(t *testing.T) {
	gso := func(typ uint8, size int) []byte {
		f := transport(wire.ProtoUDP, 1, 2, 100).gso(typ, size)
		b := make([]byte, wire.VNetHdrLen)
		f.owes.Encode(b)
		return append(b, f.data...)
	}
	clean := make([]byte, wire.VNetHdrLen+60)
	cut := make([]byte, readLen)
	tests := []struct {
		name string
		read []byte
		want dataplane.Drop
	}{
		{"nothing owed", clean, dataplane.None},
		{"longest", cut[:readLen-1], dataplane.None},
		{"cut off", cut, dataplane.RxTruncated},
		{"no frame", clean[:wire.VNetHdrLen], dataplane.RxTruncated},
		{"no header", clean[:3], dataplane.RxTruncated},
		{"UFO", gso(wire.VNetGSOUDP, 50), dataplane.RxBadOffload},
		{"TCP type on UDP", gso(wire.VNetGSOTCP4, 50), dataplane.RxBadOffload},
		{"size 0", gso(wire.VNetGSOUDPL4, 0), dataplane.RxBadOffload},
	}
	slab := dataplane.NewBatch(0).Slab
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			copy(slab[dataplane.Headroom-wire.VNetHdrLen:], tt.read)
			var f dataplane.Frame
			if d := lend(&f, slab, dataplane.Headroom, len(tt.read)); d != tt.want {
				t.Errorf("lend says %v, want %v", d, tt.want)
			}
		})
	}
}

func TestPushReachesTheInterface(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	s := openSocket(l, ns, "t0")

	lying := transport(wire.ProtoTCP, 1, 2, 60000).gso(wire.VNetGSOTCP4, 1448)
	lying.owes.HdrLen = 50000
	verified := frame{plain(60, 9), wire.VNetHdr{Flags: wire.VNetDataValid}}
	frames := []frame{
		{data: plain(60, 1)},
		transport(wire.ProtoUDP, 1, 2, 100),
		lying,
		transport(wire.ProtoUDP, 1, 2, 60000).gso(wire.VNetGSOUDPL4, 1400),
		verified,
	}
	b := batchOf(0, frames...)
	b.Sel &^= 1 << 1
	p.Push(b)
	for _, i := range []int{0, 2, 3, 4} {
		data, owes, err := s.receive()
		l.NoError(err)
		if !bytes.Equal(data, frames[i].data) {
			t.Errorf("frame %d arrived as %d bytes, want the %d pushed", i, len(data), len(frames[i].data))
		}
		if owes.GSOType != frames[i].owes.GSOType || owes.GSOSize != frames[i].owes.GSOSize || owes.Partial() != frames[i].owes.Partial() {
			t.Errorf("frame %d arrived owing %+v, want %+v", i, owes, frames[i].owes)
		}
	}
	c := p.Counters().Totals()
	if c.TxFrames != 4 || c.TxBytes != uint64(b.Bytes-b.Frames[1].Len) {
		t.Errorf("tx counted %d frames and %d bytes", c.TxFrames, c.TxBytes)
	}
}

func TestPushRefusedByTheKernelIsCounted(t *testing.T) {
	l := lab.New(t)
	p := openIn(l, quiet(l, "a"), Config{Name: "t0"})
	p.Push(batchOf(0, frame{data: plain(14, 1)[:13]}, frame{data: plain(60, 2)}))
	c := p.Counters().Totals()
	if c.Drops[dataplane.TxRefused] != 1 || c.TxFrames != 1 {
		t.Errorf("drops %v, sent %d; want one refused and one sent", c.Drops, c.TxFrames)
	}
}

func TestUDPSegmentedWhereTheDeviceCant(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	p.queues[0].init(true)
	s := openSocket(l, ns, "t0")
	bad := transport(wire.ProtoTCP, 1, 2, 3000).gso(wire.VNetGSOUDPL4, 1400)
	p.Push(batchOf(0,
		transport(wire.ProtoUDP, 1, 2, 3000).gso(wire.VNetGSOUDPL4, 1400),
		bad,
		transport(wire.ProtoTCP, 1, 2, 3000).gso(wire.VNetGSOTCP4, 1400)))
	for i, want := range []struct {
		size int
		gso  bool
	}{{42 + 1400, false}, {42 + 1400, false}, {42 + 200, false}, {54 + 3000, true}} {
		data, owes, err := s.receive()
		l.NoError(err)
		if len(data) != want.size || owes.GSO() != want.gso || !want.gso && !checksumRight(data) {
			t.Errorf("frame %d: %d bytes owing %+v, checksum right: %v", i, len(data), owes, checksumRight(data))
		}
	}
	if c := p.Counters().Totals(); c.Drops[dataplane.TxOffload] != 1 || c.TxFrames != 2 {
		t.Errorf("drops %v, sent %d", c.Drops, c.TxFrames)
	}
}

func TestDropOfErrno(t *testing.T) {
	for errno, want := range map[unix.Errno]dataplane.Drop{
		unix.EAGAIN: dataplane.TxQueueFull, unix.ENOBUFS: dataplane.TxQueueFull, unix.ENOMEM: dataplane.TxQueueFull,
		unix.EIO: dataplane.TxDown, unix.EBADFD: dataplane.TxDown, unix.ENETDOWN: dataplane.TxDown, unix.ENODEV: dataplane.TxDown,
		unix.EINVAL: dataplane.TxRefused, unix.EPERM: dataplane.TxRefused, unix.E2BIG: dataplane.TxRefused,
	} {
		if got := dropFor(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0"})
	s := openSocket(l, ns, "t0")
	in := dataplane.NewBatch(0)
	sent := make([]byte, wire.VNetHdrLen+60)
	copy(sent[wire.VNetHdrLen:], plain(60, 1))
	out := batchOf(0, frame{data: plain(60, 1)}, frame{data: plain(14, 1)[:13]},
		transport(wire.ProtoTCP, 1, 2, 3000).gso(wire.VNetGSOTCP4, 1400),
		transport(wire.ProtoUDP, 1, 2, 3000).gso(wire.VNetGSOUDPL4, 1400),
		car(1, 0, 20*1448), car(1, 20*1448, 20*1448), car(2, 0, 20*1448))
	gate := func(name string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
	var err error
	gate("pull", func() {
		for range 3 {
			_, e := unix.Write(s.fd, sent)
			err = errors.Join(err, e)
		}
		in.Reset()
		p.Pull(in)
	})
	l.NoError(err)
	if in.N != 3 {
		t.Errorf("pulled %d frames, want 3", in.N)
	}
	gate("push", func() { p.Push(out) })
	p.queues[0].init(true)
	gate("push segmented", func() { p.Push(out) })
	l.NoError(ns.SetUp("t0", false))
	gate("push to a link that is down", func() { p.Push(out) })
	l.NoError(ns.DeleteLink("t0"))
	gate("a device that is gone", func() { in.Reset(); p.Pull(in); p.Push(out) })
}
