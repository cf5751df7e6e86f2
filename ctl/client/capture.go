package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"heddle/ctl/api"
)

// stopTimeout is how long a capture that was stopped may take to end.
const stopTimeout = 5 * time.Second

// Capture is what to capture: the frames of one port, network or uplink.
type Capture struct {
	Port    string
	Network string
	Uplink  string
	Count   uint64 // Ends after so many frames; 0 means never.
	SnapLen uint32 // Bytes of each frame that are kept; 0 lets swd choose.
	Filter  string // As tcpdump's; empty takes every frame.
}

// Captured is what came of a capture.
type Captured struct {
	Frames uint64 // In the stream.
	Missed uint64 // More than could be kept, counted before the filter: also frames that it would have left out.
	// Known tells whether swd said so; if the connection broke, it didn't.
	Known bool
}

// Capture writes a pcapng stream to w until the count is reached or ctx is
// done, which ends it in order and is no error. A w that fails ends it with
// that error. Nothing is written if swd refuses.
func (c *Client) Capture(ctx context.Context, what Capture, w io.Writer) (Captured, error) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := stopper{give: cancel}
	transport := &http.Transport{
		DialContext: dialer(c.socket, stop.connected), DisableCompression: true, DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	defer context.AfterFunc(ctx, stop.stop)()

	q := params("port", what.Port, "network", what.Network, "uplink", what.Uplink, "filter", what.Filter)
	if what.Count > 0 {
		q.Set("count", strconv.FormatUint(what.Count, 10))
	}
	if what.SnapLen > 0 {
		q.Set("snaplen", strconv.FormatUint(uint64(what.SnapLen), 10))
	}
	resp, err := c.send(inner, &http.Client{Transport: transport}, http.MethodGet, api.PathCapture, q, nil)
	if err != nil {
		if ctx.Err() != nil {
			return Captured{}, nil
		}
		return Captured{}, err
	}
	defer resp.Body.Close()
	out := &sink{w: w}
	_, err = io.Copy(out, resp.Body)
	switch {
	case out.err != nil:
		return Captured{}, out.err
	case err != nil && ctx.Err() == nil:
		return Captured{}, broken(err)
	}
	return captured(resp.Trailer), nil
}

// captured reads the trailers.
func captured(trailer http.Header) (n Captured) {
	frames, err1 := strconv.ParseUint(trailer.Get(api.TrailerCaptured), 10, 64)
	missed, err2 := strconv.ParseUint(trailer.Get(api.TrailerMissed), 10, 64)
	if err1 != nil || err2 != nil {
		return Captured{}
	}
	return Captured{Frames: frames, Missed: missed, Known: true}
}

// sink tells a failure to write from one to read.
type sink struct {
	w   io.Writer
	err error
}

// Write writes to w and keeps its error.
func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.err = err
	return n, err
}

// stopper ends a capture in order: it shuts the client's half of the
// connection down, whereupon swd sends what it has and the numbers.
type stopper struct {
	give func() // Gives the connection up.

	mu      sync.Mutex
	conn    *net.UnixConn
	stopped bool
}

func (s *stopper) connected(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	if s.stopped {
		s.give()
	}
}

func (s *stopper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.conn == nil || s.conn.CloseWrite() != nil {
		s.give()
		return
	}
	time.AfterFunc(stopTimeout, s.give)
}
