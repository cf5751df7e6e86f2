package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// query reads a request's parameters, each at most once, and refuses others
// than the known ones.
func query(r *http.Request, known ...string) (map[string]string, error) {
	if len(known) == 0 && len(r.URL.Query()) > 0 {
		return nil, fail(http.StatusBadRequest, "the path takes no parameters")
	}
	q := make(map[string]string, len(known))
	for name, values := range r.URL.Query() {
		if !slices.Contains(known, name) {
			return nil, fail(http.StatusBadRequest, "there is no parameter %s: want %s", printable(name), strings.Join(known, " or "))
		}
		if len(values) > 1 {
			return nil, fail(http.StatusBadRequest, "parameter %s is given %d times", name, len(values))
		}
		q[name] = values[0]
	}
	return q, nil
}

func (d *Daemon) postConfig(r *http.Request) (any, error) {
	var c config.Config
	if err := body(r, config.MaxFile, &c); err != nil {
		return nil, err
	}
	return orError(d.Apply(r.Context(), &c))
}

func (d *Daemon) postNetwork(r *http.Request) (any, error) {
	var spec config.Network
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.AddNetwork(spec); err != nil {
		return nil, about(printable(spec.Name), err)
	}
	return orError(d.Network(spec.Name))
}

func (d *Daemon) postPort(r *http.Request) (any, error) {
	var spec config.Port
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.AddPort(r.Context(), spec); err != nil {
		return nil, about(printable(spec.Name), err)
	}
	return orError(d.Port(spec.Name))
}

func (d *Daemon) postFDB(r *http.Request) (any, error) {
	var s config.Static
	if err := body(r, maxBody, &s); err != nil {
		return nil, err
	}
	e, err := d.AddStatic(s)
	if err != nil {
		return nil, about(printable(s.MAC), err)
	}
	return e, nil
}

func (d *Daemon) deleteFDB(r *http.Request) (any, error) {
	q, err := query(r, "network", "mac", "port")
	if err != nil {
		return nil, err
	}
	mac := q["mac"]
	if q["port"] != "" {
		return nil, fail(http.StatusBadRequest, "mac and port don't go together")
	}
	return nil, about(printable(mac), d.RemoveEntry(q["network"], mac))
}

// flushFDB drops the count: a flush that found nothing has done what was asked.
func (d *Daemon) flushFDB(r *http.Request) (any, error) {
	q, err := query(r, "network", "port")
	if err == nil {
		_, err = d.Flush(q["network"], q["port"])
	}
	return nil, err
}

// getFDB streams the entries: there may be a million.
func (d *Daemon) getFDB(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "network")
	if err == nil && q["network"] != "" {
		_, err = d.Network(q["network"])
	}
	if err != nil {
		d.answerError(w, "fdb ls", err)
		return
	}
	out := bufio.NewWriterSize(stream(w, api.TypeJSON), 64<<10)
	separator := "["
	err = d.eachEntry(q["network"], func(e api.Entry) error {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s%s", separator, b)
		}
		separator = ",\n"
		return err
	})
	if err == nil && separator == "[" {
		_, err = out.WriteString("[")
	}
	if err == nil {
		_, err = out.WriteString("]\n")
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // A list that isn't whole must not look whole.
	}
}

// getEvents writes the kept events, and with follow each new one, a line each.
func (d *Daemon) getEvents(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "follow")
	follow := q["follow"] == "1"
	if v, given := q["follow"]; err == nil && given && v != "0" && v != "1" {
		err = fail(http.StatusBadRequest, "follow=%s: want 0 or 1", printable(v))
	}
	if err != nil {
		d.answerError(w, "events", err)
		return
	}
	s := stream(w, api.TypeLines)
	write := func(events []api.Event) error {
		for _, e := range events {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if _, err := s.Write(append(b, '\n')); err != nil {
				return err
			}
		}
		return s.Flush()
	}
	if !follow {
		_ = write(d.events.kept())
		return
	}
	if err := s.Flush(); err == nil { // The client learns at once that it is served.
		err = d.events.follow(r.Context(), write)
		if err != nil && !errors.Is(err, r.Context().Err()) {
			panic(http.ErrAbortHandler)
		}
	}
}
