package lab

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// maxTranscript bounds what is kept of one stream, in bytes: the first half
// and the last half.
const maxTranscript = 8 << 20

// transcript keeps what a program prints and wakes who waits for a text.
type transcript struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte
	cut     bool
	ended   bool
	changed chan struct{} // Closed and made anew with every change.
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

// Write implements io.Writer. It never fails.
func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(b), maxTranscript/2-len(t.head))
	t.head = append(t.head, b[:n]...)
	t.tail = append(t.tail, b[n:]...)
	if over := len(t.tail) - maxTranscript/2; over > 0 {
		t.tail = append(t.tail[:0], t.tail[over:]...)
		t.cut = true
	}
	t.wake()
	return len(b), nil
}

func (t *transcript) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *transcript) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.wake()
}

// String returns what was kept, with a line where something was left out.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text()
}

func (t *transcript) text() string {
	if t.cut {
		return string(t.head) + "\n[… cut …]\n" + string(t.tail)
	}
	return string(t.head) + string(t.tail)
}

var errEnded = errors.New("it ended")

// wait returns when text has been printed.
func (t *transcript) wait(ctx context.Context, text string) error {
	for {
		t.mu.Lock()
		found, ended, changed := strings.Contains(t.text(), text), t.ended, t.changed
		t.mu.Unlock()
		switch {
		case found:
			return nil
		case ended:
			return errEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
