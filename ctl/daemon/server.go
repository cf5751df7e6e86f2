package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
	"unicode"

	"go.uber.org/zap"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// Bounds of a request.
const (
	maxBody        = 1 << 20 // Bytes of the body of a request that asks for one object.
	headerTimeout  = 10 * time.Second
	requestTimeout = 30 * time.Second // To read a request, and to write an answer or a piece of a stream.
	changeTimeout  = 5 * time.Minute  // To carry a change out: a big apply makes thousands of links.
	idleTimeout    = 30 * time.Second
	maxHeader      = 16 << 10 // Bytes.
)

type peerKey struct{}

// newServer returns the HTTP server of the API.
func (d *Daemon) newServer() *http.Server {
	return &http.Server{
		Handler:           d.guard(d.routes()),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(d.log.Named("http")),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p, ok := peerOf(c)
			if !ok {
				return ctx
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
	}
}

// guard stands before all routes. Who may connect is decided by the kernel, by
// the socket's owner, group and mode; guard turns away only a peer that it
// can't name, and answers a panic with 500.
func (d *Daemon) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, known := r.Context().Value(peerKey{}).(peer)
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v) // net/http's own way to break a stream off.
			}
			d.log.Error("a request panicked", zap.Any("panic", v), zap.String("path", r.URL.Path), zap.ByteString("stack", debug.Stack()))
			d.answerError(w, r.Method+" "+r.URL.Path, fail(http.StatusInternalServerError, "swd failed inside: %v; its log has more", v))
		}()
		if !known {
			d.answerError(w, "", fail(http.StatusForbidden, "who you are can't be told"))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			deadline := time.Now().Add(changeTimeout)
			_ = http.NewResponseController(w).SetWriteDeadline(deadline)
		}
		next.ServeHTTP(w, r)
	})
}

// handler is a route: it returns what to answer with, or why not.
type handler struct {
	what   string // The operation and its object for errors, `port add`.
	status int    // Of a success; 0 means 200.
	do     func(r *http.Request) (any, error)
	params bool // do reads the query's parameters; else there must be none.
}

// handle adapts a handler to the mux. what may name the object by the path's
// {name}.
func (d *Daemon) handle(mux *http.ServeMux, pattern string, h handler) {
	mux.HandleFunc(pattern, d.serve(h))
}

// serve adapts a handler to net/http.
func (d *Daemon) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		what := h.what
		if name := r.PathValue("name"); name != "" {
			what += " " + printable(name)
		}
		var v any
		var err error
		if !h.params {
			_, err = query(r)
		}
		if err == nil {
			v, err = h.do(r)
		}
		var n named
		if errors.As(err, &n) && n.name != "" {
			what += " " + n.name
		} else if name := nameOf(v); name != "" && r.PathValue("name") == "" {
			what += " " + name
		}
		d.audit(r, what, err)
		if err != nil {
			d.answerError(w, what, err)
			return
		}
		status := h.status
		if status == 0 {
			status = http.StatusOK
		}
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, status, v)
	}
}

// audit logs a change, by its operation and object, with who asked for it and
// what came of it; a GET is none.
func (d *Daemon) audit(r *http.Request, what string, err error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	p, _ := r.Context().Value(peerKey{}).(peer)
	fields := []zap.Field{zap.String("what", what), zap.String("path", printable(r.URL.RequestURI())),
		zap.Int32("pid", p.pid), zap.Uint32("uid", p.uid), zap.Uint32("gid", p.gid)}
	if err != nil {
		d.log.Warn("change refused", append(fields, zap.Error(err))...)
		return
	}
	d.log.Info("change done", fields...)
}

// nameOf returns the name of an object that is answered with; empty if it has
// none.
func nameOf(v any) string {
	switch v := v.(type) {
	case api.Network:
		return v.Name
	case api.Port:
		return v.Name
	case api.Entry:
		return v.MAC
	case api.Peer:
		return v.Name
	case api.Key:
		return v.ID
	}
	return ""
}

// named is an error that knows which object the request was about.
type named struct {
	name string
	err  error
}

func (n named) Error() string { return n.err.Error() }
func (n named) Unwrap() error { return n.err }

// about names the object of an error, if there is one.
func about(name string, err error) error {
	if err == nil {
		return nil
	}
	return named{name, err}
}

