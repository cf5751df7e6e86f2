package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"heddle/bench/baseline"
)

// version is set by the linker (-X main.version), for swd as for this program.
var version = "unknown"

// Program is what a contender's processes run.
type Program struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

// contenderPrefix begins the names of the contenders that are swd.
const contenderPrefix = "swd-"

// identify reads what swd in a file is.
func identify(ctx context.Context, path string) (Program, error) {
	sum, err := digest(path)
	if err != nil {
		return Program{}, err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Program{}, fmt.Errorf("%s --version: %w", path, err)
	}
	name, v, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if name != "swd" || v == "" {
		return Program{}, fmt.Errorf("%s is no swd: its version is %q", path, out)
	}
	return Program{Path: path, Version: v, SHA256: sum}, nil
}

// digest is the SHA-256 of a file.
func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a program: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading a program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// genuine checks that a contender's processes run the swd that the run began
// with: another one may have been put in its place since, or started instead.
func (b *bench) genuine(ctx context.Context, p *baseline.Path) error {
	if !strings.HasPrefix(p.Name, contenderPrefix) {
		return nil
	}
	if b.result.Swd == nil {
		bin, err := b.binaries()
		if err != nil {
			return err
		}
		swd, err := identify(ctx, bin.Swd)
		if err != nil {
			return err
		}
		if err := b.expected(swd); err != nil {
			return err
		}
		b.result.Swd = &swd
	}
	for _, pid := range p.PIDs {
		sum, err := digest(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if sum != b.result.Swd.SHA256 {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			return fmt.Errorf("%s runs %s, which is not the swd that this run began with (%s, version %s)",
				p.Name, exe, b.result.Swd.Path, b.result.Swd.Version)
		}
	}
	return nil
}

// expected refuses a swd that was built apart from this program, unless it was
// asked for by --swd.
func (b *bench) expected(swd Program) error {
	if b.apart || swd.Version == version {
		return nil
	}
	return fmt.Errorf("%s is version %s, but swbench beside it is %s: run `make build`, or name both by --swd and --swctl to measure them as they are",
		swd.Path, swd.Version, version)
}
