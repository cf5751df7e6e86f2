package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// How lines that workers share are counted: the program runs itself once more
// under valgrind's lackey, which prints each access to memory. There two workers
// push batches one after the other, worker 0 as phase 1 and worker 1 as phase 2,
// with a store to mark before and after each. A line that both touch and at
// least one of them writes is one that would go from core to core; whoever wrote
// to it, and how often, is in the trace. Nothing is sampled, and neither the
// machine's number of cores nor its load matters.

// mark has a line to itself; what is stored is the phase that begins.
var mark [3 * lineLen / 4]atomic.Uint32

const lineLen = 64

// traceBound is how long a trace may take.
const traceBound = 2 * time.Minute

// tracedBatches is how many batches a worker pushes while it is traced.
const tracedBatches = 10

// SharedLine is a cache line that two workers touch and one of them writes.
type SharedLine struct {
	// What is the fields that lie there, as far as they were touched.
	What string `json:"what"`
	// Reads and Writes are accesses of one worker, a batch.
	Reads  float64 `json:"reads"`
	Writes float64 `json:"writes"`
}

// Traced is what was counted for a path.
type Traced struct {
	Shared []SharedLine `json:"shared"`
	// Lines is how many these are.
	Lines int `json:"lines"`
	// Touched and Written are lines of one worker.
	Touched int `json:"touched"`
	Written int `json:"written"`
	// Instructions is how many a frame takes, in batches of Frames, from the port
	// that it comes by to the one that counts it.
	Instructions float64 `json:"instructions"`
	Frames       int     `json:"frames"`
}

// prologue is what the traced program says before it begins.
type prologue struct {
	Mark    uintptr
	Regions []Region
}

// beTraced is the program that trace runs.
func beTraced(name string, frames int, out io.Writer) error {
	debug.SetGCPercent(-1)
	p, err := newPath(name, 2, frames)
	if err != nil {
		return err
	}
	at := &mark[lineLen/4]
	if err := json.NewEncoder(out).Encode(prologue{uintptr(unsafe.Pointer(at)), regionsOf(p.roots)}); err != nil {
		return err
	}
	// Each has a stack of its own.
	turns, over := [2]chan uint32{make(chan uint32), make(chan uint32)}, make(chan bool)
	for w := range 2 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for phase := range turns[w] {
				p.push(w) // What goes with a worker's turn is in its cache.
				at.Store(phase)
				for range tracedBatches {
					p.push(w)
				}
				at.Store(0)
				over <- true
			}
		}()
	}
	for round := range 3 {
		for w := range 2 {
			phase := uint32(0)
			if round == 2 {
				phase = uint32(w) + 1
			}
			turns[w] <- phase
			<-over
		}
	}
	return p.carried(2 * 3 * uint64(tracedBatches*frames))
}

// trace counts the lines that two workers share on a path.
func trace(ctx context.Context, name string, frames int) (*Traced, error) {
	valgrind, err := exec.LookPath("valgrind")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, traceBound, errors.New("valgrind takes too long"))
	defer cancel()
	// The kernel ends it with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.CommandContext(ctx, valgrind, "--tool=lackey", "--trace-mem=yes", "--log-fd=3",
		self, "--traced", name, "--frames", strconv.Itoa(frames))
	// One thread at a time runs anyway.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	// The address of mark is in the executable, the same without valgrind.
	a := newAccesses(uintptr(unsafe.Pointer(&mark[lineLen/4])))
	errRead := a.read(r)
	if err := errors.Join(cmd.Wait(), errRead); err != nil {
		return nil, fmt.Errorf("tracing %s: %w\n%s", name, err, stderr.Bytes())
	}
	var said prologue
	if err := json.Unmarshal(stdout.Bytes(), &said); err != nil {
		return nil, fmt.Errorf("tracing %s: what it said of its memory: %w", name, err)
	}
	if said.Mark != a.mark {
		return nil, fmt.Errorf("tracing %s: the mark is at %x, and was expected at %x", name, said.Mark, a.mark)
	}
	return a.shared(said.Regions, tracedBatches, frames), nil
}

