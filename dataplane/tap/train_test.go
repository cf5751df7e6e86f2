package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// payloadAt is where the payload of a TCP frame of transport's begins.
const payloadAt = 54

// car is a frame of the connection from a port, n bytes from position at of its
// stream on.
func car(port uint16, at, n int) frame {
	f := transport(wire.ProtoTCP, port, 80, n)
	binary.BigEndian.PutUint32(f.data[38:], uint32(at))
	for i := range n {
		f.data[payloadAt+i] = streamByte(port, at+i)
	}
	if n > 1448 {
		return f.gso(wire.VNetGSOTCP4, 1448)
	}
	return f
}

// streamByte is another for each place and stream (Knuth's multiplicative hash).
func streamByte(port uint16, at int) byte {
	return byte(((uint32(at) + uint32(port)<<20) * 2654435769) >> 24)
}

// inOrder tells whether a frame is what follows the given position of its
// connection's stream.
func inOrder(data []byte, at int) bool {
	port, seq := binary.BigEndian.Uint16(data[34:]), int(binary.BigEndian.Uint32(data[38:]))
	for i, c := range data[payloadAt:] {
		if c != streamByte(port, at+i) {
			return false
		}
	}
	return seq == at
}

// TestTrains: super-frames that follow each other reach the interface as one, as
// long as the device has it that packets may be, and each counts.
func TestTrains(t *testing.T) {
	const length = 40 * 1448
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", GROMax: BigTCP})
	s := openSocket(l, ns, "t0")
	push := func() *dataplane.Batch {
		b := batchOf(0, car(1, 0, length), car(1, length, length), car(1, 2*length, length), car(1, 3*length, 100))
		p.Push(b)
		return b
	}
	expect := func(payloads ...int) {
		t.Helper()
		at := 0
		for _, n := range payloads {
			data, owes, err := s.receive()
			l.NoError(err)
			if len(data) != payloadAt+n || !inOrder(data, at) || owes.GSO() != (n > 1448) || !owes.Partial() {
				t.Errorf("at %d: %d bytes owing %+v, want a payload of %d", at, len(data), owes, n)
			}
			at += n
		}
	}
	push()
	expect(3*length + 100)
	link, err := ns.Link("t0")
	l.NoError(err)
	for _, c := range []struct {
		size int
		want []int
	}{
		{150_000, []int{2 * length, length + 100}},
		{65536, []int{length, length, length + 100}},
		{1000, []int{length, length, length, 100}},
		{BigTCP, []int{3*length + 100}},
	} {
		l.NoError(ns.Netlink().LinkSetGROIPv4MaxSize(link, c.size))
		p.Refresh()
		push()
		expect(c.want...)
	}
	if c := p.Counters().Totals(); c.TxFrames != 20 || c.TxBytes != 5*(3*length+100+4*payloadAt) {
		t.Errorf("tx counted %d frames and %d bytes", c.TxFrames, c.TxBytes)
	}
}

// onSocket is a port whose queue is one end of a pair of sockets that keep
// messages apart, as a TAP does frames, and the other end.
func onSocket(t *lab.T, room int) (*Port, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	t.NoError(err)
	t.Cleanup(func() { t.NoError(errors.Join(unix.Close(fds[0]), unix.Close(fds[1]))) })
	t.NoError(unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room))
	p := &Port{queues: []queue{{fd: fds[0]}}, counters: dataplane.NewCounters(1)}
	p.gro.set(offload.GROMax{IPv4: BigTCP, IPv6: BigTCP})
	return p, fds[1]
}

// written returns the messages that a queue wrote.
func written(t *lab.T, fd int) (frames [][]byte) {
	t.Helper()
	b := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		t.NoError(err)
		frames = append(frames, bytes.Clone(b[wire.VNetHdrLen:n]))
	}
}

