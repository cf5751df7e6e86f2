package mesh

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// journal takes memberlist's log lines: it passes on those that tell an
// administrator something, and learns from one what memberlist tells no other
// way, that a probe found no answer.
type journal struct {
	mesh *Mesh

	mu    sync.Mutex
	since time.Time
	lines int
}

// At most this many lines of memberlist's are passed on.
const (
	journalLines  = 20
	journalWindow = 10 * time.Second
)

// Lines that say nothing is wrong: a restarted host is probed by its old name,
// an old namesake's metadata is about, a member refutes.
var routine = []string{"Got ping for unexpected node", "Refuting", "ignoring alive message"}

// Write takes one line, as log.Logger hands it over. It may hold memberlist's
// lock.
func (j *journal) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level := slog.LevelDebug
	for prefix, l := range map[string]slog.Level{"[ERR] ": slog.LevelWarn, "[ERROR] ": slog.LevelWarn, "[WARN] ": slog.LevelInfo, "[INFO] ": slog.LevelDebug} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			text, level = rest, l
			break
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if rest, ok := strings.CutPrefix(text, "Suspect "); ok {
		if node, _, ok := strings.Cut(rest, " has failed"); ok {
			j.mesh.suspect(node)
		}
	}
	if level < slog.LevelInfo {
		return len(line), nil
	}
	for _, r := range routine {
		if strings.Contains(text, r) {
			return len(line), nil
		}
	}
	j.mu.Lock()
	now := time.Now()
	if now.Sub(j.since) > journalWindow {
		j.since, j.lines = now, 0
	}
	j.lines++
	ok := j.lines <= journalLines
	j.mu.Unlock()
	if ok {
		j.mesh.note(level, "mesh: %s", text)
	}
	return len(line), nil
}

// suspect notes that a probe of a node found no answer. memberlist logs that
// before it takes its lock.
func (m *Mesh) suspect(node string) {
	o, err := parseNode(node)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.find(o); in != nil && in.suspect.IsZero() {
		in.suspect = time.Now()
	}
}
