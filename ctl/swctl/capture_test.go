package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// block makes a pcapng block with a body of so many bytes.
func block(kind uint32, body int) []byte {
	b := make([]byte, 12+body)
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[8+body:], uint32(len(b)))
	return b
}

// stream is a section header, an interface and three frames.
func stream() []byte {
	return bytes.Join([][]byte{block(0x0a0d0d0a, 16), block(1, 8), block(6, 100), block(6, 1500), block(6, 64)}, nil)
}

// serveCapture sends the stream and the numbers, at once or when the client
// has ended its half.
func serveCapture(untilStopped bool, started chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Heddle-Captured, Heddle-Missed")
		_, _ = w.Write(stream())
		if untilStopped {
			_ = http.NewResponseController(w).Flush()
			close(started)
			<-r.Context().Done()
		}
		w.Header().Set("Heddle-Captured", "3")
		w.Header().Set("Heddle-Missed", "7")
	}
}

func TestCaptureToFileAndStdout(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{
		"GET /v1/capture?port=web":     {serve: serveCapture(false, nil)},
		"GET /v1/capture?network=blue": {serve: serveCapture(false, nil)},
	})
	file := filepath.Join(t.TempDir(), "x.pcapng")
	expect(t, f.swctl("capture", "web", "-w", file), outcome{0, "", "3 frames captured, 7 missed\n"})
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, stream()) {
		t.Errorf("the file has %d bytes, want %d: %v", len(got), len(stream()), err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	want := outcome{0, string(stream()), "3 frames captured, 7 missed\n"}
	expect(t, f.swctl("capture", "web", "-w", "-"), want)
	expect(t, f.swctl("capture", "web"), want) // Its stdout is no terminal.
	expect(t, f.swctl("capture", "--network", "blue"), want)
}

// TestCaptureInterrupted: Ctrl-C ends a capture in order, with all that swd
// had and its numbers.
func TestCaptureInterrupted(t *testing.T) {
	started := make(chan struct{})
	f := newFakeSwd(t, map[string]answer{"GET /v1/capture?port=web": {serve: serveCapture(true, started)}})
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		<-started
		interrupt()
	}()
	expect(t, f.swctlWith(ctx, "", "capture", "web"), outcome{0, string(stream()), "3 frames captured, 7 missed\n"})
}

func TestCaptureRefused(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{
		"GET /v1/capture?port=web": {status: 404, body: `{"what":"capture web","why":"there is no port web"}`},
	})
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, f.swctl("capture", "web", "-w", file), outcome{1, "", "error: capture web: there is no port web\n"})
	if got, _ := os.ReadFile(file); string(got) != "kept" {
		t.Error("a refused capture overwrote the file")
	}
	absent := filepath.Join(t.TempDir(), "absent", "x.pcapng")
	f.answers["GET /v1/capture?port=web"] = answer{serve: serveCapture(false, nil)}
	got := f.swctl("capture", "web", "-w", absent)
	if got.code != 1 || !strings.Contains(got.stderr, "no such file or directory") {
		t.Errorf("%+v", got)
	}
}

// TestCaptureBrokenOff: swd ends in the middle of a frame; the file keeps the
// whole ones.
func TestCaptureBrokenOff(t *testing.T) {
	whole := len(stream()) - len(block(6, 64))
	f := newFakeSwd(t, map[string]answer{"GET /v1/capture?port=web": {serve: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(stream()[:whole+20])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}}})
	file := filepath.Join(t.TempDir(), "x.pcapng")
	got := f.swctl("capture", "web", "-w", file)
	if got.code != 1 || !strings.HasPrefix(got.stderr, "2 frames captured\nerror: capture web: swd ended the connection") {
		t.Errorf("%+v", got)
	}
	if data, err := os.ReadFile(file); err != nil || !bytes.Equal(data, stream()[:whole]) {
		t.Errorf("the file has %d bytes, want %d: %v", len(data), whole, err)
	}
}

// TestCaptureFullDisk writes to /dev/full.
func TestCaptureFullDisk(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{"GET /v1/capture?port=web": {serve: serveCapture(false, nil)}})
	got := f.swctl("capture", "web", "-w", "/dev/full")
	expect(t, got, outcome{1, "", "error: capture web: write /dev/full: no space left on device\n" +
		"hint: the frames up to here are in /dev/full; write elsewhere, or less by a filter, -c or --snaplen\n"})
}

// TestCaptureClosedPipe writes to a pipe whose reader is gone.
func TestCaptureClosedPipe(t *testing.T) {
	f := newFakeSwd(t, map[string]answer{"GET /v1/capture?port=web": {serve: serveCapture(false, nil)}})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer func() { _ = w.Close() }()
	var stderr strings.Builder
	code := run(t.Context(), []string{"--socket", f.socket, "capture", "web"}, strings.NewReader(""), w, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "error: capture web: the reader of the pipe went away: ") {
		t.Errorf("%d, %s", code, stderr.String())
	}
}

// limited takes so many bytes, and then the disk is full.
type limited struct {
	bytes.Buffer
	room int
}

func (l *limited) Write(b []byte) (int, error) {
	n, _ := l.Buffer.Write(b[:min(len(b), l.room)])
	l.room -= n
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// TestBlockWriter: wherever the disk fills up and however the stream is cut
// into pieces, the whole blocks are known.
func TestBlockWriter(t *testing.T) {
	all := stream()
	ends := []int{0}
	for end := 0; end < len(all); {
		end += int(binary.LittleEndian.Uint32(all[end+4:]))
		ends = append(ends, end)
	}
	for room := 0; room <= len(all); room += 3 {
		w := &blockWriter{out: &limited{room: room}}
		_, err := io.Copy(w, iotest.OneByteReader(bytes.NewReader(all)))
		want := 0
		for _, end := range ends {
			if end <= room {
				want = end
			}
		}
		if w.whole != int64(want) || errors.Is(err, syscall.ENOSPC) != (room < len(all)) {
			t.Errorf("room for %d: %d bytes are whole, want %d; %v", room, w.whole, want, err)
		}
	}
	w := &blockWriter{out: io.Discard}
	if _, err := w.Write(all); err != nil || w.frames != 3 || w.whole != int64(len(all)) {
		t.Errorf("%d frames in %d bytes, %v", w.frames, w.whole, err)
	}
	for _, bad := range []string{"not pcapng at all", "\x06\x00\x00\x00\x04\x00\x00\x00", "\x06\x00\x00\x00\x00\x00\x00\x7f"} {
		w := &blockWriter{out: io.Discard}
		if _, err := w.Write([]byte(bad)); !errors.Is(err, errNotPcapng) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestCaptureTerminal: pcapng never goes to a terminal unless asked for.
func TestCaptureTerminal(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tty.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	f := newFakeSwd(t, map[string]answer{"GET /v1/capture?port=web": {serve: serveCapture(false, nil)}})
	for _, c := range []struct {
		stdout io.Writer
		args   string
		code   int
		stderr string
	}{
		{tty, "capture web", 2, "error: capture: stdout is a terminal: write to a file by -w FILE, or show the frames by -w - | tcpdump -r -\nhint: swctl capture --help\n"},
		{null, "capture web", 0, "3 frames captured, 7 missed\n"},
	} {
		var stderr strings.Builder
		args := append([]string{"--socket", f.socket}, strings.Fields(c.args)...)
		if code := run(t.Context(), args, strings.NewReader(""), c.stdout, &stderr); code != c.code || stderr.String() != c.stderr {
			t.Errorf("%s: %d, %s", c.args, code, stderr.String())
		}
	}
}
