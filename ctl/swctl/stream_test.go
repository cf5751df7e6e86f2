package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"heddle/ctl/api"
)

// TestConnStream: a list of any length is printed while it comes, in JSON as
// printJSON would, in a table whose columns are those of the first rows.
func TestConnStream(t *testing.T) {
	const n = 5000
	conns := make([]api.Conn, n)
	for i := range conns {
		conns[i] = api.Conn{Proto: "udp", Network: "blue", Original: api.Flow{Src: fmt.Sprintf("198.18.0.2:%d", 1000+i)}, Packets: uint64(i)}
	}
	conns[n-1].Original.Src = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
	f := newFakeSwd(t, map[string]answer{"GET /v1/conns": {serve: func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(conns)
	}}})
	var want bytes.Buffer
	if err := printJSON(&want, conns); err != nil {
		t.Fatal(err)
	}
	if got := f.swctl("conn", "ls", "-o", "json"); got.code != 0 || got.stdout != want.String() {
		t.Errorf("%d, %s\n%.300s\nwant\n%.300s", got.code, got.stderr, got.stdout, &want)
	}
	got := f.swctl("conn", "ls")
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	if got.code != 0 || len(lines) != n+1 {
		t.Fatalf("%d, %s: %d lines", got.code, got.stderr, len(lines))
	}
	at := strings.Index(lines[0], "ORIGINAL-DST")
	for i, line := range lines[1:n] {
		if line[at-2:at+1] != "  -" {
			t.Fatalf("row %d isn't aligned:\n%s\n%s", i, lines[0], line)
		}
	}
	if !strings.Contains(lines[n], conns[n-1].Original.Src+"  -") {
		t.Errorf("the wide row is %s", lines[n])
	}
}

// TestConnStreamBroken: what came before swd went away is printed, and can't
// be taken for the whole.
func TestConnStreamBroken(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{"GET /v1/conns": {serve: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "["+conn1+",")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}}})
	for _, o := range []string{"table", "json"} {
		got := f.swctl("conn", "ls", "-o", o)
		if got.code != 1 || !strings.Contains(got.stderr, "before its answer was whole") || !strings.Contains(got.stdout, "192.0.2.9:61007") {
			t.Errorf("%+v", got)
		}
		if o == "json" && json.Valid([]byte(got.stdout)) {
			t.Errorf("it looks whole: %s", got.stdout)
		}
	}
}

// TestStreamFullDisk: a failure to print is an error, once.
func TestStreamFullDisk(t *testing.T) {
	table := newTableStream(fullDisk{}, "A", "B")
	for range 10 * streamRows {
		table.row("some text", "that is longer than the buffer")
	}
	if table.err == nil || !errors.Is(table.end(table.err), syscall.ENOSPC) {
		t.Error(table.err)
	}
	list := newListStream(fullDisk{})
	var err error
	for range streamBuffer {
		if err = list.add("x"); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("no error")
	}
	if err := list.end(err); !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "no space") != 1 {
		t.Error(err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
