package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// slotOf makes a slot as the kernel fills it.
func slotOf(s sent, hdr unix.Tpacket2Hdr) []byte {
	slot := make([]byte, slotLen)
	*(*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0])) = hdr
	s.owes.Encode(slot[hdr.Mac-wire.VNetHdrLen:])
	copy(slot[hdr.Mac:], s.frame)
	return slot
}

func TestLend(t *testing.T) {
	udp := build(recipe{payload: 100, partial: true})
	tagged := udp
	tagged.frame = append(append(bytes.Clone(udp.frame[:12]), 0x88, 0xa8, 0xa0, 0x64), udp.frame[12:]...)
	tagged.owes.CsumStart += 4
	customer := tagged
	customer.frame = bytes.Clone(tagged.frame)
	customer.frame[12], customer.frame[13] = 0x81, 0x00
	beyond := udp
	beyond.owes.CsumStart = 1000
	n := uint32(len(udp.frame))
	longest := sent{frame: make([]byte, slotLen-plainMAC)}
	const vlan, tpid = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	for _, tc := range []struct {
		name string
		in   sent
		hdr  unix.Tpacket2Hdr
		drop dataplane.Drop
		out  sent
	}{
		{"plain", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: plainMAC}, dataplane.None, udp},
		{"tag with its EtherType", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: plainMAC, Status: vlan | tpid, Vlan_tci: 0xa064, Vlan_tpid: 0x88a8}, dataplane.None, tagged},
		{"tag without its EtherType", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: plainMAC, Status: vlan, Vlan_tci: 0xa064}, dataplane.None, customer},
		{"leftover tag that isn't valid", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: plainMAC, Vlan_tci: 0xa064, Vlan_tpid: 0x88a8}, dataplane.None, udp},
		{"least tp_mac", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: minMAC, Status: vlan | tpid, Vlan_tci: 0xa064, Vlan_tpid: 0x88a8}, dataplane.None, tagged},
		{"no headroom", udp, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: minMAC - 1}, dataplane.RxTruncated, sent{}},
		{"cut off", udp, unix.Tpacket2Hdr{Len: n + 1, Snaplen: n, Mac: plainMAC}, dataplane.RxKernel, sent{}},
		{"beyond the slot", udp, unix.Tpacket2Hdr{Len: slotLen, Snaplen: slotLen, Mac: plainMAC}, dataplane.RxTruncated, sent{}},
		{"longest", longest, unix.Tpacket2Hdr{Len: slotLen - plainMAC, Snaplen: slotLen - plainMAC, Mac: plainMAC}, dataplane.None, longest},
		{"checksum beyond the frame", beyond, unix.Tpacket2Hdr{Len: n, Snaplen: n, Mac: plainMAC}, dataplane.RxBadOffload, sent{}},
		{"runt", sent{frame: udp.frame[:13]}, unix.Tpacket2Hdr{Len: 13, Snaplen: 13, Mac: plainMAC}, dataplane.None, sent{frame: udp.frame[:13]}},
		{"runt with a tag", sent{frame: udp.frame[:11]}, unix.Tpacket2Hdr{Len: 11, Snaplen: 11, Mac: plainMAC, Status: vlan}, dataplane.RxBadOffload, sent{}},
		{"empty", sent{}, unix.Tpacket2Hdr{Mac: plainMAC}, dataplane.None, sent{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			slot := slotOf(tc.in, tc.hdr)
			var f dataplane.Frame
			if d := describe(&f, slot, tc.hdr.Status); d != tc.drop {
				t.Fatalf("drop %v, want %v", d, tc.drop)
			}
			if tc.drop == dataplane.None {
				same(t, sent{f.Bytes(), f.Owes}, tc.out)
			}
		})
	}
}

// describe does with a slot what Pull does with one that holds all of its frame.
func describe(f *dataplane.Frame, slot []byte, status uint32) dataplane.Drop {
	hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
	if d := lend(f, slot, hdr); d != dataplane.None {
		return d
	}
	return restore(f, hdr, status)
}

