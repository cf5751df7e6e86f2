package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockFile: it holds once, says who holds it, and never writes to a file
// that somebody else put behind its name.
func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink(victim, path) },
		"hard link":     func(path string) error { return os.Link(victim, path) },
		"pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if f, err := lockFile(path, "it"); err == nil {
			_ = f.Close()
			t.Errorf("%s: locked", name)
		}
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("the file behind a link is %q", b)
	}

	path := filepath.Join(dir, "lock")
	f, err := lockFile(path, "it")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(path, "it"); !errors.Is(err, errInUse) {
		t.Errorf("twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = lockFile(path, "it"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}
