package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// window is how many of a flow's latest sequence numbers the checker knows one
// by one; a duplicate that comes later than that counts as late.
const window = 1 << 16

// Received counts what a receiver has seen.
type Received struct {
	Delivered  uint64 `json:"delivered"`  // Intact frames, each counted once.
	Duplicates uint64 `json:"duplicates"` // Intact, but seen before.
	Reordered  uint64 `json:"reordered"`  // Delivered after a later one of its flow.
	Late       uint64 `json:"late"`       // Intact, but more than 65,536 behind: not delivered.
	Corrupt    uint64 `json:"corrupt"`    // Of this run by its first bytes, but damaged.
	Foreign    uint64 `json:"foreign"`    // Something else's; no fault.
	// RingDropped is what the kernel could not put into the receiver's ring:
	// the receiver's fault, not the path's.
	RingDropped uint64 `json:"ring_dropped"`
	// Seconds is the time from the first frame delivered to the last, by the
	// kernel's clock.
	Seconds float64 `json:"seconds"`
}

// Rate returns the delivered frames a second, of the time in which they were sent
// or of that in which they came, whichever is longer: what a path holds back and
// gives out at once doesn't count as fast.
func (r Received) Rate(s Sent) float64 {
	if r.Delivered == 0 || r.Seconds <= 0 {
		return 0
	}
	return float64(r.Delivered-1) / max(r.Seconds, s.Seconds)
}

// Verify tells what is wrong with what came of the frames sent: damage,
// duplicates, reordering, more than was sent, a receiver that could not keep
// up, or nothing at all. Loss alone is no fault of a path under overload.
func (r Received) Verify(sent uint64) error {
	var errs []error
	for _, fault := range []struct {
		n    uint64
		what string
	}{
		{r.Corrupt, "damaged"}, {r.Duplicates, "duplicated"}, {r.Reordered, "reordered"},
		{r.Late, "very late"}, {r.RingDropped, "lost by the receiver itself"},
	} {
		if fault.n > 0 {
			errs = append(errs, fmt.Errorf("%d frames %s", fault.n, fault.what))
		}
	}
	if r.Delivered > sent {
		errs = append(errs, fmt.Errorf("%d frames delivered, but only %d sent", r.Delivered, sent))
	}
	if r.Delivered < 2 {
		errs = append(errs, errors.New("no frames delivered"))
	}
	return errors.Join(errs...)
}

// Checker holds every frame against what was sent. One goroutine uses it.
type Checker struct {
	templates [][]byte
	routed    bool
	flows     []flowState
	received  Received
}

// flowState is what has come of one flow.
type flowState struct {
	// adopted tells that the template has what the path chose; valid only if
	// the frames are routed.
	adopted bool
	next    uint64              // One more than the highest sequence number seen.
	seen    [window / 64]uint64 // Bit seq%window, valid for next-window ≤ seq < next.
}

// NewChecker returns a checker for a run of frames.
func NewChecker(f Frames) (*Checker, error) {
	templates, err := f.templates()
	if err != nil {
		return nil, err
	}
	return &Checker{templates: templates, routed: f.Routed, flows: make([]flowState, f.Flows)}, nil
}

// Received returns the counts so far.
func (c *Checker) Received() Received { return c.received }

// Check counts a frame, and tells whether it is delivered.
func (c *Checker) Check(frame []byte) bool {
	first := c.templates[0]
	if !c.ours(frame) {
		c.received.Foreign++
		return false
	}
	if len(frame) != len(first) {
		c.received.Corrupt++
		return false
	}
	flow := binary.BigEndian.Uint16(frame[offFlow:])
	seq := binary.BigEndian.Uint64(frame[offSeq:])
	if int(flow) >= len(c.templates) {
		c.received.Corrupt++
		return false
	}
	if c.routed && !c.flows[flow].adopted {
		c.adopt(frame, int(flow))
	}
	if !intact(frame, c.templates[flow], flow, seq) {
		c.received.Corrupt++
		return false
	}
	return c.count(&c.flows[flow], seq)
}

// ours tells whether a frame is addressed as this run's: what isn't is somebody
// else's.
func (c *Checker) ours(frame []byte) bool {
	first := c.templates[0]
	if c.routed { // From whom is the path's choice.
		return len(frame) >= headerLen && bytes.Equal(frame[:offSrcMAC], first[:offSrcMAC]) &&
			bytes.Equal(frame[offType:14], first[offType:14]) && frame[offProto] == first[offProto]
	}
	return len(frame) >= 14 && bytes.Equal(frame[:14], first[:14])
}

// adopt takes what the path has chosen for a flow into its template, if no
// other flow has the same port.
func (c *Checker) adopt(frame []byte, flow int) {
	port := frame[offSrcPort : offSrcPort+2]
	for i := range c.flows {
		if c.flows[i].adopted && bytes.Equal(c.templates[i][offSrcPort:offSrcPort+2], port) {
			return
		}
	}
	copy(c.templates[flow][offSrcMAC:offType], frame[offSrcMAC:offType])
	copy(c.templates[flow][offSrcPort:], port)
	c.flows[flow].adopted = true
}

// intact tells whether every byte is as sent.
func intact(frame, template []byte, flow uint16, seq uint64) bool {
	if !bytes.Equal(frame[:offSeq], template[:offSeq]) {
		return false
	}
	h := hash(flow, seq, len(frame))
	if binary.BigEndian.Uint32(frame[offHash:]) != h {
		return false
	}
	for _, b := range frame[offFiller:] {
		if b != byte(h) {
			return false
		}
	}
	return true
}

func (c *Checker) count(f *flowState, seq uint64) bool {
	word, bit := &f.seen[seq%window/64], uint64(1)<<(seq%64)
	switch {
	case seq >= f.next:
		f.forget(seq)
		*word |= bit
		f.next = seq + 1
	case f.next-seq > window:
		c.received.Late++
		return false
	case *word&bit != 0:
		c.received.Duplicates++
		return false
	default:
		*word |= bit
		c.received.Reordered++
	}
	c.received.Delivered++
	return true
}

// forget clears the bits of the sequence numbers from next to seq, which have
// not been seen.
func (f *flowState) forget(seq uint64) {
	if seq-f.next >= window {
		clear(f.seen[:])
		return
	}
	for s := f.next; s <= seq; s++ {
		f.seen[s%window/64] &^= 1 << (s % 64)
	}
}
