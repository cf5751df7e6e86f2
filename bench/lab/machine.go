package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures depend on.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Memory uint64 `json:"memory_bytes"`
	Go     string `json:"go"`
	Commit string `json:"commit"` // As git describe has it.
	// Load is the load average over a minute when the run began: what else the
	// machine had to do.
	Load float64 `json:"load"`
}

// String names the machine in one line, as the head of a table of figures.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s, commit %s, load %.2f", m.CPU, m.CPUs, m.Kernel, m.Go, m.Commit, m.Load)
}

// ThisMachine is the machine that this process runs on, and the working directory's
// commit. What it can't find out is "unknown" or zero.
func ThisMachine(ctx context.Context) Machine {
	m := Machine{CPU: "unknown", CPUs: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOARCH, Commit: "unknown"}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = s.Totalram * uint64(s.Unit)
	}
	if avg, err := os.ReadFile("/proc/loadavg"); err == nil {
		minute, _, _ := strings.Cut(string(avg), " ")
		m.Load, _ = strconv.ParseFloat(minute, 64) // 0 where it can't be read.
	}
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	return m
}
