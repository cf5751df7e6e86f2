package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"heddle/ctl/config"
)

// stateFile is the saved specs' name in the state directory. Its format is
// that of `swctl export` and `swd --config`.
const stateFile = "state.yaml"

const stateHeader = "# What swd was asked for; it writes this file at each change and reads it when it starts.\n"

// state is where the specs outlive the process.
type state struct{ path string }

// openState makes the directory if need be.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &state{path: filepath.Join(dir, stateFile)}, nil
}

// load returns the saved specs; none if nothing was saved yet.
func (s *state) load() (*config.Config, error) {
	c, err := readConfig(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &config.Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("saved state: %w\nhint: repair the file, or move it away to start without networks and ports", err)
	}
	return c, nil
}

// save replaces the saved specs: after a crash or on a full disk the file is
// the old one or the new one, whole.
func (s *state) save(c *config.Config) error {
	b, err := config.Marshal(c)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	b = append([]byte(stateHeader), b...)
	if len(b) > config.MaxFile { // load would refuse it.
		return fail(http.StatusConflict, "save state: with this it would take %d bytes: at most %d", len(b), config.MaxFile).
			withHint("remove what is needed no more, or use shorter names")
	}
	err = renameio.WriteFile(s.path, b, 0o600, renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// readConfig reads a config file of at most config.MaxFile bytes. Errors name
// the file, and the line where there is one.
func readConfig(path string) (*config.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(b) > config.MaxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, config.MaxFile)
	}
	c, err := config.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}