// FuzzLend holds what lend and restore promise whatever a slot says: no panic, a frame
// inside the slot with headroom, an offload header that fits, the status word
// out of reach.
func FuzzLend(f *testing.F) {
	s := build(recipe{tcp: true, payload: 3000, gso: 1000})
	vnet := make([]byte, wire.VNetHdrLen)
	s.owes.Encode(vnet)
	f.Add(vnet, s.frame, uint32(len(s.frame)), uint32(len(s.frame)), uint16(plainMAC), uint16(100), uint16(0x8100), uint32(unix.TP_STATUS_VLAN_VALID))
	f.Add(vnet, s.frame, uint32(10), uint32(10), uint16(minMAC), uint16(0), uint16(0), uint32(0))
	f.Add([]byte{}, []byte{}, uint32(1<<31), uint32(1<<31), uint16(0xffff), uint16(0), uint16(0), uint32(0xffffffff))
	slot := make([]byte, slotLen)
	f.Fuzz(func(t *testing.T, vnet, frame []byte, length, snaplen uint32, mac, tci, tpid uint16, status uint32) {
		hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
		*hdr = unix.Tpacket2Hdr{Status: status, Len: length, Snaplen: snaplen, Mac: mac, Vlan_tci: tci, Vlan_tpid: tpid}
		if int(mac) >= minMAC && int(mac) < slotLen {
			copy(slot[mac-wire.VNetHdrLen:mac], vnet)
			copy(slot[mac:], frame)
		}
		var fr dataplane.Frame
		if describe(&fr, slot, status) != dataplane.None {
			return
		}
		if fr.Off < dataplane.Headroom || fr.Len > dataplane.MaxFrame || &fr.WithHeadroom(dataplane.Headroom)[0] == &slot[0] {
			t.Fatalf("frame at %d, %d bytes", fr.Off, fr.Len)
		}
		clear(fr.WithHeadroom(dataplane.Headroom))
		if hdr.Status != status {
			t.Fatal("the headroom reaches into the status word")
		}
		if fr.Owes.Partial() && int(fr.Owes.CsumStart)+int(fr.Owes.CsumOffset)+2 > fr.Len {
			t.Fatalf("%d bytes that owe %+v", fr.Len, fr.Owes)
		}
	})
}

