package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// settle is how long changes are gathered before the state is asked for:
	// at most 20 times a second, however fast they come.
	settle = 50 * time.Millisecond
	// askAgain is how often a next hop without a MAC is asked for.
	askAgain = time.Second
)

// UplinkWatcher tells the states of an interface. It goes by the name: the
// interface may go and come back.
type UplinkWatcher struct {
	ns     *Namespace // Its own.
	name   string
	socket *os.File
	states chan UplinkState // Holds the newest.
	dirty  chan struct{}    // Holds one: something may have changed.
	closed chan struct{}
	done   sync.WaitGroup
	once   sync.Once

	// read asks for the state, on a thread of the namespace.
	read func(name string) (UplinkState, error)

	mu   sync.Mutex
	last UplinkState // What was told last.
	// asking means that the state is being asked for, so that the last one doesn't
	// say which messages concern it.
	asking bool
}

// WatchUplink starts to tell the states of an interface. While the kernel
// doesn't know the MAC of a next hop, and the interface is up, it is made to
// ask once a second. ns may be closed afterwards.
func (ns *Namespace) WatchUplink(name string) (*UplinkWatcher, error) {
	return ns.watchUplink(name, uplinkState)
}

func (ns *Namespace) watchUplink(name string, read func(name string) (UplinkState, error)) (*UplinkWatcher, error) {
	w := &UplinkWatcher{
		name:   name,
		read:   read,
		states: make(chan UplinkState, 1),
		dirty:  make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	err := ns.Do(func() (err error) {
		options := []option{{unix.SOL_SOCKET, unix.SO_RCVBUF, backlog}}
		for _, group := range []int{
			unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		} {
			options = append(options, option{unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group})
		}
		if w.socket, err = subscribe(options); err != nil {
			return err
		}
		if w.ns, err = Own(); err == nil {
			// What changes from here on is told.
			w.last, err = w.read(name)
		}
		return err
	})
	if err != nil {
		if w.socket != nil {
			err = errors.Join(err, w.socket.Close(), closeIf(w.ns))
		}
		return nil, fmt.Errorf("%s: interface %s: watch: %w", ns, name, err)
	}
	w.states <- w.last
	w.done.Add(2)
	go w.listen()
	go w.run()
	return w, nil
}

// States returns the channel of states, the first of which is there at once. A
// reader that is behind gets the newest only. It is closed after Close.
func (w *UplinkWatcher) States() <-chan UplinkState { return w.states }

// Close stops the watch and waits until it has ended.
func (w *UplinkWatcher) Close() (err error) {
	w.once.Do(func() {
		close(w.closed)
		err = w.socket.Close()
		w.done.Wait()
		err = errors.Join(err, w.ns.Close())
	})
	return err
}

// listen marks the state as dirty at each message that may concern it, and
// when messages were lost.
func (w *UplinkWatcher) listen() {
	defer w.done.Done()
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return // Closed already.
	}
	r := receiver{buf: make([]byte, receiveSize), oob: make([]byte, 128)}
	for raw.Read(r.wait) == nil { // Until it is closed.
		if r.lost() || w.concerned(r.buf[:r.n]) {
			select {
			case w.dirty <- struct{}{}:
			default:
			}
		}
	}
}

// concerned tells whether one of some messages may change the state.
func (w *UplinkWatcher) concerned(b []byte) bool {
	all, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	w.mu.Lock()
	last, asking := w.last, w.asking
	w.mu.Unlock()
	if asking {
		return true
	}
	for _, m := range all {
		if last.concerns(m.Header.Type, m.Data, w.name) {
			return true
		}
	}
	return false
}

// concerns is concerned of one message. A host with many routes and neighbours
// has many that concern others.
func (s *UplinkState) concerns(kind uint16, b []byte, name string) bool {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK: // struct ifinfomsg
		return len(b) >= unix.SizeofIfInfomsg && (s.Present && int(binary.NativeEndian.Uint32(b[4:])) == s.Index ||
			attribute(b[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME) == name+"\x00")
	case unix.RTM_NEWADDR, unix.RTM_DELADDR: // struct ifaddrmsg
		return len(b) >= unix.SizeofIfAddrmsg && int(binary.NativeEndian.Uint32(b[4:])) == s.Index
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE: // struct rtmsg: the prefix length is the second byte.
		return len(b) >= unix.SizeofRtMsg && b[1] == 0
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH: // struct ndmsg
		if len(b) < unix.SizeofNdMsg || int(binary.NativeEndian.Uint32(b[4:])) != s.Index {
			return false
		}
		about, _ := netip.AddrFromSlice([]byte(attribute(b[unix.SizeofNdMsg:], unix.NDA_DST)))
		for _, hop := range s.NextHops {
			if hop.Addr == about {
				return true
			}
		}
	}
	return false
}

// attribute returns the value of an attribute; empty if it isn't there.
func attribute(b []byte, kind uint16) string {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type == kind {
			return string(a.Value)
		}
	}
	return ""
}

// run asks for the state whenever it is dirty, and tells it if it is another.
func (w *UplinkWatcher) run() {
	defer w.done.Done()
	defer close(w.states)
	again := time.NewTimer(0)
	defer again.Stop()
	var asked time.Time // When the kernel was made to ask last.
	failed := false     // The state couldn't be told.
	for {
		select {
		case <-w.closed:
			return
		case <-again.C:
			if failed {
				failed = !w.update()
			}
		case <-w.dirty:
			select {
			case <-w.closed:
				return
			case <-time.After(settle):
			}
			failed = !w.update()
		}
		unresolved := w.last.unresolved()
		if unresolved && time.Since(asked) >= askAgain {
			asked = time.Now()
			_ = w.ns.Do(w.last.ask) // If the interface has gone, a message says so.
		}
		if unresolved || failed {
			again.Reset(askAgain)
		}
	}
}

// unresolved tells whether there is a next hop to ask for.
func (s *UplinkState) unresolved() bool {
	for _, hop := range s.NextHops {
		if s.Up && hop.MAC == nil {
			return true
		}
	}
	return false
}

// update tells the state if it is another than before. It fails if the
// interface goes meanwhile, or its listings change too fast.
func (w *UplinkWatcher) update() bool {
	w.mu.Lock()
	w.asking = true
	w.mu.Unlock()
	now, err := in(w.ns, func() (UplinkState, error) { return w.read(w.name) })
	same := err != nil || now.equal(&w.last)
	w.mu.Lock()
	w.asking = false
	if !same {
		w.last = now
	}
	w.mu.Unlock()
	if same {
		return err == nil
	}
	select {
	case <-w.states: // Nobody has read the one before.
	default:
	}
	w.states <- now // There is room: nobody else sends.
	return true
}
