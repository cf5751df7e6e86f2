package daemon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// capturing is a capture's client.
type capturing struct {
	t    *testing.T
	conn net.Conn
	res  *http.Response
	ng   *pcapgo.NgReader
}

// capture begins a capture; the daemon has it under way when it returns.
func (d *testDaemon) capture(query string) *capturing {
	d.t.Helper()
	c := &capturing{t: d.t, conn: d.dial()}
	fmt.Fprintf(c.conn, "GET %s?%s HTTP/1.1\r\nHost: x\r\n\r\n", api.PathCapture, query)
	var err error
	if c.res, err = http.ReadResponse(bufio.NewReader(c.conn), nil); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.conn.Close(); _ = c.res.Body.Close() })
	if c.res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(c.res.Body)
		d.t.Fatalf("capture %s: %d %s", query, c.res.StatusCode, b)
	}
	if c.ng, err = pcapgo.NewNgReader(c.res.Body, pcapgo.NgReaderOptions{SkipUnknownVersion: false}); err != nil {
		d.t.Fatal(err)
	}
	return c
}

// end has the daemon end the capture, by closing one half of the connection.
func (c *capturing) end() {
	c.t.Helper()
	if err := c.conn.(*net.UnixConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// frames reads to the end, and returns each frame as `port direction length
// captured`.
func (c *capturing) frames() (all []string) {
	c.t.Helper()
	for {
		data, ci, err := c.ng.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			c.t.Fatal(err)
		}
		i, err := c.ng.Interface(ci.InterfaceIndex)
		if err != nil {
			c.t.Fatal(err)
		}
		dir, _, _ := strings.Cut(i.Description, ":")
		all = append(all, fmt.Sprintf("%s %s %d %d", i.Name, dir, ci.Length, len(data)))
		if age := time.Since(ci.Timestamp); age.Abs() > time.Minute { // A clock may be set back meanwhile.
			c.t.Errorf("timestamp %v", ci.Timestamp)
		}
	}
}

func (c *capturing) trailers(captured, missed string) {
	c.t.Helper()
	if got := c.res.Trailer.Get(api.TrailerCaptured); got != captured {
		c.t.Errorf("%s: %q, want %s", api.TrailerCaptured, got, captured)
	}
	if got := c.res.Trailer.Get(api.TrailerMissed); got != missed {
		c.t.Errorf("%s: %q, want %s", api.TrailerMissed, got, missed)
	}
}

func TestCapture(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	a, b := d.h.device(linkA).mem, d.h.device(linkB).mem
	tcp := frameTCP80()
	copy(tcp, frame(2, 1)[:12])
	send := func() {
		a.InjectBytes(0, frame(0xff, 1), tcp, frame(2, 1))
		seen := 0
		await(t, "frames at b", func() bool { seen += len(b.Sent(0)); return seen == 3 })
	}
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"port=a", []string{"a in 60 60", "a in 54 54", "a in 60 60"}},
		{"port=b&snaplen=20", []string{"b out 60 20", "b out 54 20", "b out 60 20"}},
		{"port=a&snaplen=20&filter=" + url.QueryEscape("tcp port 80"), []string{"a in 54 20"}},
		{"port=a&filter=udp", nil},
		{"network=net&filter=tcp", []string{"a in 54 54", "b out 54 54"}},
	} {
		c := d.capture(tt.query)
		send()
		c.end()
		if got := c.frames(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.query, got, tt.want)
		}
		c.trailers(fmt.Sprint(len(tt.want)), "0")
	}
	// A count ends it without the client's doing.
	c := d.capture("network=net&count=2")
	send()
	if got := c.frames(); len(got) != 2 {
		t.Errorf("count=2: %q", got)
	}
	c.trailers("2", "0")
	await(t, "no capture is left", func() bool { return len(d.captures) == 0 })
	d.change.Lock()
	defer d.change.Unlock()
	if len(d.running) != 0 {
		t.Errorf("%d captures", len(d.running))
	}
}

// TestCaptureFollowsPorts: those that come back, and those that come.
func TestCaptureFollowsPorts(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	c := d.capture("network=net")
	other := d.capture("port=a")
	d.h.set(func() { delete(d.h.namespaces, "/run/netns/a"); delete(d.h.links, linkA) })
	d.h.poke()
	await(t, "down", func() bool { return d.port("a").State == api.StateDown })
	d.h.set(func() { d.h.namespaces["/run/netns/a"] = true })
	await(t, "up", func() bool { return d.port("a").State == api.StateUp })
	d.must("POST", api.PathPorts, config.Port{Name: "c", Network: "net", NetNS: "/run/netns/c"}, nil)
	d.h.device(linkA).mem.InjectBytes(0, frame(0xff, 1))
	await(t, "a frame at c", func() bool { return len(d.h.device("/run/netns/c|eth0").mem.Sent(0)) == 1 })
	d.must("DELETE", api.PathPorts+"/c", nil, nil)
	for _, c := range []*capturing{c, other} {
		c.end()
	}
	got := c.frames()
	slices.Sort(got)
	if !slices.Equal(got, []string{"a in 60 60", "b out 60 60", "c out 60 60"}) {
		t.Errorf("%q", got)
	}
	if got := other.frames(); !slices.Equal(got, []string{"a in 60 60"}) {
		t.Errorf("%q", got)
	}
}