// TestRingWraps sends many frames of all lengths, those that fit a slot and those
// that don't, with a tag and without, some pulled at once and some left lying, and
// holds what comes out against what went in.
func TestRingWraps(t *testing.T) {
	c := newCable(t, 1)
	b := dataplane.NewBatch(0)
	next, got := 0, 0
	frame := func(i int) sent {
		r := recipe{payload: i * 37 % 1400, seed: uint64(i)}
		if i%3 == 1 {
			r.tcp, r.payload, r.gso = true, 1401+i*997%63000, 1400
		}
		if i%5 == 1 {
			r.tags = []layers.EthernetType{layers.EthernetTypeDot1Q}
		}
		return build(r)
	}
	for burst := 1; got < 1000; burst = burst*7%59 + 1 {
		for range burst {
			must(t, c.far.send(frame(next)))
			next++
		}
		arrived(t, c.port, 0, burst)
		for b.More = true; b.More; { // To the last Pull, which gives all slots back.
			b.Reset()
			c.port.Pull(b)
			for i := range b.N {
				same(t, sent{b.Frames[i].Bytes(), b.Frames[i].Owes}, frame(got))
				got++
			}
		}
		if t.Failed() || got != next {
			t.Fatalf("%d of %d frames, drops: %v", got, next, drops(c.port))
		}
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
	if s := c.port.Counters().Totals(); s.RxFrames != uint64(got) {
		t.Errorf("%d frames counted, %d pulled", s.RxFrames, got)
	}
}

// TestBorrowed: frames stay what they are until the next Pull, however many
// more arrive.
func TestBorrowed(t *testing.T) {
	c := newCable(t, 1)
	first := build(recipe{payload: 500, seed: 1})
	must(t, c.far.send(first))
	arrived(t, c.port, 0, 1)
	b := dataplane.NewBatch(0)
	c.port.Pull(b)
	if b.N != 1 || !b.More {
		t.Fatalf("%d frames, more: %v", b.N, b.More)
	}
	for range 3 * DefaultSlots {
		must(t, c.far.send(build(recipe{payload: 600, seed: 2})))
	}
	same(t, sent{b.Frames[0].Bytes(), b.Frames[0].Owes}, first)
}

// TestBurst: a burst of as many frames as there are slots gets through, also
// while nobody pulls.
func TestBurst(t *testing.T) {
	c := newCable(t, 1)
	for i := range DefaultSlots {
		must(t, c.far.send(flowFrame(0, i, false)))
	}
	arrived(t, c.port, 0, DefaultSlots)
	k := newTracker(t)
	if n := k.drain(c.port); n != DefaultSlots || len(drops(c.port)) > 0 {
		t.Errorf("%d of %d frames, drops: %v", n, DefaultSlots, drops(c.port))
	}
}

// TestFullRing counts what the kernel could not put into the ring.
func TestFullRing(t *testing.T) {
	c := newCable(t, 1)
	// It sees what the port was given before: the kernel begins with the youngest
	// socket (dev_add_pack in net/core/dev.c).
	witness := newPeer(c.netns, "near")
	port := c.open(Config{Interface: "near", Workers: 1})
	slots, lost := len(port.queues[0].slots), 140
	s := build(recipe{payload: 18})
	for range slots + lost {
		must(t, c.far.send(s))
	}
	for range slots + lost {
		witness.recv()
	}
	pull(t, port, 0, slots)
	must(t, c.far.send(s)) // It is marked TP_STATUS_LOSING.
	pull(t, port, 0, 1)
	must(t, c.far.send(s))
	pull(t, port, 0, 1)
	if d := drops(port); d["rx-kernel"] != uint64(lost) || len(d) != 1 {
		t.Errorf("drops %v, want %d", d, lost)
	}
}

// TestPullBytes: a Pull ends when it has enough for the cache.
func TestPullBytes(t *testing.T) {
	c := newCable(t, 1)
	s := build(recipe{tcp: true, payload: 60000, gso: 1448})
	for range 10 {
		must(t, c.far.send(s))
	}
	arrived(t, c.port, 0, 10)
	b := dataplane.NewBatch(0)
	for _, want := range []int{3, 3, 3, 1, 0} {
		b.Reset()
		c.port.Pull(b)
		if b.N != want || b.More != (want > 0) || b.Bytes != want*len(s.frame) {
			t.Errorf("%d frames of %d bytes, more: %v; want %d frames", b.N, b.Bytes, b.More, want)
		}
	}
}

// flowFrame is the i-th frame of a flow, in one direction or the other.
func flowFrame(flow, i int, back bool) sent {
	s := build(recipe{payload: 32, port: uint16(flow)})
	if back {
		swap(s.frame[26:30], s.frame[30:34])
		swap(s.frame[34:36], s.frame[36:38])
	}
	binary.BigEndian.PutUint32(s.frame[42:], uint32(flow))
	binary.BigEndian.PutUint32(s.frame[46:], uint32(i))
	return s
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// tracker holds frames of numbered flows against what fanout promises: each
// frame once, in the order of its flow, both directions at one worker.
type tracker struct {
	t      *testing.T
	worker map[uint32]int
	next   map[uint32]uint32
	gaps   bool // Frames may be lost.
}

func newTracker(t *testing.T) *tracker {
	return &tracker{t: t, worker: map[uint32]int{}, next: map[uint32]uint32{}}
}

// drain pulls what is there at every worker and returns how much it was.
func (k *tracker) drain(p *Port) int {
	k.t.Helper()
	n := 0
	for worker := range p.queues {
		b := dataplane.NewBatch(worker)
		b.More = true
		for b.More {
			b.Reset()
			p.Pull(b)
			for i := range b.N {
				frame := b.Frames[i].Bytes()
				flow, seq := binary.BigEndian.Uint32(frame[42:]), binary.BigEndian.Uint32(frame[46:])
				if w, seen := k.worker[flow]; seen && w != worker {
					k.t.Errorf("flow %d at worker %d and %d", flow, w, worker)
				}
				if seq < k.next[flow] || seq > k.next[flow] && !k.gaps {
					k.t.Errorf("flow %d: frame %d after %d", flow, seq, int(k.next[flow])-1)
				}
				k.worker[flow], k.next[flow] = worker, seq+1
				n++
			}
		}
	}
	return n
}

func TestFanoutKeepsFlows(t *testing.T) {
	c := newCable(t, 3)
	// A second port beside it must not join its group.
	other := c.open(Config{Interface: "far", Workers: 2})
	k := newTracker(t)
	const flows, rounds = 40, 25
	for round := range rounds {
		for flow := range flows {
			must(t, c.far.send(flowFrame(flow, round, round%2 == 1)))
		}
		n := 0
		await(t, "all frames of a round have come", func() bool { n += k.drain(c.port); return n >= flows })
		if n != flows {
			t.Fatalf("round %d: %d frames of %d", round, n, flows)
		}
	}
	used := map[int]int{}
	for _, w := range k.worker {
		used[w]++
	}
	if len(used) != 3 {
		t.Errorf("flows by worker: %v", used)
	}
	if n := other.Counters().Totals().RxFrames; n > 0 {
		t.Errorf("the other port got %d frames", n)
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
}

// TestOpenUnderFire opens ports while frames arrive all the time: none may come
// twice, out of order or to another worker than its flow's. With more workers the
// group takes longer to form.
func TestOpenUnderFire(t *testing.T) {
	c := newCable(t, 1)
	stop, done := make(chan struct{}), sync.WaitGroup{}
	done.Go(func() {
		for i := 0; ; i++ {
			for flow := range 8 {
				select {
				case <-stop:
					return
				default:
				}
				_ = c.far.send(flowFrame(flow, i, false))
			}
		}
	})
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p := c.open(Config{Interface: "near", Workers: 16, Slots: 15})
			k := newTracker(t)
			k.gaps = true
			for got := 0; got < 500 && !t.Failed(); {
				got += k.drain(p)
			}
			must(t, p.Close())
		})
	}
	close(stop)
	done.Wait()
}

