package underlay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"heddle/dataplane"
)

// random returns n bytes.
func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// several returns datagrams of the given lengths.
func several(r *rand.Rand, lengths ...int) (all [][]byte) {
	for _, n := range lengths {
		all = append(all, random(r, n))
	}
	return all
}

// repeat returns n datagrams of one length and a last one.
func repeat(r *rand.Rand, n, length, last int) [][]byte {
	lengths := make([]int, n, n+1)
	for i := range lengths {
		lengths[i] = length
	}
	return several(r, append(lengths, last)...)
}

// same fails the test if what arrived is not what was sent, in order.
func same(t *testing.T, what string, all []got, want [][]byte, tos uint8) {
	t.Helper()
	if len(all) != len(want) {
		t.Fatalf("%s: %d datagrams arrived, want %d", what, len(all), len(want))
	}
	for i, g := range all {
		if !bytes.Equal(g.data, want[i]) {
			t.Fatalf("%s: datagram %d of %d bytes is not the one of %d that was sent", what, i, len(g.data), len(want[i]))
		}
		if g.tos != tos {
			t.Fatalf("%s: datagram %d has TOS %#x, want %#x", what, i, g.tos, tos)
		}
	}
}

// TestPass sends all kinds of messages over a veth pair with its offloads as
// they are and without them, and without UDP checksums.
func TestPass(t *testing.T) {
	for _, c := range []struct {
		name     string
		ethtool  string // Off on the sender's device.
		config   Config
		segments bool // Super-packets may arrive whole.
	}{
		{"offloads", "", Config{}, true},
		{"no UDP segmentation", "tx-udp-segmentation off", Config{}, false},
		{"no checksum offload", "tx-checksum-ip-generic off", Config{}, false},
		{"no scatter-gather", "sg off", Config{}, false},
		{"no checksum", "", Config{ZeroChecksum: true}, false},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/IPv6 %v", c.name, v6), func(t *testing.T) {
				w := newWired(t)
				if c.ethtool != "" {
					w.a.exec("ethtool -K v0 " + c.ethtool)
				}
				a, b := w.pair(v6, c.config)
				testPass(t, a, b, c.segments)
			})
		}
	}
}

func testPass(t *testing.T, a, b *end, segments bool) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, m := range []struct {
		name      string
		tos       uint8
		datagrams [][]byte
	}{
		{"one", 0, several(r, 50)},
		{"one byte", 0, several(r, 1)},
		{"the longest", 0, several(r, 1500-40-8)},
		{"CE", 0x03, several(r, 50)},
		{"DSCP and ECN 2", 0xba, several(r, 1400, 1400, 7)},
		{"a super-packet", 0, repeat(r, 43, 1450, 1450)},
		{"a short last one", 0, repeat(r, 43, 1450, 1)},
		{"64 small ones", 0, repeat(r, 63, 60, 60)},
		{"more than 64", 0x02, repeat(r, 150, 60, 60)},
		{"more than 64 KB", 0, repeat(r, 150, 1450, 1450)},
		{"all lengths", 0, several(r, 10, 10, 20, 20, 5, 5, 5, 4, 6, 1400, 3, 1400, 1400)},
	} {
		a.sends(7, m.tos, m.datagrams...)
		all := b.recv(len(m.datagrams))
		same(t, m.name, all, m.datagrams, m.tos)
		src := all[0].src
		if ap := src.AddrPort(); ap.Addr() != a.Local().Addr() || ap.Port() < firstSourcePort {
			t.Fatalf("%s: came from %s", m.name, ap)
		}
		if m.name == "a super-packet" && segments && all[0].of != 44 {
			t.Errorf("the super-packet arrives in pieces of %d datagrams", all[0].of)
		}
		for _, g := range all {
			if g.src != src {
				t.Fatalf("%s: one flow came from %s and %s", m.name, src.AddrPort(), g.src.AddrPort())
			}
		}
	}
	if lost, err := b.Lost(0); err != nil || lost != 0 {
		t.Errorf("%d datagrams were lost, %v", lost, err)
	}
}

// TestFlows: many flows' messages in one Send arrive each in order, from as many
// ports as there are, spread over the workers' sockets.
func TestFlows(t *testing.T) {
	w := newWired(t)
	a, b := w.pair(false, Config{Workers: 2})
	const flows, rounds = 100, 5
	r := rand.New(rand.NewPCG(2, 2))
	sent := map[uint16][][]byte{}
	for range rounds {
		for flow := range uint16(flows) {
			d := append([]byte{byte(flow)}, random(r, r.IntN(1400))...)
			sent[flow] = append(sent[flow], d)
			if a.box.Add(a.to, flow*257, 0, d, nil) == nil {
				noDrops(t, a.flush())
				a.box.Add(a.to, flow*257, 0, d, nil)
			}
		}
	}
	noDrops(t, a.flush())
	arrived, ports := map[uint16][]got{}, map[Addr]int{}
	perWorker := make([]int, 2)
	for n := 0; n < flows*rounds; {
		before := n
		for worker := range perWorker {
			for _, g := range b.recvOn(worker) {
				flow := uint16(g.data[0])
				arrived[flow] = append(arrived[flow], g)
				if w, seen := ports[g.src]; seen && w != worker {
					t.Fatal("a flow came to both workers")
				}
				ports[g.src] = worker
				perWorker[worker]++
				n++
			}
		}
		if n == before && !b.waits() {
			t.Fatalf("%d datagrams arrived", n)
		}
	}
	for flow, want := range sent {
		same(t, fmt.Sprintf("flow %d", flow), arrived[flow], want, 0)
	}
	if len(ports) != MaxSourcePorts {
		t.Errorf("from %d ports, want %d", len(ports), MaxSourcePorts)
	}
	if perWorker[0] == 0 || perWorker[1] == 0 {
		t.Errorf("datagrams for each worker: %v", perWorker)
	}
}

func noDrops(t testing.TB, drops []dataplane.Drop) {
	t.Helper()
	for i, d := range drops {
		if d != dataplane.None {
			t.Fatalf("message %d: %s", i, d)
		}
	}
}
