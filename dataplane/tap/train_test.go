package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// car is a super-frame of the connection from a port, n bytes from position at
// of its stream on: byte i of that is i/64 and the port's low byte, in turn.
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

func streamByte(port uint16, at int) byte {
	if at%2 == 0 {
		return byte(at / 64)
	}
	return byte(port)
}

// inOrder tells whether a frame's payload is what follows the given position of
// its connection's stream.
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
		p.Dropped()
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
	p.setGROMax(offload.GROMax{IPv4: BigTCP, IPv6: BigTCP})
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
		for _, data := range got {
			if binary.BigEndian.Uint16(data[12:]) != wire.EtherTypeIPv4 {
				if len(others) == 0 || data[20] != others[0] {
					t.Fatal("other frames come out in another order")
				}
				others = others[1:]
				continue
			}
			port := binary.BigEndian.Uint16(data[34:])
			if !inOrder(data, int(binary.BigEndian.Uint32(data[38:]))) {
				t.Fatal("a payload isn't its stream's")
			}
			at[port] -= len(data) - payloadAt
		}
		checkStreams(t, got)
		for port, left := range at {
			if left != 0 {
				t.Fatalf("%d bytes of connection %d are missing", left, port)
			}
		}
	}
	if out > in*4/5 {
		t.Errorf("%d frames came out of %d: hardly any were joined", out, in)
	}
}

// checkStreams fails the test if a connection's frames don't follow each other.
func checkStreams(t *testing.T, frames [][]byte) {
	t.Helper()
	next := map[uint16]int{}
	for _, data := range frames {
		if binary.BigEndian.Uint16(data[12:]) != wire.EtherTypeIPv4 {
			continue
		}
		port, seq := binary.BigEndian.Uint16(data[34:]), int(binary.BigEndian.Uint32(data[38:]))
		if seq != next[port] {
			t.Fatalf("connection %d goes on at %d, want %d", port, seq, next[port])
		}
		next[port] = seq + len(data) - payloadAt
	}
}

// TestTrainTooLong: what the kernel refuses as one it is given one by one, and
// isn't asked again before the device is.
func TestTrainTooLong(t *testing.T) {
	const length = 40 * 1448
	l := lab.New(t)
	p, fd := onSocket(l, 3*length/4) // Of twice that: a frame fits, two do not.
	for range 3 {
		for at := 0; at < 3*length; at += length {
			p.Push(batchOf(0, car(1, at, length)))
			if got := written(l, fd); len(got) != 1 || !inOrder(got[0], at) {
				t.Fatalf("%d frames are written, want one", len(got))
			}
		}
	}
	p.Push(batchOf(0, car(1, 0, length), car(1, length, length)))
	if got := written(l, fd); len(got) == 0 || len(got[0]) != payloadAt+length {
		t.Error("the train's frames were not written one by one")
	}
	if m := p.groMax(); m.IPv4 != plainGROMax || m.IPv6 != plainGROMax {
		t.Errorf("trains may be %+v long after one was too long", m)
	}
}
