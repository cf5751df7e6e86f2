package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"heddle/ctl/api"
)

// TestConns: connections are handed over one by one while the answer is under
// way, and an answer that isn't whole is an error.
func TestConns(t *testing.T) {
	handed := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"proto":"tcp"},`)
		_ = http.NewResponseController(w).Flush()
		<-handed
		_, _ = io.WriteString(w, `{"proto":"udp"}]`+"\n")
	})
	var protos []string
	err := c.Conns(t.Context(), ConnFilter{}, 0, func(n api.Conn) error {
		if protos = append(protos, n.Proto); len(protos) == 1 {
			close(handed)
		}
		return nil
	})
	if err != nil || strings.Join(protos, ",") != "tcp,udp" {
		t.Error(protos, err)
	}
	err = c.Conns(t.Context(), ConnFilter{}, 0, func(api.Conn) error { return io.ErrShortWrite })
	if !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	for body, want := range map[string]string{
		"null":                "",
		"[]\n":                "",
		"":                    "before its answer was whole",
		"[":                   "before its answer was whole",
		`[{"proto":"tcp"}`:    "before its answer was whole",
		`[{"proto":`:          "before its answer was whole",
		`{}`:                  "its answer is no list",
		`[]{}`:                "there is more behind its answer",
		`[{"packets":"one"}]`: "talk to swd: json: cannot unmarshal",
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		err := c.Conns(t.Context(), ConnFilter{}, 0, func(api.Conn) error { return nil })
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", body, err, want)
		}
	}
}
