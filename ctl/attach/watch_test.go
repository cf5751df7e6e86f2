package attach

import (
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// watch starts a Watcher of a namespace for the length of the test.
func watch(t *testing.T, own *netns) *Watcher {
	t.Helper()
	w, err := Watch(own.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// awaitEvent returns the first event that is wanted.
func awaitEvent(t *testing.T, w *Watcher, want func(e LinkEvent) bool) LinkEvent {
	t.Helper()
	for {
		if e := within(t, w.Events()); want(e) {
			return e
		}
	}
}

func TestWatch(t *testing.T) {
	checkLeaks(t)
	own, other, stranger := newNetNS(t), newNetNS(t), newNetNS(t)
	w := watch(t, own)
	for range 2 {
		if err := w.Follow(other.Namespace); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Follow(own.Namespace); err != nil {
		t.Fatal(err)
	}
	stranger.addVeth(t, "a", "b")
	for _, ns := range []*netns{own, other} {
		about := func(kind EventKind, is func(l Link) bool) {
			t.Helper()
			awaitEvent(t, w, func(e LinkEvent) bool {
				if e.NS == stranger.ID() {
					t.Errorf("of a namespace that isn't followed: %+v", e)
				}
				return e.Kind == kind && e.NS == ns.ID() && e.Link.Name == "a" && is(e.Link)
			})
		}
		ns.addVeth(t, "a", "b")
		about(LinkChanged, func(l Link) bool { return !l.Up })
		ns.setUp(t, "a", "b")
		about(LinkChanged, func(l Link) bool { return l.Up && l.Running })
		ns.ip(t, "link set dev a mtu 1300")
		about(LinkChanged, func(l Link) bool { return l.MTU == 1300 })
		ns.ip(t, "link set dev b down")
		about(LinkChanged, func(l Link) bool { return l.Up && !l.Running })
		ns.ip(t, "link del dev a")
		about(LinkDeleted, func(Link) bool { return true })
	}
}

// A bridge port that leaves its bridge is announced as deleted, to those who
// ask for bridges.
func TestWatchTellsALinkFromABridgePort(t *testing.T) {
	checkLeaks(t)
	own := newNetNS(t)
	own.addVeth(t, "a", "b")
	own.ip(t, "link add br7 type bridge")
	w := watch(t, own)
	own.ip(t, "link set dev a master br7")
	own.ip(t, "link set dev a nomaster")
	own.ip(t, "link set dev a mtu 1234")
	enslaved := false
	awaitEvent(t, w, func(e LinkEvent) bool {
		if e.Kind != LinkChanged {
			t.Errorf("%+v", e)
		}
		enslaved = enslaved || e.Link.Name == "a" && e.Link.MasterIndex != 0
		return e.Link.MTU == 1234
	})
	if !enslaved {
		t.Error("no event says that it has a master")
	}
}

// The Watcher is no reason for a namespace to live on.
func TestWatchSeesANamespaceEnd(t *testing.T) {
	checkLeaks(t)
	own, other := newNetNS(t), newNetNS(t)
	w := watch(t, own)
	if err := w.Follow(other.Namespace); err != nil {
		t.Fatal(err)
	}
	create(t, pairOf(other, own), false)
	id := other.ID()
	unbind(other.path)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	ended, deleted := false, false
	awaitEvent(t, w, func(e LinkEvent) bool {
		ended = ended || e.Kind == NamespaceEnded && e.NS == id
		deleted = deleted || e.Kind == LinkDeleted && e.NS == own.ID() && e.Link.Name == "hd-web"
		return ended && deleted
	})
}

// The kernel gives the number of a namespace that has ended to the next one
// that is followed, whether or not a reader has heard of the end.
func TestWatchTellsANamespaceFromTheOneBefore(t *testing.T) {
	checkLeaks(t)
	own, before := newNetNS(t), newNetNS(t)
	behind, ahead := watch(t, own), watch(t, own)
	for _, w := range []*Watcher{behind, ahead} {
		if err := w.Follow(before.Namespace); err != nil {
			t.Fatal(err)
		}
	}
	number := func(ns *netns) (n int) {
		t.Helper()
		fd := int(ns.file.Fd())
		own.do(t, func() (err error) {
			n, err = netlink.GetNetNsIdByFd(fd)
			return err
		})
		return n
	}
	given := number(before)
	own.addVeth(t, "x", "y") // The one behind stands at these.
	id := before.ID()
	unbind(before.path)
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	ended := func(e LinkEvent) bool { return e.Kind == NamespaceEnded }
	awaitEvent(t, ahead, ended)
	after := newNetNS(t)
	for range 2 {
		if err := behind.Follow(after.Namespace); err != nil {
			t.Fatal(err)
		}
	}
	if got := number(after); got != given {
		t.Fatalf("it has number %d, the one before had %d: this proves nothing", got, given)
	}
	after.addVeth(t, "a", "b")
	if e := awaitEvent(t, behind, ended); e.NS != id {
		t.Errorf("%v ended, want %v", e.NS, id)
	}
	awaitEvent(t, behind, func(e LinkEvent) bool {
		if ended(e) {
			t.Errorf("%v ended too", e.NS)
		}
		return e.NS == after.ID() && e.Link.Name == "a"
	})
}

// A reader that is behind is told so, and goes on.
func TestWatchResync(t *testing.T) {
	checkLeaks(t)
	own := newNetNS(t)
	own.addVeth(t, "a", "b")
	w := watch(t, own)
	own.do(t, func() error {
		l, err := netlink.LinkByName("a")
		for i := range 4000 {
			if err == nil {
				err = netlink.LinkSetMTU(l, 1000+i%2)
			}
		}
		return err
	})
	awaitEvent(t, w, func(e LinkEvent) bool { return e.Kind == Resync })
	// What is asked for now is never contradicted by an older event.
	before := own.link(t, "a")
	own.ip(t, "link set dev a mtu 1234")
	if e := within(t, w.Events()); e.Link.MTU != 1234 || before.MTU != 1001 {
		t.Errorf("%+v after Resync with %+v", e, before)
	}
}

func TestWatchClose(t *testing.T) {
	checkLeaks(t)
	own := newNetNS(t)
	w := watch(t, own)
	own.addVeth(t, "a", "b") // Events that nobody reads hold nothing up.
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if e, ok := <-w.Events(); ok {
		t.Errorf("after Close: %+v", e)
	}
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Watch(own.Namespace); err == nil {
		t.Errorf("of a closed namespace: no error, want %v", os.ErrClosed)
	}
}
