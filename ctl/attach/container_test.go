package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// engine is a container engine that knows what its handler says.
func engine(t *testing.T, handler http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return socket
}

// answer is the part of a real engine's that matters.
func answer(pid int, running bool, mode string) string {
	return fmt.Sprintf(`{"Id":"4f5a","Name":"/web","State":{"Status":"x","Running":%v,"Paused":false,"Pid":%d,"ExitCode":0},
		"HostConfig":{"NetworkMode":%q,"CapAdd":null},"NetworkSettings":{"SandboxKey":""}}`, running, pid, mode)
}

func TestByContainer(t *testing.T) {
	checkLeaks(t)
	cmd := startProcess(t)
	var asked atomic.Value
	socket := engine(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.URL.EscapedPath())
		fmt.Fprint(w, answer(cmd.Process.Pid, true, "none"))
	})
	want, err := ByPID(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, want)
	check := func() {
		t.Helper()
		ns, err := ByContainer(t.Context(), "we/b")
		if err != nil {
			t.Fatal(err)
		}
		defer closing(t, ns)
		if !ns.Same(want) || ns.String() != "container we/b" {
			t.Errorf("%v %v, want %v", ns, ns.ID(), want.ID())
		}
		if err := ns.Alive(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	check()
	if got := asked.Load(); got != "GET /containers/4f5a/json" {
		t.Errorf("asked last %v", got)
	}

	// Without DOCKER_HOST, the second engine is asked for what the first
	// doesn't know or isn't there to say.
	t.Setenv("DOCKER_HOST", "")
	empty := engine(t, http.NotFound)
	for _, first := range []string{empty, filepath.Join(t.TempDir(), "none.sock")} {
		useEngines(t, first, socket)
		check()
	}
}

// useEngines replaces the usual sockets for a test.
func useEngines(t *testing.T, sockets ...string) {
	t.Helper()
	before := engineSockets
	engineSockets = sockets
	t.Cleanup(func() { engineSockets = before })
}

func TestByContainerErrors(t *testing.T) {
	cmd := startProcess(t)
	ended := startProcess(t)
	stopProcess(ended)
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	restarted := func() http.HandlerFunc {
		var asked atomic.Int32
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, answer(cmd.Process.Pid+int(asked.Add(1))-1, true, "none"))
		}
	}
	for _, tt := range []struct {
		name    string
		id      string // Empty means web.
		handler http.HandlerFunc
		want    error
		says    string
	}{
		{"unknown", "", says(404, `{"message":"No such container: web"}`), ErrNoContainer, "container web: "},
		{"no id", "-", says(200, answer(cmd.Process.Pid, true, "none")), ErrNoContainer, "a name or id is needed"},
		{"stopped", "", says(200, answer(0, false, "none")), ErrNotRunning, "start it first"},
		{"host's network", "", says(200, answer(cmd.Process.Pid, true, "host")), ErrSharedNetwork, "--network none"},
		{"another's network", "", says(200, answer(cmd.Process.Pid, true, "container:db")), ErrSharedNetwork, "of container db"},
		{"process ended since", "", says(200, answer(ended.Process.Pid, true, "none")), ErrNotRunning, "it has ended"},
		{"restarted meanwhile", "", restarted(), ErrNotRunning, "restarted just now"},
		{"engine fails", "", says(500, "out of\ncheese"), nil, "answers 500 Internal Server Error: out of"},
		{"long message", "", says(500, strings.Repeat("x", 1000)), nil, strings.Repeat("x", 200) + "…"},
		{"no JSON", "", says(200, "<html>"), nil, "what isn't a container"},
		{"empty object", "", says(200, "{}"), ErrNotRunning, ""},
		{"endless", "", func(w http.ResponseWriter, _ *http.Request) {
			for range maxInspect/1024 + 2 {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}, nil, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			t.Setenv("DOCKER_HOST", "unix://"+engine(t, tt.handler))
			id := "web"
			if tt.id == "-" {
				id = ""
			}
			_, err := ByContainer(t.Context(), id)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %v saying %q", err, tt.want, tt.says)
			}
		})
	}
}

func TestByContainerWithoutEngine(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	t.Setenv("DOCKER_HOST", "tcp://198.18.0.1:2375")
	if _, err := ByContainer(t.Context(), "web"); !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "only unix://") {
		t.Errorf("tcp: %v", err)
	}
	t.Setenv("DOCKER_HOST", "")
	useEngines(t, dir+"/a.sock", dir+"/b.sock")
	_, err := ByContainer(t.Context(), "web")
	if !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "a.sock") || !strings.Contains(err.Error(), "b.sock") {
		t.Errorf("none: %v", err)
	}

	// An engine that doesn't answer is waited for no longer than ctx says.
	hangs := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	socket := engine(t, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-hangs
	})
	defer close(hangs)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	if _, err := ByContainer(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("hanging: %v", err)
	}
}
