package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// engineSockets are where container engines that speak Docker's API listen,
// in the order in which they are asked if DOCKER_HOST names none.
var engineSockets = []string{"/run/docker.sock", "/run/podman/podman.sock"}

const (
	// engineTimeout bounds one question to an engine.
	engineTimeout = 10 * time.Second
	// maxInspect bounds the engine's answer, in bytes.
	maxInspect = 4 << 20
)

// inspection is what matters of the answer to GET /containers/ID/json (Docker
// Engine API v1.24 and later, and Podman's compatible one).
type inspection struct {
	ID    string `json:"Id"`
	State struct {
		Running bool
		Pid     int
	}
	HostConfig struct{ NetworkMode string }
}

// ByContainer opens the namespace of a running container, by the name or id
// that an engine knows it by: the one at DOCKER_HOST (unix:// only), else
// those at Docker's and Podman's usual sockets, in this order. It fails with
// ErrNoEngine, ErrNoContainer, ErrNotRunning or ErrSharedNetwork.
func ByContainer(ctx context.Context, id string) (*Namespace, error) {
	ns, err := byContainer(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	ns.name = "container " + id
	return ns, nil
}

func byContainer(ctx context.Context, id string) (*Namespace, error) {
	if id == "" {
		return nil, fmt.Errorf("a name or id is needed: %w", ErrNoContainer)
	}
	sockets := engineSockets
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		path, ok := strings.CutPrefix(host, "unix://")
		if !ok {
			return nil, fmt.Errorf("DOCKER_HOST is %s, but only unix:// sockets lead to containers of this machine: %w", host, ErrNoEngine)
		}
		sockets = []string{path}
	}
	var errs []error
	for _, socket := range sockets {
		ns, err := openAt(ctx, socket, id)
		if err == nil {
			return ns, nil
		}
		if !errors.Is(err, ErrNoEngine) && !errors.Is(err, ErrNoContainer) {
			return nil, err
		}
		errs = append(errs, err)
	}
	// An engine that answered says more than one that isn't there.
	for _, err := range errs {
		if errors.Is(err, ErrNoContainer) {
			return nil, err
		}
	}
	return nil, errors.Join(errs...)
}

func openAt(ctx context.Context, socket, id string) (*Namespace, error) {
	c, err := inspect(ctx, socket, id)
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	ns, err := ByPID(c.State.Pid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	// The process may have ended, and its number been given again, between the
	// engine's answer and the opening.
	again, err := inspect(ctx, socket, c.ID)
	if err == nil && (!again.State.Running || again.State.Pid != c.State.Pid) {
		err = fmt.Errorf("it stopped or was restarted just now, try again: %w", ErrNotRunning)
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// check refuses a container whose namespace isn't its own to change.
func (c *inspection) check() error {
	if !c.State.Running || c.State.Pid == 0 {
		return fmt.Errorf("start it first: %w", ErrNotRunning)
	}
	mode := c.HostConfig.NetworkMode
	if other, ok := strings.CutPrefix(mode, "container:"); ok {
		return fmt.Errorf("it uses that of container %s (add the port to that one): %w", other, ErrSharedNetwork)
	}
	if mode == "host" {
		return fmt.Errorf("it uses the host's (run it with --network none): %w", ErrSharedNetwork)
	}
	return nil
}

func inspect(ctx context.Context, socket, id string) (c inspection, err error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/"+url.PathEscape(id)+"/json", nil)
	if err != nil {
		return c, fmt.Errorf("ask the engine at %s: %w", socket, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return c, fmt.Errorf("%w at %s: %w", ErrNoEngine, socket, err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxInspect+1))
	err = errors.Join(err, resp.Body.Close())
	switch {
	case err != nil:
		return c, fmt.Errorf("read the answer of the engine at %s: %w", socket, err)
	case resp.StatusCode == http.StatusNotFound:
		return c, fmt.Errorf("the engine at %s: %w", socket, ErrNoContainer)
	case resp.StatusCode != http.StatusOK:
		return c, fmt.Errorf("the engine at %s answers %s: %s", socket, resp.Status, firstLine(body))
	case len(body) > maxInspect:
		return c, fmt.Errorf("the engine at %s answers more than %d bytes", socket, maxInspect)
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("the engine at %s answers what isn't a container: %w", socket, err)
	}
	if c.ID == "" {
		c.ID = id
	}
	return c, nil
}

// firstLine shortens an engine's message to what fits an error.
func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
