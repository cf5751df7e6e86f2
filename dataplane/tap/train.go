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
	// maxTrains is how many connections may have trains at a time. Frames of
	// more go alone.
	maxTrains = 4
	// maxCars is the most frames of a train. With the header they are as many
	// pieces as writev takes without memory of its own (UIO_FASTIOV).
	maxCars = 7
)

// train is frames of a batch that are written as one.
type train struct {
	offload.Train
	sel    uint64 // The frames, as in Batch.Sel.
	pieces [1 + maxCars]unix.Iovec
}

// trains are a queue's. They are written in their order: of those of one
// connection only the last may still grow. Between two Pushes there are none, and
// nothing reads what is left of them, whose frames may be unmapped.
type trains struct {
	trains [maxTrains]train
	n      int
	head   [offload.MaxTrainHead]byte
}

// board puts frame i of the batch into a train. It returns false if the frame
// fits none; it then goes behind them all.
func (t *trains) board(b *dataplane.Batch, i int, limit offload.GROMax) bool {
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
	at := train.Begin(frame, &f.Owes, limit)
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

// sendTrains writes the trains and empties them. Like sendEach it returns false if
// the link is down or the device gone.
func (p *Port) sendTrains(q *queue, b *dataplane.Batch, sent *tally) bool {
	up := true
	for k := range q.trains.trains[:q.trains.n] {
		train := &q.trains.trains[k]
		if train.Cars() > 1 {
			switch d := p.sendTrain(q, train); d {
			case dataplane.None:
				for s := train.sel; s != 0; s &= s - 1 {
					sent.add(&b.Frames[dataplane.First(s)])
				}
				continue
			case dataplane.TxDown:
				p.counters.Drop(b.Worker, d, train.Cars())
				up = false
				continue
			}
		}
		up = p.sendEach(q, b, train.sel, sent) && up
	}
	q.trains.n = 0
	return up
}

// sendTrain writes a train as one frame, and returns why it was not sent, or
// None. What has not enough memory in pieces of several pages (ENOBUFS) may be
// sent frame by frame. To a kernel before Linux 6.6, which takes hardly more than
// 64 KB (EMSGSIZE), no such train is offered until the next Refresh.
func (p *Port) sendTrain(q *queue, train *train) dataplane.Drop {
	n := 1 + train.Cars()
	train.pieces[0] = piece(q.trains.head[:train.Head(q.trains.head[:])])
	_, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&train.pieces)), uintptr(n))
	if errno == unix.EMSGSIZE {
		p.gro.shorten()
	}
	return dropFor(errno)
}
