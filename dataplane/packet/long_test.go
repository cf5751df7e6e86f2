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

// TestTooLong: BIG TCP's frames of more than 64 KB are dropped, and only those.
func TestTooLong(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set far gso_max_size 131072")
	long := build(recipe{v6: true, tcp: true, payload: 60000, gso: 1000})
	big := long
	big.frame = slices.Concat(long.frame, make([]byte, 10000))
	for _, s := range []sent{long, big, long} {
		must(t, c.far.send(s))
	}
	arrived(t, c.port, 0, 3)
	for _, got := range pull(t, c.port, 0, 2) {
		same(t, got, long)
	}
	if d := drops(c.port); d["rx-truncated"] != 1 || len(d) != 1 {
		t.Errorf("drops %v, want the one that was too long", d)
	}
}
