// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tap

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
	"heddle/dataplane/offload"
)

const (
	// maxTrains is how many connections may have trains at a time.
	maxTrains = 4
	// maxCars is the most frames of a train. With the header they are as many
	// pieces as writev takes without memory of its own (UIO_FASTIOV).
	maxCars = 7
	// plainGROMax is what both are by default: a packet has up to 65,535 bytes.
	plainGROMax = 65536
)

// BigTCP is a Config.GROMax that what a Pull brings of one connection fits, in
// bytes.
const BigTCP = 256 << 10

// train is frames of a batch that are written as one.
type train struct {
	offload.Train
	sel    uint64 // The frames, as in Batch.Sel.
	pieces [1 + maxCars]unix.Iovec
}

// trains are a queue's. They are empty between two Pushes, and written in their
// order: of those of one connection only the last may still grow.
type trains struct {
	trains [maxTrains]train
	n      int
	head   [offload.MaxTrainHead]byte
}

// board puts frame i of the batch into a train. It returns false if the frame
// fits none; it then goes behind them all.
func (t *trains) board(b *dataplane.Batch, i int, max offload.GROMax) bool {
	f := &b.Frames[i]
	frame := f.Bytes()
	for k := t.n - 1; k >= 0; k-- {
		train := &t.trains[k]
		if !train.Carries(frame) {
			continue
		}
		if train.Cars() < maxCars {
			if at := train.Add(frame, &f.Owes); at > 0 {
				train.take(i, frame[at:])
				return true
			}
		}
		break
	}
	if t.n == maxTrains {
		return false
	}
	train := &t.trains[t.n]
	at := train.Begin(frame, &f.Owes, max)
	if at == 0 {
		return false
	}
	t.n++
	train.sel = 0
	train.take(i, frame[at:])
	return true
}

// take notes frame i, which the train has been given, and its payload.
func (t *train) take(i int, payload []byte) {
	t.sel |= 1 << i
	t.pieces[t.Cars()] = piece(payload)
}

func piece(b []byte) unix.Iovec {
	return unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
}

// sendTrains writes the trains, counts their frames and empties them.
func (p *Port) sendTrains(q *queue, b *dataplane.Batch, sent *tally) {
	t := &q.trains
	for k := range t.n {
		train := &t.trains[k&(maxTrains-1)]
		if train.Cars() == 1 || !p.sendTrain(q, train) {
			p.sendEach(q, b, train.sel, sent)
			continue
		}
		for s := train.sel; s != 0; s &= s - 1 {
			sent.add(&b.Frames[dataplane.First(s)])
		}
	}
	t.n = 0
}

// sendTrain writes a train as one frame, and returns false if it was not sent. A
// kernel that hasn't enough memory in pieces of many pages may take the frames
// one by one. One before Linux 6.6 never takes so long a frame, and is
// offered no more of them until Dropped asks.
func (p *Port) sendTrain(q *queue, train *train) bool {
	n := 1 + train.Cars()
	train.pieces[0] = piece(q.trains.head[:train.Head(q.trains.head[:])])
	_, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&train.pieces)), uintptr(n))
	if errno == unix.EMSGSIZE {
		p.setGROMax(offload.GROMax{})
	}
	return errno == 0
}