// TestCaptureClientGoes: a client that just closes leaves nothing behind.
func TestCaptureClientGoes(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	for range 3 * maxCaptures {
		c := d.capture("network=net")
		d.h.device(linkA).mem.InjectBytes(0, frame(0xff, 1))
		_ = c.conn.Close()
		await(t, "the capture ends", func() bool { return len(d.captures) == 0 })
	}
}

// TestCaptureIsBounded: in number; a reader that doesn't read costs frames of
// the capture, never the switch's.
func TestCaptureIsBounded(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	var all []*capturing
	for range maxCaptures {
		all = append(all, d.capture("port=a"))
	}
	status, err := d.call("GET", api.PathCapture+"?port=a", nil, nil)
	if status != 429 || !strings.Contains(err.Why, "8 captures run already") {
		t.Errorf("%d %v", status, err)
	}
	for _, c := range all[1:] {
		_ = c.conn.Close()
	}
	await(t, "one is left", func() bool { return len(d.captures) == 1 })
	// Nobody reads all[0]: its ring fills, frames pass all the same.
	a, b := d.h.device(linkA).mem, d.h.device(linkB).mem
	sent, passed := 0, 0
	// Three times what the ring holds; swd gives up a reader that takes nothing for
	// as long as requestTimeout.
	for deadline := time.Now().Add(patience); sent < 10_000 && time.Now().Before(deadline); {
		n := a.InjectBytes(0, slices.Repeat([][]byte{bytes.Repeat(frame(2, 1), 20)}, 64)...)
		sent += n
		passed += len(b.Sent(0))
	}
	await(t, "all frames pass", func() bool { passed += len(b.Sent(0)); return passed+int(d.port("b").Drops["tx-queue-full"]) == sent })
	all[0].end()
	got := len(all[0].frames())
	missed := all[0].res.Trailer.Get(api.TrailerMissed)
	if fmt.Sprint(sent-got) != missed || missed == "0" {
		t.Errorf("%d sent, %d captured, %s missed", sent, got, missed)
	}
}

func TestCaptureRefusals(t *testing.T) {
	d := start(t, t.TempDir(), newTestHost())
	d.setUpQuiet()
	for query, want := range map[string]struct {
		status int
		why    string
	}{
		"":                           {400, "want a port, a network or an uplink"},
		"port=a&network=net":         {400, "want a port, a network or an uplink"},
		"port=none":                  {404, "no port none"},
		"network=none":               {404, "no network none"},
		"port=a&count=-1":            {400, "number of frames"},
		"port=a&snaplen=x":           {400, "number of bytes"},
		"port=a&filter=host":         {400, "what?"},
		"port=a&filter=tcp%5B13%5D":  {400, "byte expressions"},
		"port=a&color=red":           {400, "no parameter color"},
		"port=a&filter=example.com.": {400, "host names"},
	} {
		status, err := d.call("GET", api.PathCapture+"?"+query, nil, nil)
		if err == nil || status != want.status || !strings.Contains(err.Why, want.why) {
			t.Errorf("%s: %d %v, want %d %s", query, status, err, want.status, want.why)
		}
	}
	if len(d.captures) != 0 {
		t.Error("captures are left")
	}
}

// frameTCP80 is 54 bytes from 198.18.0.1:1000 to 198.18.0.2:80.
func frameTCP80() []byte {
	b := make([]byte, 54)
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	b[23] = 6
	copy(b[26:], []byte{198, 18, 0, 1, 198, 18, 0, 2, 1000 >> 8, 1000 & 0xff, 0, 80})
	return b
}

// TestCaptureMemory: all captures together stay within their bound, each with
// rings that dataplane/capture accepts and doesn't round up.
func TestCaptureMemory(t *testing.T) {
	for workers := 1; workers <= MaxWorkers; workers++ {
		n := ringBytes(workers)
		if n*workers*maxCaptures > captureMemory || n < 256<<10 || n&(n-1) != 0 {
			t.Errorf("%d workers: rings of %d bytes", workers, n)
		}
	}
}
