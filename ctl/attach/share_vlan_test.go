package attach

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"heddle/bench/golden"
)

// A packet socket sees all frames; the stack sees those of VLANs, and not
// those for Heddle with a priority tag.
func TestShareVLAN(t *testing.T) {
	checkLeaks(t)
	client, host := newShared(t)
	outer := host.link(t, "up")
	host.share(t, "up", testClaim, attachProgram)
	seen := countLengths(t, host, outer.Index)
	stack := newPacketSocket(t, client, client.link(t, "eth0").Index)
	tap := newPacketSocket(t, host, outer.Index)
	for i, test := range []struct {
		tag  string
		shot bool
	}{
		{"", true}, {"8100 0000", true}, {"8100 e000", true}, {"8100 0005", false}, {"8100 e005", false}, {"8100 0005 8100 0000", false}, {"8100 0000 8100 0000", false},
	} {
		addresses := hex.EncodeToString(outer.MAC) + "020000000001"
		for step, port := range []string{"ee48", "ee47"} { // The second is the host's, and comes later.
			frame := golden.Bytes(t, addresses+test.tag+"0800"+ip4("06", to10)+"0050"+port+tcp)
			length := 200 + 10*(2*i+step) // Of the frame without its first tag, which the kernel takes out.
			frame = append(frame, make([]byte, length-len(frame)+4*min(1, len(test.tag)))...)
			if _, err := unix.Write(stack.fd, frame); err != nil {
				t.Fatal(err)
			}
			tap.awaitLength(t, length)
		}
		// The tap comes before the programs, and another CPU may be between them.
		await(t, fmt.Sprintf("tag %q: the host's frame reaches the stack", test.tag), func() bool { return seen(200+20*i+10) > 0 })
		if !test.shot {
			await(t, fmt.Sprintf("tag %q: not shot", test.tag), func() bool { return seen(200+20*i) > 0 })
		} else if seen(200+20*i) > 0 {
			t.Errorf("tag %q: not shot", test.tag)
		}
	}
}

// awaitLength reads frames until one of a length.
func (s packetSocket) awaitLength(t *testing.T, length int) {
	t.Helper()
	b := make([]byte, 1500)
	for {
		switch n, err := s.read(b); {
		case err != nil:
			t.Fatalf("the packet socket doesn't see %d bytes: %v", length, err)
		case n == length:
			return
		}
	}
}

// countLengths counts the frames that come by what was attached before to the
// stack, by their length, up to 1023 bytes.
func countLengths(t *testing.T, ns *netns, index int) (seen func(length int) uint64) {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = counts.Close() })
	program, err := loadProgram("count", asm.Instructions{
		asm.LoadMem(asm.R0, asm.R1, 0, asm.Word), // __sk_buff.len
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, tcNext).WithSymbol("next"),
		asm.Return(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, program)
	ns.do(t, func() error {
		c, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
	return func(length int) (n uint64) {
		t.Helper()
		if err := counts.Lookup(uint32(length), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}
