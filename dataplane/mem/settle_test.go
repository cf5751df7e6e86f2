package mem_test

import (
	"encoding/binary"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
)

// udp4 returns an Ethernet, IPv4 and UDP frame with n bytes of payload, its
// UDP checksum partial: the field holds the pseudo-header sum.
func udp4(n int) mem.Frame {
	const l3, l4, payload = 14, 34, 42
	b := make([]byte, payload+n)
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00})
	copy(b[l3:], []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, wire.ProtoUDP, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2})
	binary.BigEndian.PutUint16(b[l3+2:], uint16(20+8+n))
	binary.BigEndian.PutUint16(b[l3+10:], ^wire.Fold(wire.Sum(b[l3:l4], 0)))
	binary.BigEndian.PutUint16(b[l4:], 1000)
	binary.BigEndian.PutUint16(b[l4+2:], 2000)
	binary.BigEndian.PutUint16(b[l4+4:], uint16(8+n))
	pseudo := wire.Sum(b[l3+12:l4], 0) + wire.ProtoUDP + uint32(8+n)
	binary.BigEndian.PutUint16(b[l4+6:], wire.Fold(pseudo))
	for i := range n {
		b[payload+i] = byte(i)
	}
	return mem.Frame{Data: b, Owes: wire.VNetHdr{Flags: wire.VNetNeedsCsum, CsumStart: l4, CsumOffset: 6}}
}

// checksumRight tells whether the UDP checksum of a frame as udp4 makes them
// adds up: with the pseudo-header, everything sums to 0xffff.
func checksumRight(b []byte) bool {
	const l3, l4 = 14, 34
	pseudo := wire.Sum(b[l3+12:l4], 0) + wire.ProtoUDP + uint32(len(b)-l4)
	return wire.Fold(wire.Sum(b[l4:], pseudo)) == 0xffff
}

func TestPushSettlesWhatTheFarEndCant(t *testing.T) {
	partial := udp4(100)
	gso := udp4(2500)
	gso.Owes.GSOType, gso.Owes.GSOSize = wire.VNetGSOUDPL4, 1000
	refused := gso
	refused.Owes.GSOType = wire.VNetGSOUDP

	tests := []struct {
		name  string
		cfg   mem.Config
		frame mem.Frame
		sizes []int // Lengths of what is sent.
		drop  dataplane.Drop
	}{
		{"all offloads", mem.Config{FrameSize: 4096}, gso, []int{2542}, dataplane.None},
		{"partial completed", mem.Config{NoPartial: true}, partial, []int{142}, dataplane.None},
		{"partial kept without GSO", mem.Config{NoGSO: true}, partial, []int{142}, dataplane.None},
		{"segmented", mem.Config{NoGSO: true}, gso, []int{1042, 1042, 542}, dataplane.None},
		{"segmented and completed", mem.Config{NoPartial: true}, gso, []int{1042, 1042, 542}, dataplane.None},
		{"ring full at the third", mem.Config{NoGSO: true, Slots: 2}, gso, []int{1042, 1042}, dataplane.TxQueueFull},
		{"segment longer than a slot", mem.Config{NoGSO: true, FrameSize: 1000}, gso, nil, dataplane.TxRefused},
		{"can't be segmented", mem.Config{NoGSO: true}, refused, nil, dataplane.TxOffload},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Workers = 1
			p := mem.New(tt.cfg)
			p.Push(batchOf(0, tt.frame))
			sent := p.Sent(0)
			if len(sent) != len(tt.sizes) {
				t.Fatalf("sent %d frames, want %d", len(sent), len(tt.sizes))
			}
			for i, f := range sent {
				if len(f.Data) != tt.sizes[i] {
					t.Errorf("frame %d has %d bytes, want %d", i, len(f.Data), tt.sizes[i])
				}
				if !f.Owes.Partial() && !checksumRight(f.Data) {
					t.Errorf("frame %d owes nothing and has a wrong checksum", i)
				}
				if tt.cfg.NoPartial && f.Owes.Partial() || tt.cfg.NoGSO && f.Owes.GSO() {
					t.Errorf("frame %d still owes %+v", i, f.Owes)
				}
			}
			want := dataplane.Totals{TxFrames: 1, TxBytes: uint64(len(tt.frame.Data))}
			if tt.drop != dataplane.None {
				want = dataplane.Totals{}
				want.Drops[tt.drop] = 1
			}
			if got := p.Counters().Totals(); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

func TestSettlingAllocatesNothing(t *testing.T) {
	p := mem.New(mem.Config{Workers: 1, NoPartial: true, Slots: 1024})
	gso := udp4(2500)
	gso.Owes.GSOType, gso.Owes.GSOSize = wire.VNetGSOUDPL4, 1000
	b := batchOf(0, gso, udp4(100))
	if n := testing.AllocsPerRun(100, func() {
		b.Frames[1].Owes = udp4Owes
		p.Push(b)
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

var udp4Owes = udp4(0).Owes
