package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// lineWatch ends a command when its output has so many lines.
type lineWatch struct {
	bytes.Buffer
	lines  int
	enough func()
}

func (w *lineWatch) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if w.lines -= bytes.Count(b, []byte("\n")); w.lines <= 0 {
		w.enough()
	}
	return n, err
}

// TestEventsFollow: each event is printed as it comes, and Ctrl-C is no error.
func TestEventsFollow(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{"GET /v1/events?follow=1": {serve: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, event1+"\n"+event2+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}}})
	for o, want := range map[string]string{
		"json": event1 + "\n" + event2 + "\n",
		"table": "2026-01-02T03:04:05.000000006Z       port-added        port web              added to network blue\n" +
			"2026-01-02T03:04:06.5Z               port-down         port lan              interface enp3s0 is gone\n",
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		out := &lineWatch{lines: 2, enough: interrupt}
		var stderr strings.Builder
		code := run(ctx, []string{"--socket", f.socket, "events", "--follow", "-o", o}, strings.NewReader(""), out, &stderr)
		expect(t, outcome{code, out.String(), stderr.String()}, outcome{0, want, ""})
	}
}

// TestEventsEnd: that swd ends a list that has no end is an error.
func TestEventsEnd(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{"GET /v1/events?follow=1": {}})
	expect(t, f.swctl("events", "--follow"), outcome{1, "", "error: events: swd ended the connection\n"})
}
