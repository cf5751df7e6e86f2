package attach

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// silencer is the program's name, by which it is recognised.
const silencer = "heddle_silence"

// Silence keeps the namespace's own stack off an interface until the Closer is
// closed: every frame that comes in by it is dropped after packet sockets have
// seen it. Where the kernel has tcx (6.6) the program ends with swd, however
// that ends; before, a clsact filter may be left behind by a killed swd, and
// the next Silence or Unsilence of the interface replaces or removes it. It
// fails with ErrNoLink, and with ErrTaken if a running swd uses the
// interface already.
func (ns *Namespace) Silence(name string) (io.Closer, error) {
	return in(ns, func() (io.Closer, error) {
		nl, err := byName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ns, err)
		}
		index := nl.Attrs().Index
		if attached(index) {
			return nil, fmt.Errorf("%s: interface %s: a running swd uses it: %w", ns, name, ErrTaken)
		}
		program, err := loadSilencer()
		if err != nil {
			return nil, fmt.Errorf("%s: interface %s: silence: %w", ns, name, err)
		}
		c, err := attachProgram(index, program, silencer)
		// What it is attached to holds the program.
		if err = errors.Join(err, program.Close()); err != nil {
			return nil, fmt.Errorf("%s: interface %s: silence: %w", ns, name, err)
		}
		return c, nil
	})
}

// loadSilencer loads `return TC_ACT_SHOT`.
func loadSilencer() (*ebpf.Program, error) {
	return loadProgram(silencer, asm.Instructions{
		asm.Mov.Imm(asm.R0, tcActShot),
		asm.Return(),
	})
}
