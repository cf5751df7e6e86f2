package load

import (
	"context"
	"testing"
	"time"

	"heddle/bench/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// a ── veth ── host: bridge ── veth ── b
//
//	sender at a                   receiver at b
func bridged(t *testing.T) (a, b *lab.NetNS) {
	l := lab.New(t)
	a, b, host := l.NewNetNS("a"), l.NewNetNS("b"), l.NewNetNS("host")
	l.Veth(host, "p0", a, "eth0")
	l.Veth(host, "p1", b, "eth0")
	l.NoError(host.AddBridge("br0", "p0", "p1"))
	return a, b
}

// idle is for how long a sender may be kept from a core without its frames being
// taken for all.
const idle = 3 * time.Second

// run sends frames from a to b and returns what was sent and what came.
func run(t *testing.T, a, b *lab.NetNS, f Frames, d time.Duration, rate float64) (Sent, Received) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d+60*time.Second)
	defer cancel()
	var receiver *Receiver
	err := b.Do(func() (err error) {
		receiver, err = OpenReceiver("eth0", f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	var sent Sent
	done := make(chan error, 1)
	go func() {
		done <- a.Do(func() (err error) {
			sent, err = Send(ctx, "eth0", f, d, rate)
			return err
		})
	}()
	received, err := receiver.Run(ctx, idle)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("nothing came to an end in time")
	}
	return sent, received
}

func TestFullSpeedOverBridge(t *testing.T) {
	a, b := bridged(t)
	sent, received := run(t, a, b, DefaultFrames(), 500*time.Millisecond, 0)
	t.Logf("sent %d, received %+v: %.0f frames/s", sent.Frames, received, received.Rate(sent))
	received.RingDropped = 0 // A machine busy with other tests may starve the receiver.
	if err := received.Verify(sent.Frames); err != nil {
		t.Error(err)
	}
}

// All frames together fit into any queue on the way, of which the shortest takes
// 1,000 (net.core.netdev_max_backlog): none gets lost, whoever waits for a core.
func TestRatedFlowsOverBridge(t *testing.T) {
	a, b := bridged(t)
	f := DefaultFrames()
	f.Flows, f.Size = 7, 1514
	const rate, tries = 900, 5
	for range tries {
		sent, received := run(t, a, b, f, time.Second, rate)
		if err := received.Verify(sent.Frames); err != nil {
			t.Error(err)
		}
		if sent.Frames > rate {
			t.Errorf("sent %d in a second at a rate of %d", sent.Frames, rate)
		}
		if received.Delivered != sent.Frames {
			t.Errorf("%d of %d arrived", received.Delivered, sent.Frames)
		}
		if sent.Frames > rate/2 {
			return
		}
		// It had no core for half of the second.
	}
	t.Errorf("never sent at a rate of %d", rate)
}

// A path that goes nowhere gives nothing, and the run says so.
func TestCutPath(t *testing.T) {
	l := lab.New(t)
	a, b := l.NewNetNS("a"), l.NewNetNS("b")
	l.Veth(a, "eth0", a, "peer")
	l.Veth(b, "eth0", b, "peer")
	var receiver *Receiver
	l.NoError(b.Do(func() (err error) {
		receiver, err = OpenReceiver("eth0", DefaultFrames())
		return err
	}))
	defer func() { l.NoError(receiver.Close()) }()
	var sent Sent
	l.NoError(a.Do(func() (err error) {
		sent, err = Send(t.Context(), "eth0", DefaultFrames(), 50*time.Millisecond, 0)
		return err
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	received, err := receiver.Run(ctx, time.Second)
	l.NoError(err)
	if received.Verify(sent.Frames) == nil {
		t.Errorf("%+v of %+v passed as delivered", received, sent)
	}
}

func TestMissingInterface(t *testing.T) {
	l := lab.New(t)
	err := l.NewNetNS("a").Do(func() error {
		_, err := OpenReceiver("nosuch0", DefaultFrames())
		return err
	})
	if err == nil {
		t.Error("an interface that doesn't exist was opened")
	}
}

// A flood is as fast as asked at most, ends with its context, and each frame of
// it is what vary makes.
func TestFlood(t *testing.T) {
	a, b := bridged(t)
	f := DefaultFrames()
	templates, err := f.templates()
	if err != nil {
		t.Fatal(err)
	}
	var receiver *Receiver
	if err := b.Do(func() (err error) { receiver, err = OpenReceiver("eth0", f); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	}()
	const rate = 20_000
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var sent Sent
	done := make(chan error, 1)
	go func() {
		done <- a.Do(func() (err error) {
			sent, err = Flood(ctx, "eth0", templates[0], func(frame []byte, n uint64) { stamp(frame, 0, n) }, rate)
			return err
		})
	}()
	received, err := receiver.Run(t.Context(), idle)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if most := uint64(sent.Seconds*rate) + sendBatch; sent.Frames == 0 || sent.Frames > most {
		t.Errorf("%d frames in %.3f s at %d a second, at most", sent.Frames, sent.Seconds, rate)
	}
	if err := received.Verify(sent.Frames); err != nil {
		t.Error(err)
	}
}
