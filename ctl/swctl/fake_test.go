package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeSwd is a swd that gives canned answers on a unix socket.
type fakeSwd struct {
	socket string
	// answers are by method and URI, as "GET /v1/ports".
	answers map[string]answer

	mu    sync.Mutex
	asked []string // The requests in their order, with their bodies.
}

func (f *fakeSwd) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// answer is a status (0 means 200) and a body, or a handler.
type answer struct {
	status int
	body   string
	serve  http.HandlerFunc
}

func newFakeSwd(t *testing.T, answers map[string]answer) *fakeSwd {
	t.Helper()
	// Not t.TempDir: the path of a unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "swctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fakeSwd{socket: filepath.Join(dir, "swd.sock"), answers: answers}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return f
}

func (f *fakeSwd) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(key+" "+string(body)))
	f.mu.Unlock()
	a, ok := f.answers[key]
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"what":"fake","why":"nothing for `+key+`"}`)
	case a.serve != nil:
		a.serve(w, r)
	default:
		if a.status == 0 {
			a.status = http.StatusOK
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}
}

// outcome is what a command line came to.
type outcome struct {
	code           int
	stdout, stderr string
}

// swctl runs a command line in this process.
func (f *fakeSwd) swctl(args ...string) outcome {
	return f.swctlWith(context.Background(), "", args...)
}

func (f *fakeSwd) swctlWith(ctx context.Context, stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	args = append([]string{"--socket", f.socket}, args...)
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// expect holds an outcome against what is wanted.
func expect(t *testing.T, got, want outcome) {
	t.Helper()
	if got != want {
		t.Errorf("exit code %d, want %d\nstdout:\n%s\nwant:\n%s\nstderr:\n%s\nwant:\n%s",
			got.code, want.code, got.stdout, want.stdout, got.stderr, want.stderr)
	}
}
