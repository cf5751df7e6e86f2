package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// maxRead is one virtio-net header and the longest frame.
const maxRead = 1<<16 + 64

// tap is a TAP device in a container, with a virtio-net header before each
// frame, so that frames of 64 KB pass whole.
type tap struct {
	queue int
	buf   [maxRead]byte
	frame [1]unix.Iovec // Of buf.
}

// TAP makes an interface of the given name in each of two namespaces, named by
// their files, calls ready, and relays between them on the CPU until the
// context ends. The interfaces go with it.
func TAP(ctx context.Context, namespaces [2]string, ifname string, cpu int, ready func()) (err error) {
	var ports [2]port
	for i, path := range namespaces {
		p, e := newTAPPort(path, ifname)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, p.close()) }()
		ports[i] = p
	}
	ready()
	return run(ctx, ports, cpu)
}

// Uplink makes a TAP of the given name in a namespace, named by its file, calls
// ready, and relays between it and an interface of the calling thread's namespace
// on the CPU until the context ends. The TAP goes with it.
func Uplink(ctx context.Context, namespace, ifname, uplink string, cpu int, ready func()) (err error) {
	inside, err := newTAPPort(namespace, ifname)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inside.close()) }()
	outside, err := newPacketPort(uplink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, outside.close()) }()
	ready()
	return run(ctx, [2]port{inside, outside}, cpu)
}

func newTAPPort(namespace, ifname string) (*tap, error) {
	fd, err := tapIn(namespace, ifname)
	if err != nil {
		return nil, fmt.Errorf("TAP %s in %s: %w", ifname, namespace, err)
	}
	return &tap{queue: fd}, nil
}

// tapIn makes a TAP in another namespace, on a thread that is thrown away.
func tapIn(path, ifname string) (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		var ns netns.NsHandle
		if ns, err = netns.GetFromPath(path); err != nil {
			return
		}
		defer func() { err = errors.Join(err, ns.Close()) }()
		if err = netns.Set(ns); err != nil {
			err = os.NewSyscallError("setns", err)
			return
		}
		fd, err = newTAP(ifname)
	}()
	<-done
	return fd, err
}

func newTAP(ifname string) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(ifname)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = os.NewSyscallError("ioctl TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	}
	if err == nil {
		const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		err = os.NewSyscallError("ioctl TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (t *tap) fd() int { return t.queue }

func (t *tap) close() error { return unix.Close(t.queue) }

// receive reads one frame.
func (t *tap) receive() ([]unix.Iovec, error) {
	t.frame[0] = unix.Iovec{Base: &t.buf[0], Len: maxRead}
	n, errno := transfer(unix.SYS_READ, t.queue, t.frame[0])
	if errno != 0 {
		if lost(errno) {
			return nil, nil // Empty.
		}
		return nil, os.NewSyscallError("read from a TAP", errno)
	}
	t.frame[0].Len = n
	return t.frame[:], nil
}

func (t *tap) giveBack() {}

func (t *tap) send(frames []unix.Iovec) error {
	for _, f := range frames {
		if _, errno := transfer(unix.SYS_WRITE, t.queue, f); errno != 0 && !lost(errno) {
			return os.NewSyscallError("write to a TAP", errno)
		}
	}
	return nil
}
