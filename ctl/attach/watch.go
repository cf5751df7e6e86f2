package attach

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind says what happened to a link.
type EventKind uint8

// The kinds.
const (
	LinkChanged    EventKind = iota + 1 // It is new, or up, down, renamed, of another MTU …: Link says how it is now.
	LinkDeleted                         // It is gone from its namespace; Link says how it was.
	NamespaceEnded                      // The namespace has died with all its links; Link is empty.
	Resync                              // Events were lost: ask for the links anew. NS and Link are empty.
)

// LinkEvent is one change.
type LinkEvent struct {
	Kind EventKind
	NS   ID
	Link Link
}

// receiveSize fits the longest rtnetlink message (NLMSG_GOODSIZE is a page at
// most, and a dump's skb 32 KB).
const receiveSize = 32 << 10

// backlog is how much the kernel keeps for a Watcher whose reader is behind,
// in bytes: some hundred events.
const backlog = 512 << 10

// option is a socket's.
type option struct{ level, name, value int }

// subscribe opens a socket that gets rtnetlink's messages of the thread's
// namespace, those of the groups that the options name. Its reads wait in Go's
// poller, and end when it is closed.
func subscribe(options []option) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, o := range options {
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to link changes: %w", err), f.Close())
	}
	return f, nil
}

// Watcher tells of links that change in a namespace and in those that it
// follows. It keeps none of them alive but its own: the kernel passes the
// messages of the others on, tagged with a number that they have here
// (NETLINK_LISTEN_ALL_NSID; swd needs CAP_NET_BROADCAST).
type Watcher struct {
	own    *Namespace
	socket *os.File
	events chan LinkEvent
	closed chan struct{} // Closed by Close: nobody reads events any more.
	done   chan struct{} // Closed when the reader has ended.
	once   sync.Once

	mu sync.Mutex
	// followed are namespaces by the number that own knows them by, the oldest
	// first: the kernel gives the number of one that has ended to the next, and
	// of that end the reader may not have heard yet.
	followed map[int32][]followed
}

// followed is a namespace that is or was.
type followed struct {
	id     ID
	cookie uint64 // No other namespace ever has it; 0 before Linux 5.14.
	unsure bool   // Its end may be among the messages that were lost.
}

