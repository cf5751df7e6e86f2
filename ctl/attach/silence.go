package attach

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// silencer is the program's name, by which it is recognised.
const silencer = "heddle_silence"

// tcActShot drops a frame, the same to tcx and to tc (TC_ACT_SHOT of
// linux/pkt_cls.h).
const tcActShot = 2

// Silence keeps the namespace's own stack off an interface until the Closer is
// closed: every frame that comes in by it is dropped after packet sockets have
// seen it. Where the kernel has tcx (6.6) the program ends with swd, however
// that ends; before, a clsact filter may be left behind by a killed swd, and
// the next Silence or Unsilence of the interface replaces or removes it. It
// fails with ErrNoLink, and with ErrTaken if a running swd silences the
// interface already.
func (ns *Namespace) Silence(name string) (io.Closer, error) {
	return in(ns, func() (io.Closer, error) {
		nl, err := byName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ns, err)
		}
		index := nl.Attrs().Index
		if silenced(index) {
			return nil, fmt.Errorf("%s: interface %s: a running swd silences it: %w", ns, name, ErrTaken)
		}
		program, err := loadSilencer()
		if err != nil {
			return nil, fmt.Errorf("%s: interface %s: silence: %w", ns, name, err)
		}
		c, err := silenceTCX(index, program)
		if errors.Is(err, ebpf.ErrNotSupported) {
			c, err = silenceClsact(index, program)
		}
		// What it is attached to holds the program.
		if err = errors.Join(err, program.Close()); err != nil {
			return nil, fmt.Errorf("%s: interface %s: silence: %w", ns, name, err)
		}
		return c, nil
	})
}

// loadSilencer loads `return TC_ACT_SHOT`.
func loadSilencer() (*ebpf.Program, error) {
	// Kernels before 5.11 take programs from the locked memory of the user.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: silencer,
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, tcActShot),
			asm.Return(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load the program (swd needs CAP_BPF and CAP_NET_ADMIN): %w", err)
	}
	return program, nil
}

// silenceTCX puts the program before all others of the interface.
func silenceTCX(index int, program *ebpf.Program) (io.Closer, error) {
	return link.AttachTCX(link.TCXOptions{
		Interface: index,
		Program:   program,
		Attach:    ebpf.AttachTCXIngress,
		Anchor:    link.Head(),
	})
}

// silenced tells whether somebody's silencer is attached by tcx, which lives
// only as long as the process that attached it. A kernel without tcx, or
// without the right to ask, says no.
func silenced(index int) bool {
	result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return false
	}
	for _, attached := range result.Programs {
		program, err := ebpf.NewProgramFromID(attached.ID)
		if err != nil {
			continue // It has been detached meanwhile.
		}
		info, err := program.Info()
		if closing := program.Close(); err == nil && closing == nil && info.Name == silencer {
			return true
		}
	}
	return false
}
