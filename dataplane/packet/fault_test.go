package packet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"heddle/dataplane"
)

// quiet checks that after two pulls nothing, not even an error, wakes a worker.
func quiet(t *testing.T, p *Port) {
	t.Helper()
	b := dataplane.NewBatch(0)
	for range 3 {
		b.Reset()
		p.Pull(b)
	}
	if readable(t, p.FD(0), 0) {
		t.Error("epoll would go on waking the worker")
	}
}

func TestDownAndUp(t *testing.T) {
	c := newCable(t, 1)
	if err := c.port.Fault(); err != nil {
		t.Fatalf("a sound port: %v", err)
	}
	quiet(t, c.port)

	c.ip("link set near down")
	if err := c.port.Fault(); !errors.Is(err, ErrDown) {
		t.Errorf("set down: %v", err)
	}
	if !readable(t, c.port.FD(0), patience) {
		t.Error("the worker isn't told")
	}
	quiet(t, c.port)
	s := build(recipe{payload: 18})
	c.port.Push(batchOf(0, s, s, s))
	if d := drops(c.port); d["tx-down"] != 3 || len(d) != 1 {
		t.Errorf("drops of 3 frames pushed while down: %v", d)
	}

	c.ip("link set near up")
	await(t, "the port recovers", func() bool { return c.port.Fault() == nil })
	await(t, "frames leave", func() bool {
		c.port.Push(batchOf(0, s))
		return readable(t, c.far.fd, 0)
	})
	// The far end's carrier is back when the kernel gets to it, and its socket has
	// reported the loss to nobody.
	await(t, "frames come", func() bool {
		must(t, c.far.send(s))
		return readable(t, c.port.FD(0), 0)
	})
	same(t, pull(t, c.port, 0, 1)[0], s)
	if d := drops(c.port); d["tx-down"] != 3 {
		t.Errorf("drops after recovery: %v", d)
	}
}

// TestStuck: a frame that virtio-net has no words for, which a virtual machine
// gives to its TAP, costs no more than itself, or Fault says that it has.
func TestStuck(t *testing.T) {
	n := newNetNS(t)
	vm := newTAP(n, "vm")
	n.ip("link set vm up")
	p := n.open(Config{Interface: "vm"})
	await(t, "the carrier is there", func() bool { return p.Fault() == nil })
	came := func() bool {
		must(t, vm.send(build(recipe{payload: 18})))
		b := dataplane.NewBatch(0)
		p.Pull(b)
		return b.N > 0
	}
	await(t, "a frame comes", func() bool { return came() && p.Fault() == nil })
	ufo := build(recipe{payload: 8000, gso: 1000})
	ufo.owes.GSOType = 3 // VIRTIO_NET_HDR_GSO_UDP in linux/virtio_net.h.
	must(t, vm.send(ufo))
	for range 2 {
		if came() {
			return // This kernel has lost no more than that frame.
		}
	}
	if err := p.Fault(); err != nil {
		t.Errorf("after one look: %v", err)
	}
	if came() {
		t.Fatal("frames come again")
	}
	for range 2 { // It stays so.
		if err := p.Fault(); !errors.Is(err, ErrStuck) {
			t.Errorf("no frame comes, and Fault says %v", err)
		}
	}
	if d := drops(p); d["rx-kernel"] != 4 || len(d) != 1 {
		t.Errorf("drops: %v", d)
	}
}

// TestOverload: a port whose ring was full is not stuck.
func TestOverload(t *testing.T) {
	c := newCable(t, 1)
	for range 3 {
		for range DefaultSlots + 100 {
			must(t, c.far.send(build(recipe{payload: 18})))
		}
		arrived(t, c.port, 0, DefaultSlots)
		if err := c.port.Fault(); err != nil {
			t.Errorf("with a full ring: %v", err)
		}
		pull(t, c.port, 0, DefaultSlots)
		if err := c.port.Fault(); err != nil {
			t.Errorf("with an empty one: %v", err)
		}
	}
}

// TestPendingError pushes first after a down and up that no Pull has seen.
func TestPendingError(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set near down")
	c.ip("link set near up")
	await(t, "the port recovers", func() bool { return c.port.Fault() == nil })
	c.port.Push(batchOf(0, build(recipe{payload: 18})))
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
}

func TestNoCarrier(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set far down")
	await(t, "the carrier is lost", func() bool { return errors.Is(c.port.Fault(), ErrNoCarrier) })
	quiet(t, c.port)
	c.ip("link set far up")
	await(t, "the carrier is back", func() bool { return c.port.Fault() == nil })
}

