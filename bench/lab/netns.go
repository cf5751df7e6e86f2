package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NetNS is a named network namespace: a container without a file system. Its
// loopback is up.
type NetNS struct {
	// Name is what ip-netns(8) knows it by.
	Name string

	lab    *Lab
	handle netns.NsHandle
	link   *netlink.Handle
	// launch runs a function on the thread that made the namespace and lives
	// as long as it does. Processes are started there, because
	// PR_SET_PDEATHSIG fires when the parent's thread ends, not the process.
	launch chan func()
	quit   chan struct{} // Closed to end that thread.
	ended  chan struct{} // Closed when it has ended.
}

// The process's first thread is the main goroutine's. It can't end: a goroutine
// that is to take its thread along would leave that one in the namespace, which
// lives as long as it (runtime/proc.go, mexit).
func init() { runtime.LockOSThread() }

// NewNetNS makes a namespace.
func (l *Lab) NewNetNS(name string) (*NetNS, error) {
	n := &NetNS{
		Name:   l.id + "-" + name,
		lab:    l,
		launch: make(chan func()),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	made := make(chan error)
	go n.own(made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(fmt.Errorf("namespace %s: %w", n.Name, errClosed), n.remove())
	}
	l.spaces = append(l.spaces, n)
	l.commands = append(l.commands, "ip netns add "+n.Name, "ip -n "+n.Name+" link set lo up")
	return n, nil
}

// own makes the namespace on a thread of its own, which it keeps for launch.
func (n *NetNS) own(made chan<- error) {
	runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
	defer close(n.ended)
	if err := n.create(); err != nil {
		made <- err
		return
	}
	made <- nil
	for {
		select {
		case f := <-n.launch:
			f()
		case <-n.quit:
			return
		}
	}
}

func (n *NetNS) create() (err error) {
	if n.handle, err = netns.NewNamed(n.Name); err != nil {
		return err
	}
	if n.link, err = netlink.NewHandle(); err != nil {
		return errors.Join(err, n.handle.Close(), netns.DeleteNamed(n.Name))
	}
	lo, err := n.link.LinkByName("lo")
	if err == nil {
		err = n.link.LinkSetUp(lo)
	}
	if err != nil {
		n.link.Close()
		return errors.Join(err, n.handle.Close(), netns.DeleteNamed(n.Name))
	}
	return nil
}

// remove deletes the name and lets go of the namespace, which the kernel ends
// with all its links when the last process has left it.
func (n *NetNS) remove() error {
	close(n.quit)
	<-n.ended
	n.link.Close()
	err := errors.Join(n.handle.Close(), netns.DeleteNamed(n.Name))
	if err != nil {
		return fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	return nil
}

// Path returns the file that setns(2), nsenter(1) and `swctl port add --netns`
// take.
func (n *NetNS) Path() string { return filepath.Join(netnsDir, n.Name) }

// Netlink returns a netlink socket inside the namespace, for what the methods
// of NetNS don't do. It is closed with the lab.
func (n *NetNS) Netlink() *netlink.Handle { return n.link }

// Do runs f on a thread inside the namespace and returns what f returns. The
// thread is thrown away afterwards. f must not start processes (use Run and
// Start) or end its goroutine (no t.FailNow).
func (n *NetNS) Do(f func() error) error {
	type outcome struct {
		err      error
		panicked any
	}
	done := make(chan outcome, 1)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		var o outcome
		defer func() {
			o.panicked = recover()
			done <- o
		}()
		if err := netns.Set(n.handle); err != nil {
			o.err = fmt.Errorf("namespace %s: setns: %w", n.Name, err)
			return
		}
		o.err = f()
	}()
	o := <-done
	if o.panicked != nil {
		panic(o.panicked)
	}
	return o.err
}

// Sysctl writes a kernel parameter of the namespace, as
// net.ipv4.ip_forward → "net/ipv4/ip_forward".
func (n *NetNS) Sysctl(path, value string) error {
	n.lab.record("ip netns exec", n.Name, "sysctl -w", path+"="+value)
	return n.Do(func() error {
		err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o600)
		if err != nil {
			return fmt.Errorf("namespace %s: sysctl: %w", n.Name, err)
		}
		return nil
	})
}

// WaitListening waits until a socket of the namespace listens on a TCP port or
// is bound to a UDP one ("tcp" or "udp", either family).
func (n *NetNS) WaitListening(ctx context.Context, proto string, port int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := n.listening(proto, port)
		if err != nil || found {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("namespace %s: waiting for a listener on %s port %d: %w", n.Name, proto, port, context.Cause(ctx))
		}
	}
}

// listening looks a port up in /proc/net/{tcp,udp}{,6} (proc_net(5)): local
// address and port, remote address and port, state, all in hex.
func (n *NetNS) listening(proto string, port int) (found bool, err error) {
	state := "0A" // TCP_LISTEN.
	if proto == "udp" {
		state = "07" // TCP_CLOSE, which UDP uses for a socket that is not connected.
	}
	suffix := fmt.Sprintf(":%04X", port)
	err = n.Do(func() error {
		for _, family := range []string{"", "6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + proto + family)
			if errors.Is(err, os.ErrNotExist) {
				continue // A kernel without IPv6.
			}
			if err != nil {
				return fmt.Errorf("namespace %s: %w", n.Name, err)
			}
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 3 && strings.HasSuffix(f[1], suffix) && f[3] == state {
					found = true
				}
			}
		}
		return nil
	})
	return found, err
}

// Remove deletes the namespace before its lab closes. The processes in it go
// on, and keep it alive without a name.
func (n *NetNS) Remove() error {
	n.lab.mu.Lock()
	n.lab.spaces = slices.DeleteFunc(n.lab.spaces, func(m *NetNS) bool { return m == n })
	n.lab.mu.Unlock()
	return n.remove()
}

// FlushConntrack ends all connections that the namespace's kernel tracks.
func (n *NetNS) FlushConntrack() error {
	n.lab.record("ip netns exec", n.Name, "conntrack -F")
	if err := n.link.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("namespace %s: flushing conntrack: %w", n.Name, err)
	}
	return nil
}