// TestTrainsKeepOrder: whatever a batch holds, each connection's stream comes out
// as it went in, and so do frames that are in no stream.
func TestTrainsKeepOrder(t *testing.T) {
	l := lab.New(t)
	p, fd := onSocket(l, 64<<20)
	r := rand.New(rand.NewPCG(36, 36))
	in, out := 0, 0
	for range 300 {
		var frames []frame
		at := map[uint16]int{}
		var others []byte
		for range 1 + r.IntN(20) {
			port := uint16(1 + r.IntN(1+r.IntN(2*maxTrains)))
			switch r.IntN(12) {
			case 0:
				others = append(others, byte(r.Uint32()))
				frames = append(frames, frame{data: plain(60, int(others[len(others)-1]))})
			case 1, 2:
				n := 1 + r.IntN(1448)
				frames = append(frames, car(port, at[port], n))
				at[port] += n
			default:
				n := 1448 * (2 + r.IntN(10))
				frames = append(frames, car(port, at[port], n))
				at[port] += n
			}
		}
		before := p.Counters().Totals().TxFrames
		p.Push(batchOf(0, frames...))
		if n := int(p.Counters().Totals().TxFrames - before); n != len(frames) {
			t.Fatalf("tx counted %d frames of %d", n, len(frames))
		}
		got := written(l, fd)
		in, out = in+len(frames), out+len(got)
		next := map[uint16]int{}
		for _, data := range got {
			if binary.BigEndian.Uint16(data[12:]) != wire.EtherTypeIPv4 {
				if len(others) == 0 || data[20] != others[0] {
					t.Fatal("other frames come out in another order")
				}
				others = others[1:]
				continue
			}
			port := binary.BigEndian.Uint16(data[34:])
			if !inOrder(data, next[port]) {
				t.Fatalf("connection %d doesn't go on at %d", port, next[port])
			}
			next[port] += len(data) - payloadAt
		}
		if !maps.Equal(next, at) || len(others) > 0 {
			t.Fatalf("connections came to %v, want %v; %d other frames are missing", next, at, len(others))
		}
	}
	if out > in*4/5 {
		t.Errorf("%d frames came out of %d: hardly any were joined", out, in)
	}
}

// TestTrainTooLong: what the kernel refuses as one it is given one by one, and
// isn't asked again before the device is.
func TestTrainTooLong(t *testing.T) {
	const length = 40 * 1448
	l := lab.New(t)
	p, fd := onSocket(l, 3*length/4) // Of twice that: longer than a frame, shorter than two.
	p.Push(batchOf(0, car(1, 0, length), car(1, length, length)))
	if got := written(l, fd); len(got) != 2 || !inOrder(got[0], 0) || !inOrder(got[1], length) {
		t.Errorf("%d frames are written, want the two that were too long as one", len(got))
	}
	if c := p.Counters().Totals(); c.TxFrames != 2 || c.TxBytes != 2*(payloadAt+length) {
		t.Errorf("tx counted %d frames and %d bytes", c.TxFrames, c.TxBytes)
	}
	if m := p.gro.get(); m.IPv4 != plainGROMax || m.IPv6 != plainGROMax {
		t.Errorf("trains may be %+v long after one was too long", m)
	}
	p.gro.set(offload.GROMax{IPv4: 1000, IPv6: BigTCP})
	if p.gro.shorten(); p.gro.get() != (offload.GROMax{IPv4: 1000, IPv6: plainGROMax}) {
		t.Errorf("shortened to %+v", p.gro.get())
	}
}

// TestTrainsToALinkThatIsDown: every frame is dropped once, in trains and behind
// them.
func TestTrainsToALinkThatIsDown(t *testing.T) {
	const length = 20 * 1448
	l := lab.New(t)
	ns := quiet(l, "a")
	p := openIn(l, ns, Config{Name: "t0", GROMax: BigTCP})
	l.NoError(ns.SetUp("t0", false))
	b := batchOf(0, car(1, 0, length), car(2, 0, length), car(1, length, length), car(3, 0, length),
		frame{data: plain(60, 1)}, car(1, 2*length, length), car(1, 3*length, length), frame{data: plain(60, 2)})
	p.Push(b)
	if c := p.Counters().Totals(); c.TxFrames != 0 || c.Drops[dataplane.TxDown] != uint64(b.N) {
		t.Errorf("sent %d, drops %v: want %d for the link", c.TxFrames, c.Drops, b.N)
	}
}
