package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"heddle/bench/lab"
	"heddle/ctl/api"
)

// patience is how long is waited for what takes moments, on a machine that is
// busy with something else for seconds.
const patience = 30 * time.Second

// TestMain looks for goroutines that are left.
func TestMain(m *testing.M) { lab.MainWithoutLeaks(m, patience) }

// listen makes a unix socket whose path is short enough.
func listen(t *testing.T) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "swd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve returns a client of a server with one handler.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = listen(t)
	s.Start()
	t.Cleanup(s.Close)
	c := New(s.Listener.Addr().String())
	t.Cleanup(c.Close)
	return c
}

// TestCalls holds what each method asks for.
func TestCalls(t *testing.T) {
	var asked string
	answer := ""
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(body))
		_, _ = io.WriteString(w, answer)
	})
	ctx := t.Context()
	spec := map[string]string{"name": "a"}
	for _, call := range []struct {
		want, answer string
		do           func() error
	}{
		{"GET /v1/status", `{"pid":7}`, func() error {
			s, err := c.Status(ctx)
			return wrong(err, s.PID == 7)
		}},
		{"GET /v1/networks", `[{"name":"a"}]`, func() error {
			all, err := c.Networks(ctx)
			return wrong(err, len(all) == 1 && all[0].Name == "a")
		}},
		{"GET /v1/networks/a%2Fb%20c", `{"vni":3}`, func() error {
			n, err := c.Network(ctx, "a/b c")
			return wrong(err, n.VNI == 3)
		}},
		{`POST /v1/networks {"name":"a"}`, `{"name":"a"}`, func() error {
			n, err := c.AddNetwork(ctx, spec)
			return wrong(err, n.Name == "a")
		}},
		{"DELETE /v1/networks/a", "", func() error { return c.RemoveNetwork(ctx, "a") }},
		{"GET /v1/ports", `[]`, func() error {
			all, err := c.Ports(ctx)
			return wrong(err, len(all) == 0)
		}},
		{"GET /v1/ports/a", `{"ips":["198.18.0.2/24"]}`, func() error {
			p, err := c.Port(ctx, "a")
			return wrong(err, len(p.IPs) == 1)
		}},
		{`POST /v1/ports {"name":"a"}`, `{"name":"a"}`, func() error {
			p, err := c.AddPort(ctx, spec)
			return wrong(err, p.Name == "a")
		}},
		{"DELETE /v1/ports/a", "", func() error { return c.RemovePort(ctx, "a") }},
		{"GET /v1/fdb", `[{"static":true}]`, func() error {
			all, err := c.FDB(ctx, "")
			return wrong(err, len(all) == 1 && all[0].Static)
		}},
		{"GET /v1/fdb?network=a", `[]`, func() error {
			_, err := c.FDB(ctx, "a")
			return err
		}},
		{`POST /v1/fdb {"name":"a"}`, `{"port":"p"}`, func() error {
			e, err := c.AddStatic(ctx, spec)
			return wrong(err, e.Port == "p")
		}},
		{"DELETE /v1/fdb?mac=m&network=a", "", func() error { return c.RemoveEntry(ctx, "a", "m") }},
		{"DELETE /v1/fdb?port=p", "", func() error { return c.Flush(ctx, "", "p") }},
		{"GET /v1/drops?port=p", `[{"reason":"runt","count":2}]`, func() error {
			all, err := c.Drops(ctx, "p")
			return wrong(err, len(all) == 1 && all[0].Count == 2)
		}},
		{"GET /v1/uplinks", `[{"name":"u"}]`, func() error {
			all, err := c.Uplinks(ctx)
			return wrong(err, len(all) == 1 && all[0].Name == "u")
		}},
		{"GET /v1/uplinks/u", `{"next_hops":[{"state":"stale"}]}`, func() error {
			u, err := c.Uplink(ctx, "u")
			return wrong(err, len(u.NextHops) == 1 && u.NextHops[0].State == api.HopStale)
		}},
		{`POST /v1/uplinks {"name":"a"}`, `{"mode":"own"}`, func() error {
			u, err := c.AddUplink(ctx, spec)
			return wrong(err, u.Mode == "own")
		}},
		{"DELETE /v1/uplinks/u", "", func() error { return c.RemoveUplink(ctx, "u") }},
		{"GET /v1/nat", `[{"id":"0"},{"id":"1"}]`, func() error {
			all, err := c.NATs(ctx)
			return wrong(err, len(all) == 2 && all[1].ID == "1")
		}},
		{"GET /v1/nat/500b014917c1", `{"hits":3}`, func() error {
			n, err := c.NAT(ctx, "500b014917c1")
			return wrong(err, n.Hits == 3)
		}},
		{`POST /v1/nat {"name":"a"}`, `{"listen":"80/tcp"}`, func() error {
			n, err := c.AddNAT(ctx, spec)
			return wrong(err, n.Listen == "80/tcp")
		}},
		{"DELETE /v1/nat/500b014917c1", "", func() error { return c.RemoveNAT(ctx, "500b014917c1") }},
		{"GET /v1/conns/count", `{"count":5,"max":1000000}`, func() error {
			n, err := c.CountConns(ctx)
			return wrong(err, n.Count == 5 && n.Max == 1000000)
		}},
		{"DELETE /v1/conns", "", func() error { return c.FlushConns(ctx, ConnFilter{}) }},
		{"DELETE /v1/conns?dst=198.51.100.0%2F24&network=n&proto=tcp&src=198.18.0.2", "", func() error {
			return c.FlushConns(ctx, ConnFilter{Network: "n", Proto: "tcp", Src: "198.18.0.2", Dst: "198.51.100.0/24"})
		}},
		{"GET /v1/conns?limit=7&proto=udp", `[]`, func() error {
			return c.Conns(ctx, ConnFilter{Proto: "udp"}, 7, func(api.Conn) error { return errors.New("called for nothing") })
		}},
		{"GET /v1/config", `{"name":"a"}`, func() error {
			got := map[string]string{}
			err := c.Export(ctx, &got)
			return wrong(err, got["name"] == "a")
		}},
		{`POST /v1/config {"name":"a"}`, `{"created":["network a"]}`, func() error {
			a, err := c.Apply(ctx, spec)
			return wrong(err, len(a.Created) == 1)
		}},
	} {
		answer = call.answer
		if err := call.do(); err != nil || asked != call.want {
			t.Errorf("asked %s, want %s: %v", asked, call.want, err)
		}
	}
}