func TestGone(t *testing.T) {
	for name, remove := range map[string]string{
		"deleted":                    "link del near",
		"moved to another namespace": "link set near netns ",
	} {
		t.Run(name, func(t *testing.T) {
			c := newCable(t, 2)
			if strings.HasSuffix(remove, " ") {
				remove += newNetNS(t).name
			}
			c.ip(remove)
			await(t, "the interface is gone", func() bool { return errors.Is(c.port.Fault(), ErrGone) })
			quiet(t, c.port)
			s := build(recipe{payload: 18})
			c.port.Push(batchOf(1, s, s))
			if d := drops(c.port); d["tx-down"] != 2 || len(d) != 1 {
				t.Errorf("drops of 2 frames pushed: %v", d)
			}
			quiet(t, c.port)
			must(t, c.port.Close())
			if err := c.port.Fault(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a closed port: %v", err)
			}
		})
	}
}

// TestRenamed: the port is the interface's, whatever its name.
func TestRenamed(t *testing.T) {
	c := newCable(t, 1)
	c.ip("link set near name nearer")
	if err := c.port.Fault(); err != nil {
		t.Errorf("renamed: %v", err)
	}
}

// TestOpenWhileDown: the port waits for the interface.
func TestOpenWhileDown(t *testing.T) {
	n := newNetNS(t)
	n.ip("link add name near type veth peer far")
	p := n.open(Config{Interface: "near", Workers: 2})
	if err := p.Fault(); !errors.Is(err, ErrDown) {
		t.Errorf("opened while down: %v", err)
	}
	quiet(t, p)
	n.ip("link set near up")
	n.ip("link set far up")
	await(t, "the port is up", func() bool { return p.Fault() == nil })
	far := newPeer(n, "far")
	await(t, "a frame arrives at either worker", func() bool {
		must(t, far.send(build(recipe{payload: 18}))) // The first may be swallowed: see newCable.
		return readable(t, p.FD(0), 0) || readable(t, p.FD(1), 0)
	})
}

func TestOpenRefuses(t *testing.T) {
	n := newNetNS(t)
	n.ip("link add name near type veth peer far")
	for _, tc := range []struct {
		name string
		c    Config
		says []string
	}{
		{"no such interface", Config{Interface: "nosuch"}, []string{"nosuch", "namespace"}},
		{"no name", Config{}, []string{"interface"}},
		{"not Ethernet", Config{Interface: "lo"}, []string{"lo", "not an Ethernet interface"}},
		{"too many workers", Config{Interface: "near", Workers: dataplane.MaxWorkers + 1}, []string{"65 workers"}},
		{"too many slots", Config{Interface: "near", Slots: MaxSlots + 1}, []string{fmt.Sprint(MaxSlots+1, " slots")}},
		{"negative slots", Config{Interface: "near", Slots: -1}, []string{"-1 slots"}},
		{"negative workers", Config{Interface: "near", Workers: -1}, []string{"-1 workers"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := descriptors(t)
			n.do(func() {
				p, err := Open(tc.c)
				if err == nil {
					_ = p.Close()
					t.Fatal("opened")
				}
				for _, s := range tc.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("%q doesn't say %q", err, s)
					}
				}
			})
			await(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
		})
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	n := newNetNS(t)
	n.ip("link add name near type veth peer far")
	n.ip("link set near up")
	promiscuity := func() string {
		_, after, _ := strings.Cut(n.ip("-d link show near"), "promiscuity ")
		return strings.Fields(after + " none")[0]
	}
	before, ring := descriptors(t), mappings(t)
	n.do(func() {
		for workers, slots := range []int{0, 1, DefaultSlots, DefaultSlots + 1} {
			p, err := Open(Config{Interface: "near", Workers: workers, Slots: slots, Promiscuous: true})
			must(t, err)
			if got := promiscuity(); got != "1" {
				t.Errorf("promiscuity %s while open", got)
			}
			must(t, p.Close())
			must(t, p.Close())
			if got := promiscuity(); got != "0" {
				t.Errorf("promiscuity %s after Close", got)
			}
		}
	})
	await(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	if after := mappings(t); after != ring {
		t.Errorf("%d ring mappings before, %d after", ring, after)
	}
}

// descriptors counts the process's, but for those of Go's netpoller, which
// come to stay with the first socket. A program that was run before may have
// left some that the runtime closes a little later.
func descriptors(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("unix", "@") // By a name of the kernel's choice. The netpoller is there now.
	must(t, err)
	must(t, l.Close())
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

// mappings counts the process's mappings of sockets.
func mappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return strings.Count(string(maps), "socket:")
}
