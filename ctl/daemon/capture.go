package daemon

import (
	"net/http"

	"heddle/dataplane"
)

const maxCaptures = 8

type tapping struct{}

func (t *tapping) forget(p *port) {}

func (p *port) tapped() dataplane.Port { return p.dev.port() }

func (d *Daemon) getCapture(w http.ResponseWriter, r *http.Request) {}