// wrong is an error if a call failed or its answer isn't as it should be.
func wrong(err error, right bool) error {
	if err == nil && !right {
		return errors.New("another answer than was sent")
	}
	return err
}

func TestUnreachable(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "no.sock")
	dead := listen(t)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close()
	for socket, want := range map[string]struct {
		err  error
		hint string
	}{
		absent:               {syscall.ENOENT, "--socket or SWCTL_SOCKET"},
		dead.Addr().String(): {syscall.ECONNREFUSED, "is swd running?"},
	} {
		_, err := New(socket).Status(t.Context())
		var none *UnreachableError
		if !errors.As(err, &none) || !errors.Is(err, want.err) || !strings.Contains(none.Hint, want.hint) || none.Socket != socket {
			t.Errorf("%s: %v", socket, err)
		}
	}
	if e := unreachable("/s", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}); !strings.Contains(e.Hint, "run as root or join the socket's group") {
		t.Error(e.Hint)
	}
}

func TestRefused(t *testing.T) {
	status, body := 404, `{"what":"port show a","why":"there is no port a","hint":"swctl port ls lists them"}`
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	_, err := c.Port(t.Context(), "a")
	var answer *api.Error
	if !errors.As(err, &answer) || answer.Hint != "swctl port ls lists them" || !NotFound(err) || err.Error() != "port show a: there is no port a" {
		t.Errorf("%v", err)
	}
	for _, other := range []string{"", "<html>", "{}"} {
		status, body = 500, other
		_, err = c.Port(t.Context(), "a")
		if !errors.As(err, &answer) || answer.Why != "an answer that is none of swd's: 500 Internal Server Error" || NotFound(err) {
			t.Errorf("%q: %v", other, err)
		}
	}
	status, body = 301, ""
	if _, err = c.Port(t.Context(), "a"); !errors.As(err, &answer) {
		t.Errorf("a redirect: %v", err)
	}
}

