package packet

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// aroundASlot returns frames as long as a slot holds, about as long, and as long
// as a veth carries by default (gso_max_size).
func aroundASlot() (all []sent) {
	headers := len(build(recipe{tcp: true}).frame)
	fits := slotLen - plainMAC - headers
	for _, payload := range []int{fits - 1, fits, fits + 1, 65535 - headers} {
		all = append(all, build(recipe{tcp: true, payload: payload, gso: 1000, seed: uint64(payload)}))
	}
	return all
}

func TestAroundASlot(t *testing.T) {
	c := newCable(t, 1)
	all := aroundASlot()
	for _, s := range all {
		must(t, c.far.send(s))
	}
	for i, got := range pull(t, c.port, 0, len(all)) {
		same(t, got, all[i])
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
}

// TestLongBorrowed: a long frame stays what it is until the next Pull, whatever
// arrives.
func TestLongBorrowed(t *testing.T) {
	c := newCable(t, 1)
	long := build(recipe{tcp: true, payload: 30000, gso: 1000, seed: 1})
	must(t, c.far.send(long))
	arrived(t, c.port, 0, 1)
	b := dataplane.NewBatch(0)
	c.port.Pull(b)
	for range 10 {
		must(t, c.far.send(build(recipe{tcp: true, payload: 30000, gso: 1000, seed: 2})))
	}
	arrived(t, c.port, 0, 10)
	same(t, sent{b.Frames[0].Bytes(), b.Frames[0].Owes}, long)
}

// pullAtOnce sends frames from the far end and returns them as one Pull brings them.
func (c *cable) pullAtOnce(all []sent) *dataplane.Batch {
	c.tb.Helper()
	for _, s := range all {
		must(c.tb, c.far.send(s))
	}
	arrived(c.tb, c.port, 0, len(all))
	b := dataplane.NewBatch(0)
	c.port.Pull(b)
	if b.N != len(all) {
		c.tb.Fatalf("%d of %d frames, drops: %v", b.N, len(all), drops(c.port))
	}
	return b
}

// TestLongHeadroom: each frame in the slab has its headroom to itself, with a tag
// that was put back and without.
func TestLongHeadroom(t *testing.T) {
	c := newCable(t, 1)
	var all []sent
	for i := range 20 {
		r := recipe{tcp: true, payload: 2000 + 13*i, gso: 1000, seed: uint64(i)}
		if i%3 == 1 {
			r.tags = twoTags
		}
		all = append(all, build(r))
	}
	b := c.pullAtOnce(all)
	for i := range b.N {
		clear(b.Frames[i].WithHeadroom(dataplane.Headroom)[:dataplane.Headroom])
	}
	for i := range b.N {
		same(t, sent{b.Frames[i].Bytes(), b.Frames[i].Owes}, all[i])
	}
}

// TestSlabHoldsAPull: a batch of frames with as much padding between them as there
// can be, a last one as long as any, and so many bytes before it as a Pull takes.
func TestSlabHoldsAPull(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set far gso_max_size 131072")
	headers := len(build(recipe{v6: true, tcp: true}).frame)
	end := (dataplane.PullBytes/(dataplane.BatchSize-1))&^(line-1) - slabStart%line + 1 // One byte into a line.
	lengths := slices.Repeat([]int{end}, dataplane.BatchSize-1)
	lengths[0] += (dataplane.PullBytes - 1 - end*len(lengths)) &^ (line - 1)
	var all []sent
	for i, n := range append(lengths, dataplane.MaxFrame) {
		all = append(all, build(recipe{v6: true, tcp: true, payload: n - headers, gso: 1000, seed: uint64(i)}))
	}
	b := c.pullAtOnce(all)
	for i := range b.N {
		same(t, sent{b.Frames[i].Bytes(), b.Frames[i].Owes}, all[i])
	}
}

// TestReceiveBufferFull: a long frame that finds no room in it is lost, and what
// comes after it is what it was.
func TestReceiveBufferFull(t *testing.T) {
	c := newCable(t, 1)
	must(t, unix.SetsockoptInt(c.port.queues[0].fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	long, short := build(recipe{tcp: true, payload: 30000, gso: 1000}), build(recipe{payload: 18})
	for _, s := range []sent{long, long, short, long} {
		must(t, c.far.send(s))
	}
	arrived(t, c.port, 0, 4)
	for i, got := range pull(t, c.port, 0, 2) {
		same(t, got, []sent{long, short}[i])
	}
	must(t, c.far.send(long))
	same(t, pull(t, c.port, 0, 1)[0], long)
	if d := drops(c.port); d["rx-kernel"] != 2 || len(d) != 1 {
		t.Errorf("drops %v, want 2 that found the buffer full", d)
	}
}

// TestLongAfterDown: the error that waits at a socket whose interface went down
// is told before the frames that came first.
func TestLongAfterDown(t *testing.T) {
	c := newCable(t, 1)
	all := aroundASlot()
	for _, s := range all {
		must(t, c.far.send(s))
	}
	arrived(t, c.port, 0, len(all))
	c.ip("link set near down")
	for i, got := range pull(t, c.port, 0, len(all)) {
		same(t, got, all[i])
	}
}

// TestTooLong: BIG TCP's frames of more than 64 KB are dropped, and only those,
// wherever in the slab they would come to lie. They count for the end of a Pull:
// their sender has no more of the worker than others.
func TestTooLong(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set far gso_max_size 262144")
	long := build(recipe{v6: true, tcp: true, payload: 60000, gso: 1000})
	big := long
	big.frame = slices.Concat(long.frame, make([]byte, 120000))
	for _, s := range []sent{long, big, long, long, big, big, big} {
		must(t, c.far.send(s))
	}
	arrived(t, c.port, 0, 7)
	b := dataplane.NewBatch(0)
	for _, want := range []struct{ frames, slots int }{{1, 2}, {2, 3}, {0, 1}, {0, 1}, {0, 0}} {
		b.Reset()
		c.port.Pull(b)
		if n := c.port.queues[0].lent; b.N != want.frames || n != want.slots || b.More != (n > 0) {
			t.Errorf("%d frames of %d slots, more: %v; want %+v", b.N, n, b.More, want)
		}
		for _, f := range b.Frames[:b.N] {
			same(t, sent{f.Bytes(), f.Owes}, long)
		}
	}
	if d := drops(c.port); d["rx-truncated"] != 4 || len(d) != 1 {
		t.Errorf("drops %v, want those that were too long", d)
	}
}
