package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/baseline"
	"heddle/bench/lab"
)

// crowd is two containers that a swd joins, and many ports besides, all of one
// kind, whose interfaces share namespaces.
//
//	A: eth0 ── TAP or veth ─── port a ┐
//	                                  ├ swd, network bench
//	B: eth0 ── TAP or veth ─── port b ┤
//	0: t2 … t9 ── TAP or veth ────────┤ ports t2 … t9
//	1: t10 … t19 ── TAP or veth ──────┘ ports t10 … t19, and so on
type crowd struct {
	path   *baseline.Path
	swd    *lab.Swd
	others []*lab.NetNS // perSpace ports in each.
	spaces []*lab.NetNS // All.
	// adding is how long the ports took, all together.
	adding time.Duration
}

// crowded measures a swd with so many ports of a kind, as the curves of its
// dimension, whose row it is.
func (b *bench) crowded(ctx context.Context, row, kind string, size int) (values []float64, command string, err error) {
	short := *b
	short.opts.Seconds = min(b.opts.Seconds, 1)
	c, err := short.newCrowd(ctx, kind, size)
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	if err != nil {
		return nil, "", err
	}
	resting, err := idle(ctx, &short, c.path)
	if err != nil {
		return nil, "", err
	}
	cpu, m, err := short.flow(ctx, c, row)
	if err != nil {
		return nil, "", err
	}
	all := float64(absent)
	if size > 2 {
		if all, err = short.inTurn(ctx, c, size); err != nil {
			return nil, "", err
		}
	}
	return []float64{
		cpu, all, 1e3 / m.values[0], resting.values[1], resting.values[0],
		c.adding.Seconds() * 1e3 / float64(size),
	}, fmt.Sprintf("swctl apply with %d %s ports; swbench send, swbench receive", size, kind), nil
}

// newCrowd sets a crowd up. What it returns has to be closed, with an error too
// unless it is nil.
func (b *bench) newCrowd(ctx context.Context, kind string, size int) (*crowd, error) {
	bin, err := b.binaries()
	if err != nil {
		return nil, err
	}
	name := kind + strconv.Itoa(size)
	c := &crowd{}
	roles := []string{"a", "b", "host"}
	for i := 0; size > 2 && i*perSpace < size; i++ {
		roles = append(roles, strconv.Itoa(i))
	}
	for _, role := range roles {
		n, err := b.lab.NewNetNS(name + "-" + role)
		if err != nil {
			return c, err
		}
		c.spaces = append(c.spaces, n)
		// Each interface would say so to all others by multicast when it comes up.
		if err := n.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			return c, err
		}
	}
	a, z, host := c.spaces[0], c.spaces[1], c.spaces[2]
	c.others = c.spaces[3:]
	if c.swd, err = b.lab.StartSwd(ctx, host, bin, b.opts.SwdArgs...); err != nil {
		return c, err
	}
	c.path = &baseline.Path{
		Name: name, About: "swd, " + kind + " ports", A: a, B: z, Server: baseline.AddrB,
		PIDs:  []int{c.swd.Process().PID()},
		Count: func(ctx context.Context) (baseline.Counts, error) { return swdCounts(ctx, c.swd) },
	}
	var spec strings.Builder
	fmt.Fprintf(&spec, "networks: [{name: %s}]\nports:\n", benchNetwork)
	port := "  - {name: %s, network: %s, kind: %s, netns: %s, ifname: %s, ips: [%s]}\n"
	fmt.Fprintf(&spec, port, "a", benchNetwork, kind, a.Path(), baseline.Interface, baseline.CIDRA)
	fmt.Fprintf(&spec, port, "b", benchNetwork, kind, z.Path(), baseline.Interface, baseline.CIDRB)
	for i := 2; i < size; i++ {
		fmt.Fprintf(&spec, port, otherPort(i), benchNetwork, kind, c.others[i/perSpace].Path(), otherPort(i), "")
	}
	file := filepath.Join(b.programs, name+".yaml")
	if err := os.WriteFile(file, []byte(spec.String()), 0o600); err != nil {
		return c, err
	}
	began := time.Now()
	if _, err := c.swd.Control(ctx, "apply", "-f", file); err != nil {
		return c, err
	}
	c.adding = time.Since(began)
	if _, err := a.Run(ctx, "ping", "-c1", "-W5", c.path.Server); err != nil {
		return c, err
	}
	return c, c.settle(ctx)
}

// perSpace is how many of the other ports have their interface in one namespace:
// a namespace for each would take longer to set up, and one for all make swd ask
// for all interfaces where it asks for those of a container.
const perSpace = 10