// Watch starts to watch own, which must stay open until Close.
func Watch(own *Namespace) (*Watcher, error) {
	socket, err := in(own, func() (*os.File, error) {
		return subscribe([]option{
			{unix.SOL_SOCKET, unix.SO_RCVBUF, backlog},
			{unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1},
			{unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK},
			{unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_NSID},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", own, err)
	}
	w := &Watcher{
		own:      own,
		socket:   socket,
		events:   make(chan LinkEvent),
		closed:   make(chan struct{}),
		done:     make(chan struct{}),
		followed: make(map[int32][]followed),
	}
	go w.read()
	return w, nil
}

// Events returns the channel of changes, in the order in which they happened
// in a namespace. It is closed after Close. A reader that is behind makes the
// kernel keep events, and lose them when it has kept enough: Resync says so.
func (w *Watcher) Events() <-chan LinkEvent { return w.events }

// Follow adds a namespace; its events start now. It need not stay open. There
// is no way back: a namespace is followed until it dies or Close.
func (w *Watcher) Follow(ns *Namespace) error {
	if ns.Same(w.own) {
		return nil
	}
	cookie, err := in(ns, cookie)
	if err != nil {
		return fmt.Errorf("%s: follow: %w", ns, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err = ns.fd(func(fd int) error {
		return w.own.Do(func() error {
			var rtnl netlink.Handle
			id, err := rtnl.GetNetNsIdByFd(fd)
			if err == nil && id < 0 {
				// -1 lets the kernel choose a number, for as long as both live.
				if err = existing(rtnl.SetNetNsIdByFd(fd, -1)); err == nil {
					id, err = rtnl.GetNetNsIdByFd(fd)
				}
			}
			if err != nil {
				return err
			}
			w.add(int32(id), followed{id: ns.id, cookie: cookie})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("%s: follow: %w", ns, err)
	}
	return nil
}

// add follows what has a number now. The caller holds mu.
func (w *Watcher) add(number int32, f followed) {
	all := w.followed[number]
	if n := len(all); n > 0 && all[n-1].id == f.id && all[n-1].cookie == f.cookie {
		return
	} else if n > 0 && all[n-1].unsure {
		all = nil // Nobody will tell of its end.
	}
	w.followed[number] = append(all, f)
}

// cookie returns what tells the thread's namespace from all others that were or
// will be, where an ID is used again.
func cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("netlink socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return 0, fmt.Errorf("getsockopt SO_NETNS_COOKIE: %w", err)
	}
	return c, nil
}

// Close stops the events and waits until the reader has ended.
func (w *Watcher) Close() error {
	w.once.Do(func() { close(w.closed) })
	err := w.socket.Close()
	<-w.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (w *Watcher) read() {
	defer close(w.done)
	defer close(w.events)
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return // Closed already.
	}
	r := receiver{buf: make([]byte, receiveSize), oob: make([]byte, 128)}
	for raw.Read(r.wait) == nil { // Until it is closed.
		ok := false
		if r.lost() {
			// The kernel drops until the queue is empty, and what is still in
			// it is older than what the reader of Resync will ask for.
			if raw.Read(r.drain) != nil {
				return
			}
			w.doubt()
			ok = w.send(LinkEvent{Kind: Resync})
		} else {
			ok = w.messages(r.buf[:r.n], r.oob[:r.oobn])
		}
		if !ok {
			return
		}
	}
}

// doubt notes that ends of namespaces may have been among what was lost. Who had
// a number before its last has ended: of those nothing comes any more.
func (w *Watcher) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for number, all := range w.followed {
		all = all[len(all)-1:]
		all[0].unsure = true
		w.followed[number] = all
	}
}

// receiver is the state of one receive.
type receiver struct {
	buf, oob       []byte
	n, oobn, flags int
	err            error
}

// wait receives; false means that there is nothing yet.
func (r *receiver) wait(fd uintptr) bool {
	for {
		r.n, r.oobn, r.flags, _, r.err = unix.Recvmsg(int(fd), r.buf, r.oob, 0)
		if !errors.Is(r.err, unix.EINTR) {
			return !errors.Is(r.err, unix.EAGAIN)
		}
	}
}

// drain empties the queue.
func (r *receiver) drain(fd uintptr) bool {
	for r.wait(fd) {
	}
	return true
}

// lost tells whether messages were: by ENOBUFS, or because one didn't fit. A
// netlink socket has no other errors that a receive can meet.
func (r *receiver) lost() bool { return r.err != nil || r.flags&unix.MSG_TRUNC != 0 }

// send waits for the reader of the channel; it returns false after Close.
func (w *Watcher) send(e LinkEvent) bool {
	select {
	case w.events <- e:
		return true
	case <-w.closed:
		return false
	}
}

func (w *Watcher) messages(b, oob []byte) bool {
	all, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return w.send(LinkEvent{Kind: Resync})
	}
	origin, elsewhere := nsidOf(oob)
	for _, m := range all {
		e, ok := w.event(m, origin, elsewhere)
		if ok && !w.send(e) {
			return false
		}
	}
	return true
}

// event makes sense of a message from the namespace numbered origin, or from
// own.
func (w *Watcher) event(m syscall.NetlinkMessage, origin int32, elsewhere bool) (LinkEvent, bool) {
	e := LinkEvent{NS: w.own.id}
	if elsewhere {
		w.mu.Lock()
		all := w.followed[origin]
		w.mu.Unlock()
		if len(all) == 0 {
			return e, false
		}
		e.NS = all[0].id
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		e.Kind = LinkChanged
	case unix.RTM_DELLINK:
		e.Kind = LinkDeleted
	case unix.RTM_DELNSID:
		return w.namespaceEnded(m.Data, elsewhere)
	default:
		return e, false
	}
	// A bridge tells of its ports under its own family: not the link's news.
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return e, false
	}
	header := unix.NlMsghdr(m.Header)
	link, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		return LinkEvent{Kind: Resync}, true
	}
	e.Link = newLink(link)
	return e, true
}

// namespaceEnded reads an RTM_DELNSID of own: struct rtgenmsg, padded to 4
// bytes, and attributes (linux/net_namespace.h).
func (w *Watcher) namespaceEnded(b []byte, elsewhere bool) (LinkEvent, bool) {
	const rtgenmsg, netnsaNSID = 4, 1
	if elsewhere || len(b) < rtgenmsg {
		return LinkEvent{}, false
	}
	attrs, err := nl.ParseRouteAttr(b[rtgenmsg:])
	if err != nil {
		return LinkEvent{Kind: Resync}, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range attrs {
		if a.Attr.Type != netnsaNSID || len(a.Value) != 4 {
			continue
		}
		number := int32(nl.NativeEndian().Uint32(a.Value))
		if all := w.followed[number]; len(all) > 0 {
			if w.followed[number] = all[1:]; len(all) == 1 {
				delete(w.followed, number)
			}
			return LinkEvent{Kind: NamespaceEnded, NS: all[0].id}, true
		}
	}
	return LinkEvent{}, false
}

// nsidOf reads the number of the namespace that a message comes from. One of
// the socket's own namespace has none.
func nsidOf(oob []byte) (int32, bool) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range all {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int32(nl.NativeEndian().Uint32(m.Data)), true
		}
	}
	return 0, false
}
