package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errInUse is returned where another swd holds the socket or the state.
var errInUse = errors.New("another swd is running")

// lockFile holds path for this process until the file is closed or the process
// ends, however it ends. The file stays behind: removing it would let two
// processes lock two files of one name.
func lockFile(path, what string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // The group must get to the socket, which has its own mode.
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	f, err := openLock(path)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0)
		pid := strings.TrimSpace(string(b[:n]))
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w (process %s)\nhint: stop it, or give this one its own --socket and --state-dir", what, errInUse, pid)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	return f, nil
}

// openLock opens nothing but an ordinary file of this name: root truncates it,
// and the directory may be one in which others can make links.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: remove it", path)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("fstat %s: %w", path, err), f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		return nil, errors.Join(fmt.Errorf("%s is no file of its own: remove it", path), f.Close())
	}
	return f, nil
}