// settle waits until swd has done with what follows from changes on the host,
// 10 s at most: until it takes no more than 4% of a core.
func (c *crowd) settle(ctx context.Context) error {
	const turn = 250 * time.Millisecond
	last := time.Duration(0)
	for range 40 {
		now, _, err := usage(c.path.PIDs)
		if err != nil {
			return err
		}
		if now-last <= turn/25 {
			return nil
		}
		last = now
		select {
		case <-time.After(turn):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// otherPort names the port and the interface of the i-th.
func otherPort(i int) string { return fmt.Sprintf("t%d", i) }

func (c *crowd) close() error {
	var errs []error
	if c.swd != nil {
		errs = append(errs, c.swd.Stop())
	}
	for _, n := range c.spaces {
		errs = append(errs, n.Remove())
	}
	return errors.Join(errs...)
}

// flow measures one flow from A to B, and what CPU time of swd's a frame of it
// takes, in ns.
func (b *bench) flow(ctx context.Context, c *crowd, name string) (cpu float64, m measurement, err error) {
	before, _, err := usage(c.path.PIDs)
	if err != nil {
		return 0, m, err
	}
	row := Row{Name: name, Table: switching, Figures: []Figure{{Name: frames60, Unit: "Mpps"}}, Measure: smallFrames}
	if m, err = b.verified(ctx, row, c.path); err != nil {
		return 0, m, err
	}
	after, _, err := usage(c.path.PIDs)
	if err == nil && m.least.AToB.Frames == 0 {
		err = errors.New("no frame was delivered")
	}
	return float64(after-before) / float64(m.least.AToB.Frames), m, err
}

// inTurn sends to B by all other ports in turn, for a measurement's length, and
// returns what CPU time of swd's a frame that went out to B took, in ns.
func (b *bench) inTurn(ctx context.Context, c *crowd, size int) (float64, error) {
	dst, err := c.path.B.MAC(baseline.Interface)
	if err != nil {
		return 0, err
	}
	countsBefore, err := c.path.Count(ctx)
	if err != nil {
		return 0, err
	}
	before, _, err := usage(c.path.PIDs)
	if err != nil {
		return 0, err
	}
	sent, err := c.sendInTurn(ctx, dst, b.cores[0], size, b.seconds(0))
	if err != nil {
		return 0, err
	}
	after, _, err := usage(c.path.PIDs)
	if err != nil {
		return 0, err
	}
	counts, err := c.path.Count(ctx)
	if err != nil {
		return 0, err
	}
	got := counts.ToB.Frames - countsBefore.ToB.Frames
	const strays = 64 // ARP between A and B, which the ping began.
	if got == 0 || got > sent+strays {
		return 0, fmt.Errorf("%d frames were sent by all ports in turn, and swd has counted %d out to B", sent, got)
	}
	return float64(after-before) / float64(got), nil
}

// experimental is an EtherType that no stack knows (IEEE 802 9.2.3).
const experimental = 0x88b5

// way is an interface to send by.
type way struct {
	fd int // A packet socket of its namespace.
	to unix.SockaddrLinklayer
}

// ways opens a socket in each namespace of the other ports.
func (c *crowd) ways(size int) (ways []way, closing func() error, err error) {
	var fds []int
	closing = func() error {
		var errs []error
		for _, fd := range fds {
			errs = append(errs, unix.Close(fd))
		}
		return errors.Join(errs...)
	}
	for i, n := range c.others {
		err := n.Do(func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("socket: %w", err)
			}
			fds = append(fds, fd)
			for k := max(2, i*perSpace); k < min(size, (i+1)*perSpace); k++ {
				link, err := net.InterfaceByName(otherPort(k))
				if err != nil {
					return fmt.Errorf("interface %s: %w", otherPort(k), err)
				}
				ways = append(ways, way{fd, unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6}})
			}
			return nil
		})
		if err != nil {
			return nil, nil, errors.Join(err, closing())
		}
	}
	return ways, closing, nil
}

// sendInTurn sends 60-byte frames to dst by all other ports' interfaces in turn,
// each from an address of its own, and returns how many. It does so on the core.
func (c *crowd) sendInTurn(ctx context.Context, dst net.HardwareAddr, core, size int, length time.Duration) (sent uint64, err error) {
	ways, closing, err := c.ways(size)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine, and nobody inherits its core.
		var set unix.CPUSet
		set.Set(core)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			done <- fmt.Errorf("sched_setaffinity: %w", err)
			return
		}
		var err error
		sent, err = spray(ctx, ways, dst, length)
		done <- err
	}()
	err = <-done
	return sent, err
}

// spray sends by all ways in turn for so long, and returns how many frames.
func spray(ctx context.Context, ways []way, dst net.HardwareAddr, length time.Duration) (sent uint64, err error) {
	frame := make([]byte, 60)
	copy(frame, dst)
	copy(frame[6:], []byte{2, 0, 0, 0x53})
	frame[12], frame[13] = experimental>>8, experimental&0xff
	for began := time.Now(); time.Since(began) < length && ctx.Err() == nil; {
		for i := range ways {
			frame[10], frame[11] = byte(i>>8), byte(i)
			switch err := unix.Sendto(ways[i].fd, frame, 0, &ways[i].to); {
			case err == nil:
				sent++
			case errors.Is(err, unix.ENOBUFS):
				runtime.Gosched() // The interface's queue is full: swd is behind.
			default:
				return sent, fmt.Errorf("sendto %s: %w", otherPort(i+2), err)
			}
		}
	}
	return sent, nil
}