func TestNoAllocations(t *testing.T) {
	c := newCable(t, 1)
	far := c.open(Config{Interface: "far"})
	in := dataplane.NewBatch(0)
	for name, s := range everyFrame() {
		out := batchOf(0, s, s, s)
		pulled := 0
		if n := testing.AllocsPerRun(20, func() {
			far.Push(out)
			end := pulled + 3
			for start := time.Now(); (pulled < end || in.More) && time.Since(start) < patience; {
				in.Reset()
				c.port.Pull(in)
				pulled += in.N
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if pulled != 3*21 { // AllocsPerRun runs once more to warm up.
			t.Errorf("%s: %d frames pulled", name, pulled)
		}
	}
	gso := build(recipe{tcp: true, payload: 30000, gso: 1000})
	b := batchOf(0, gso, build(recipe{payload: 2000}), gso)
	b.Frames[0].Owes.GSOSize = 0xffff // Refused, and cut in software.
	c.ip("link set near mtu 9000")
	if n := testing.AllocsPerRun(20, func() {
		far.Push(b)
		far.queues[0].settle(&b.Frames[2], 0)
		for in.More = true; in.More; {
			in.Reset()
			c.port.Pull(in)
		}
	}); n != 0 {
		t.Errorf("refused frames: %v allocations", n)
	}
	c.ip("link set far down")
	if n := testing.AllocsPerRun(20, func() {
		far.Push(b)
		in.Reset()
		far.Pull(in)
	}); n != 0 {
		t.Errorf("while down: %v allocations", n)
	}
}
