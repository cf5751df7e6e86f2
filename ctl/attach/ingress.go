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

// What a program at ingress says of a frame, the same to tcx (linux/bpf.h) and
// to tc (linux/pkt_cls.h).
const (
	tcActShot = 2  // TC_ACT_SHOT: it goes no further.
	tcNext    = -1 // TCX_NEXT, TC_ACT_UNSPEC: to the next program, in the end to the stack.
)

// isOurs tells a program or filter of Heddle's by its name.
func isOurs(name string) bool { return name == silencer || name == sharer }

// allowMemory: kernels before 5.11 take programs and maps from the locked
// memory of the user.
func allowMemory() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
	}
	return nil
}

func loadProgram(name string, code asm.Instructions) (*ebpf.Program, error) {
	if err := allowMemory(); err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("load the program (swd needs CAP_BPF and CAP_NET_ADMIN): %w", err)
	}
	return program, nil
}

// attachProgram attaches a program by tcx, or else by clsact.
func attachProgram(index int, program *ebpf.Program, name string) (io.Closer, error) {
	c, err := attachTCX(index, program)
	if errors.Is(err, ebpf.ErrNotSupported) {
		c, err = attachClsact(index, program, name)
	}
	return c, err
}

// attachTCX puts a program before all others of the interface.
func attachTCX(index int, program *ebpf.Program) (io.Closer, error) {
	return link.AttachTCX(link.TCXOptions{
		Interface: index,
		Program:   program,
		Attach:    ebpf.AttachTCXIngress,
		Anchor:    link.Head(),
	})
}

// attached tells whether a program of somebody's swd is attached by tcx, which
// lives only as long as the process that attached it. A kernel without tcx, or
// without the right to ask, says no.
func attached(index int) bool {
	result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return false
	}
	for _, p := range result.Programs {
		program, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			continue // It has been detached meanwhile.
		}
		info, err := program.Info()
		if closing := program.Close(); err == nil && closing == nil && isOurs(info.Name) {
			return true
		}
	}
	return false
}
