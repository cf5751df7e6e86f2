package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// openDescriptors maps this process's descriptors to what they are open on.
// Those of the runtime's poller are left out: they come once and stay.
func openDescriptors() (map[string]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing descriptors: %w", err)
	}
	open := map[string]string{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // The one that ReadDir itself used.
		}
		if err != nil {
			return nil, fmt.Errorf("listing descriptors: %w", err)
		}
		if strings.HasPrefix(target, "anon_inode:[eventpoll]") || strings.HasPrefix(target, "anon_inode:[eventfd]") {
			continue
		}
		open[e.Name()] = target
	}
	return open, nil
}

// ownLinks lists the names of the interfaces in the caller's namespace.
func ownLinks() ([]string, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	names := make([]string, 0, len(ifs))
	for _, i := range ifs {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names, nil
}

// childProcesses lists this process's children that have not been waited for,
// as "pid (name)".
func childProcesses() ([]string, error) {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, fmt.Errorf("listing child processes: %w", err)
	}
	var children []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // The thread has ended meanwhile.
		}
		if err != nil {
			return nil, fmt.Errorf("listing child processes: %w", err)
		}
		for _, pid := range strings.Fields(string(b)) {
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			children = append(children, fmt.Sprintf("%s (%s)", pid, strings.TrimSpace(string(name))))
		}
	}
	return children, nil
}