// use is how often a worker accessed a line, and where in it.
type use struct {
	reads, writes int
	at            map[uintptr]bool // Addresses.
}

// accesses reads a trace.
type accesses struct {
	mark  uintptr
	phase int // 1 + worker, 0 outside of both.
	next  int
	lines [2]map[uintptr]*use
	// instructions of both phases.
	instructions int
}

func newAccesses(mark uintptr) *accesses {
	return &accesses{mark: mark, next: 1, lines: [2]map[uintptr]*use{{}, {}}}
}

// read takes a trace in: lines of " S 1ffe,8", L for a load, M for both at once,
// I for an instruction, beside valgrind's own, which begin with ==.
func (a *accesses) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		b, err := in.ReadSlice('\n')
		if err == io.EOF {
			if a.next <= marks {
				return fmt.Errorf("lackey's trace ends after %d of %d marks", a.next-1, marks)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b, []byte("I ")) && a.phase != 0 {
			a.instructions++
		}
		if len(b) > 4 && b[0] == ' ' {
			if err := a.access(b[1], string(bytes.TrimSpace(b[2:]))); err != nil {
				return err
			}
		}
	}
}

func (a *accesses) access(kind byte, where string) error {
	address, size, ok := strings.Cut(where, ",")
	addr, errA := strconv.ParseUint(address, 16, 64)
	n, errN := strconv.ParseUint(size, 10, 16)
	if !ok || errA != nil || errN != nil {
		return fmt.Errorf("lackey's trace has %q", where)
	}
	writes := kind == 'S' || kind == 'M'
	if uintptr(addr) == a.mark && writes {
		// 0 0 0 0 1 0 2 0: rounds for warming up, then the phases.
		a.stored()
		return nil
	}
	if a.phase == 0 {
		return nil
	}
	lines := a.lines[a.phase-1]
	for l := uintptr(addr) / lineLen; l <= (uintptr(addr)+uintptr(n)-1)/lineLen; l++ {
		u := lines[l]
		if u == nil {
			u = &use{at: map[uintptr]bool{}}
			lines[l] = u
		}
		if writes {
			u.writes++
		}
		if kind != 'S' {
			u.reads++
		}
		u.at[max(uintptr(addr), l*lineLen)] = true
	}
	return nil
}

// marks is how many stores to the mark there are: one before and one after each
// turn of a worker, of which the last is the one that counts.
const (
	marksBefore = 2 * 2 * 2
	marks       = marksBefore + 2*2
)

// stored follows the stores to the mark.
func (a *accesses) stored() {
	switch n := a.next - marksBefore; n {
	case 1, 3:
		a.phase = (n + 1) / 2
	default:
		a.phase = 0
	}
	a.next++
}

// shared sums up, for batches of so many frames of each worker.
func (a *accesses) shared(regions []Region, batches, frames int) *Traced {
	t := &Traced{Frames: frames, Instructions: float64(a.instructions) / 2 / float64(batches*frames)}
	byWhat := map[string]*SharedLine{}
	for l, u := range a.lines[0] {
		t.Touched++
		if u.writes > 0 {
			t.Written++
		}
		o := a.lines[1][l]
		if o == nil || u.writes+o.writes == 0 {
			continue
		}
		t.Lines++
		what := naming(regions, u, o)
		s := byWhat[what]
		if s == nil {
			s = &SharedLine{What: what}
			byWhat[what] = s
		}
		s.Reads += float64(u.reads+o.reads) / 2 / float64(batches)
		s.Writes += float64(u.writes+o.writes) / 2 / float64(batches)
	}
	for _, s := range byWhat {
		t.Shared = append(t.Shared, *s)
	}
	slices.SortFunc(t.Shared, func(x, y SharedLine) int {
		if d := y.Reads + y.Writes - x.Reads - x.Writes; d != 0 {
			return int(max(-1, min(1, d*1e6)))
		}
		return strings.Compare(x.What, y.What)
	})
	return t
}

// naming tells what of a line was accessed.
func naming(regions []Region, uses ...*use) string {
	var names []string
	for _, u := range uses {
		for at := range u.at {
			name := nameOf(regions, at)
			if name == "" {
				name = "Go's runtime"
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
