package main

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"

	"heddle/bench/baseline"
	"heddle/bench/lab"
)

// What a program at tcx returns (enum tcx_action_base of linux/bpf.h).
const (
	tcxPass = 0
	tcxDrop = 2
)

const skbLen = 0 // Where struct __sk_buff has its length (linux/bpf.h).

// mangler is instructions for frames that come in at an interface. R6 is the
// frame's struct __sk_buff; they end at the label pass or exit.
type mangler asm.Instructions

// ofLength leaves alone what is shorter than least or longer than most.
func ofLength(least, most int32, then ...asm.Instruction) mangler {
	return append(mangler{
		asm.LoadMem(asm.R7, asm.R6, skbLen, asm.Word),
		asm.JLT.Imm(asm.R7, least, "pass"),
		asm.JGT.Imm(asm.R7, most, "pass"),
	}, then...)
}

// damage flips a bit of the byte at an offset. Checksums that the kernel still
// owes (CHECKSUM_PARTIAL) aren't checked by anybody: only who looks sees it.
func damage(at int32) []asm.Instruction {
	byteAt := func(helper asm.BuiltinFunc) []asm.Instruction {
		return []asm.Instruction{
			asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, at),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 1), asm.Mov.Imm(asm.R5, 0),
			helper.Call(),
		}
	}
	code := append([]asm.Instruction{asm.Mov.Imm(asm.R7, 0), asm.StoreMem(asm.RFP, -8, asm.R7, asm.DWord)}, byteAt(asm.FnSkbLoadBytes)...)
	code = append(code,
		asm.LoadMem(asm.R7, asm.RFP, -8, asm.Byte), asm.Xor.Imm(asm.R7, 0x10), asm.StoreMem(asm.RFP, -8, asm.R7, asm.Byte))
	return append(code, byteAt(asm.FnSkbStoreBytes)...)
}

// twice gives a copy to another interface of the namespace.
func twice(ifindex int) []asm.Instruction {
	return []asm.Instruction{
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, int32(ifindex)), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call(),
	}
}

// halfLost drops every other frame, by chance.
func halfLost() []asm.Instruction {
	return []asm.Instruction{
		asm.FnGetPrandomU32.Call(), asm.And.Imm(asm.R0, 1), asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R0, tcxDrop), asm.Return(),
	}
}

// broken is a bridge between two containers that a test breaks.
type broken struct {
	*lab.T
	b    *bench
	p    *baseline.Path
	host string // The bridge's namespace.
}

func newBroken(t *testing.T) *broken {
	t.Helper()
	l := lab.New(t)
	p, err := baseline.NewBridge(l.Lab)
	l.NoError(err)
	return &broken{T: l, b: newBench(l), p: p, host: strings.TrimSuffix(p.A.Name, "-a")}
}

// newBench is what run makes, for one round of a second.
func newBench(l *lab.T) *bench {
	l.Helper()
	cores, err := usableCores()
	l.NoError(err)
	netperf, err := chooseTools()
	l.NoError(err)
	return &bench{
		opts: options{Runs: 1, Seconds: 1}, lab: l.Lab, cores: cores, netperf: netperf, cubic: needsCubic(),
		progress: newProgress(io.Discard), result: &Result{Options: options{Runs: 1}},
	}
}

// inHost runs f on a thread in the bridge's namespace.
func (b *broken) inHost(f func() error) {
	b.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		n, err := netns.GetFromName(b.host)
		if err == nil {
			err = errors.Join(netns.Set(n), n.Close())
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	b.NoError(<-done)
}

// mangle changes what comes in at port-a of the bridge, until it is called off.
func (b *broken) mangle(m mangler) (off func()) {
	b.Helper()
	code := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, m...)
	code = append(code, asm.Mov.Imm(asm.R0, tcxPass).WithSymbol("pass"), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: code})
	b.NoError(err)
	var hook link.Link
	b.inHost(func() (err error) {
		ifindex, err := indexOf("port-a")
		if err != nil {
			return err
		}
		hook, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: program, Attach: ebpf.AttachTCXIngress})
		return err
	})
	return func() { b.NoError(errors.Join(hook.Close(), program.Close())) }
}