// printable bounds and quotes what a client sent before it comes back in text.
func printable(s string) string {
	if len(s) > config.MaxName {
		s = s[:config.MaxName] + "…"
	}
	for _, r := range s {
		if r <= ' ' || r == '"' || r == 0x7f || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// routes maps the API's paths (package api).
func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	d.handle(mux, "GET "+api.PathStatus, handler{what: "status", do: func(*http.Request) (any, error) { return d.Status(), nil }})
	d.handle(mux, "GET "+api.PathConfig, handler{what: "export", do: func(*http.Request) (any, error) { return d.Export(), nil }})
	d.handle(mux, "POST "+api.PathConfig, handler{what: "apply", do: d.postConfig})

	d.handle(mux, "GET "+api.PathNetworks, handler{what: "network ls", do: func(*http.Request) (any, error) { return d.Networks(), nil }})
	d.handle(mux, "POST "+api.PathNetworks, handler{what: "network add", status: http.StatusCreated, do: d.postNetwork})
	d.handle(mux, "GET "+api.PathNetworks+"/{name}", handler{what: "network show", do: func(r *http.Request) (any, error) {
		return orError(d.Network(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathNetworks+"/{name}", handler{what: "network rm", do: func(r *http.Request) (any, error) {
		return nil, d.RemoveNetwork(r.PathValue("name"))
	}})

	d.handle(mux, "GET "+api.PathPorts, handler{what: "port ls", do: func(*http.Request) (any, error) { return d.Ports(), nil }})
	d.handle(mux, "POST "+api.PathPorts, handler{what: "port add", status: http.StatusCreated, do: d.postPort})
	d.handle(mux, "GET "+api.PathPorts+"/{name}", handler{what: "port show", do: func(r *http.Request) (any, error) {
		return orError(d.Port(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathPorts+"/{name}", handler{what: "port rm", do: func(r *http.Request) (any, error) {
		return nil, d.RemovePort(r.PathValue("name"))
	}})

	d.handle(mux, "GET "+api.PathUplinks, handler{what: "uplink ls", do: func(*http.Request) (any, error) { return d.Uplinks(), nil }})
	d.handle(mux, "POST "+api.PathUplinks, handler{what: "uplink add", status: http.StatusCreated, do: d.postUplink})
	d.handle(mux, "GET "+api.PathUplinks+"/{name}", handler{what: "uplink show", do: func(r *http.Request) (any, error) {
		return orError(d.Uplink(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathUplinks+"/{name}", handler{what: "uplink rm", do: func(r *http.Request) (any, error) {
		return nil, d.RemoveUplink(r.PathValue("name"))
	}})

	d.handle(mux, "GET "+api.PathNAT, handler{what: "nat ls", do: func(*http.Request) (any, error) { return d.NATs(), nil }})
	d.handle(mux, "POST "+api.PathNAT, handler{what: "nat add", status: http.StatusCreated, do: d.postNAT})
	d.handle(mux, "GET "+api.PathNAT+"/{name}", handler{what: "nat show", do: func(r *http.Request) (any, error) {
		return orError(d.NAT(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathNAT+"/{name}", handler{what: "nat rm", do: func(r *http.Request) (any, error) {
		return nil, d.RemoveNAT(r.PathValue("name"))
	}})
	d.tunnelRoutes(mux)
	mux.HandleFunc("GET "+api.PathConns, d.getConns)
	d.handle(mux, "DELETE "+api.PathConns, handler{what: "conn flush", do: d.deleteConns, params: true})
	d.handle(mux, "GET "+api.PathConnCount, handler{what: "conn count", do: d.countConns})

	mux.HandleFunc("GET "+api.PathFDB, d.getFDB)
	d.handle(mux, "POST "+api.PathFDB, handler{what: "fdb add", status: http.StatusCreated, do: d.postFDB})
	remove, flush := d.serve(handler{what: "fdb rm", do: d.deleteFDB, params: true}), d.serve(handler{what: "fdb flush", do: d.flushFDB, params: true})
	mux.HandleFunc("DELETE "+api.PathFDB, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("mac") {
			remove(w, r)
		} else {
			flush(w, r)
		}
	})
	d.handle(mux, "GET "+api.PathDrops, handler{what: "drops", do: d.getDrops, params: true})
	mux.HandleFunc("GET "+api.PathEvents, d.getEvents)
	mux.HandleFunc("GET "+api.PathCapture, d.getCapture)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		err := fail(http.StatusNotFound, "no such path").withHint("docs/API.md lists the paths")
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			if _, pattern := mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); pattern != "/" {
				err = fail(http.StatusMethodNotAllowed, "the path has no such method")
			}
		}
		what := r.Method + " " + printable(r.URL.Path)
		d.audit(r, what, err)
		d.answerError(w, what, err)
	})
	return mux
}

// body decodes a request's spec strictly and within its bound.
func body(r *http.Request, bound int64, v any) error {
	err := config.DecodeJSON(http.MaxBytesReader(nil, r.Body, bound), v)
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return fail(http.StatusRequestEntityTooLarge, "the request's body is longer than %d bytes", bound)
	}
	if err == nil {
		return nil
	}
	var bad config.Errors
	if errors.As(err, &bad) {
		return bad
	}
	return fail(http.StatusBadRequest, "request: %w", err)
}

// orError returns v as any, and no v with an error.
func orError[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// answer writes a JSON document.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"what":"answer","why":"it can't be written as JSON"}`)
	}
	w.Header().Set("Content-Type", api.TypeJSON)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// answerError writes why not, and logs what is swd's own fault.
func (d *Daemon) answerError(w http.ResponseWriter, what string, err error) {
	status, body := answerOf(what, err)
	if status >= http.StatusInternalServerError {
		d.log.Error("request failed", zap.String("what", what), zap.Error(err))
	}
	answer(w, status, body)
}

// stream prepares a long answer: no deadline to read, since the client says
// nothing more, and one for each piece that is written.
func stream(w http.ResponseWriter, contentType string) *streamWriter {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", contentType)
	return &streamWriter{w: w, c: c}
}

// streamWriter is a response of unknown length; a client that doesn't read for
// requestTimeout ends it.
type streamWriter struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// Write writes one piece.
func (s *streamWriter) Write(b []byte) (int, error) {
	if err := s.c.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	return s.w.Write(b)
}

// Flush sends what was written.
func (s *streamWriter) Flush() error {
	if err := s.c.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return s.c.Flush()
}
