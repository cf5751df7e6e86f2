package daemon

import (
	"errors"
	"testing"

	"heddle/ctl/api"
	"heddle/dataplane/mem"
)

// TestReasonIsThereFirst: a port that is about to go down has its reason before it
// is detached, so that nobody sees it down without one.
func TestReasonIsThereFirst(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	why := errors.New("link down")
	d.wiring.Lock() // As a capture that begins: nothing is detached meanwhile.
	d.h.breakLink(linkA, why)
	p := d.ports["a"]
	await(t, "the reason", func() bool {
		d.mu.RLock()
		defer d.mu.RUnlock()
		return p.attached && errors.Is(p.down, why)
	})
	if v := d.port("a"); v.State != api.StateUp || v.Reason != "" {
		t.Errorf("before it is detached: %+v", v)
	}
	d.wiring.Unlock()
	await(t, "it is down", func() bool { v := d.port("a"); return v.State == api.StateDown && v.Reason == why.Error() })
}

// TestCountsAreThereOnce: who looks at a port while its device is given back, which
// may take a while, finds its frames once, and why it is down.
func TestCountsAreThereOnce(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUp()
	d.h.device(linkA).mem.Inject(0, mem.Frame{Data: frame(0xff, 1)})
	await(t, "a frame counted", func() bool { return d.port("a").RxFrames == 1 })
	looked := make(chan struct{}, 10)
	d.h.set(func() {
		d.h.onRelease = func() {
			if p, err := d.Port("a"); err != nil || p.State != api.StateDown || p.Reason == "" || p.RxFrames != 1 {
				t.Errorf("%+v, %v", p, err)
			}
			if s := d.Status(); s.RxFrames != 1 {
				t.Errorf("%d frames in all", s.RxFrames)
			}
			looked <- struct{}{}
		}
	})
	d.h.breakLink(linkA, goneError{errors.New("link gone")})
	<-looked
	await(t, "it is back", func() bool { return d.port("a").State == api.StateUp })
	d.must("DELETE", api.PathPorts+"/a", nil, nil)
	<-looked
	d.h.set(func() { d.h.onRelease = nil })
}