// TestAnsweredBeforeAsked: a swd with too many clients answers at once and
// shuts its half; the client is told so, not that the connection broke.
func TestAnsweredBeforeAsked(t *testing.T) {
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 48\r\nConnection: close\r\n\r\n"+
				`{"what":"connect","why":"swd serves 64 clients"}`)
			_ = c.(*net.UnixConn).CloseWrite()
			_, _ = c.Read(make([]byte, 4096))
			_ = c.Close()
		}
	}()
	c := New(l.Addr().String())
	for range 50 {
		_, err := c.AddPort(t.Context(), map[string]string{"name": "a"})
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Status != 429 || refused.Answer.Why != "swd serves 64 clients" {
			t.Fatal(err)
		}
	}
	_ = l.Close()
	<-done
}

func TestBroken(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"pid":`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err := c.Status(t.Context())
	var none *UnreachableError
	if err == nil || errors.As(err, &none) || !strings.Contains(err.Error(), "before its answer was whole") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	slow := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, err := slow.Status(ctx); err == nil || !strings.Contains(err.Error(), "swd didn't answer in time") {
		t.Error(err)
	}
}

// outOfTime is a context whose time has run out, and whose timer is late.
type outOfTime struct{ context.Context }

func (outOfTime) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// TestDialRunsOut: a dial that runs out of its caller's time says so, and not
// that swd can't be reached.
func TestDialRunsOut(t *testing.T) {
	_, err := dialer(listen(t).Addr().String(), nil)(outOfTime{t.Context()}, "", "")
	var none *UnreachableError
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &none) {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"a"}`+"\n"+`{"kind":"b"}`+"\n")
		if r.FormValue("follow") == "1" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	var kinds []string
	collect := func(e api.Event) error {
		kinds = append(kinds, e.Kind)
		return nil
	}
	if err := c.Events(t.Context(), false, collect); err != nil || strings.Join(kinds, "") != "ab" {
		t.Error(kinds, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kinds = nil
	err := c.Events(ctx, true, func(e api.Event) error {
		if e.Kind == "b" {
			cancel()
		}
		return collect(e)
	})
	if err != nil || strings.Join(kinds, "") != "ab" {
		t.Error(kinds, err)
	}
	if err := c.Events(t.Context(), true, func(api.Event) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
}

func TestCapture(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", api.TrailerCaptured+", "+api.TrailerMissed)
		_, _ = io.WriteString(w, r.URL.RawQuery)
		if r.FormValue("count") == "" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			_, _ = io.WriteString(w, " and the rest")
		}
		if r.FormValue("port") != "mute" {
			w.Header().Set(api.TrailerCaptured, "5")
			w.Header().Set(api.TrailerMissed, "2")
		}
	})
	var out bytes.Buffer
	n, err := c.Capture(t.Context(), Capture{Port: "a", Count: 5, SnapLen: 96, Filter: "tcp port 80"}, &out)
	if err != nil || n != (Captured{5, 2, true}) || out.String() != "count=5&filter=tcp+port+80&port=a&snaplen=96" {
		t.Errorf("%+v, %v, %s", n, err, &out)
	}
	if n, err := c.Capture(t.Context(), Capture{Port: "mute", Count: 1}, io.Discard); err != nil || n.Known {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := c.Capture(t.Context(), Capture{Port: "a", Count: 5}, fullDisk{}); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}

	// Stopped, it ends in order.
	ctx, cancel := context.WithCancel(t.Context())
	w := &stopAt{cancel: cancel}
	n, err = c.Capture(ctx, Capture{Network: "b"}, w)
	if err != nil || n != (Captured{5, 2, true}) || w.String() != "network=b and the rest" {
		t.Errorf("%+v, %v, %s", n, err, w)
	}
	if n, err := c.Capture(ctx, Capture{Network: "b"}, io.Discard); err != nil {
		t.Errorf("stopped before it began: %+v, %v", n, err)
	}
}

// TestCaptureStuck: a swd that doesn't end a stopped capture is given up.
func TestCaptureStuck(t *testing.T) {
	ended := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-ended
	})
	defer close(ended)
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	n, err := c.Capture(ctx, Capture{Port: "a"}, &stopAt{cancel: cancel})
	if err != nil || n.Known || time.Since(start) > 3*stopTimeout {
		t.Errorf("%+v, %v after %s", n, err, time.Since(start))
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// stopAt stops a capture when its first bytes come.
type stopAt struct {
	bytes.Buffer
	cancel func()
}

func (w *stopAt) Write(b []byte) (int, error) {
	defer w.cancel()
	return w.Buffer.Write(b)
}
