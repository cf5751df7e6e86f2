package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"

	"heddle/ctl/api"
)

// UnreachableError says that there was no speaking to swd.
type UnreachableError struct {
	Socket string
	Err    error
	Hint   string // What to do next.
}

// Error says where swd was looked for and what came of it.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("swd can't be reached at %s: %v", e.Socket, e.Err)
}

// Unwrap returns the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// unreachable makes the error of a failed connect(2).
func unreachable(socket string, err error) *UnreachableError {
	e := &UnreachableError{Socket: socket, Err: err, Hint: "is swd running? systemctl status swd, or start one: swd --socket " + socket}
	var number syscall.Errno
	if !errors.As(err, &number) {
		return e
	}
	e.Err = number
	switch number {
	case syscall.EACCES, syscall.EPERM:
		e.Hint = "run as root or join the socket's group (ls -l " + socket + " shows it)"
	case syscall.ENOENT:
		e.Hint += "; one that listens elsewhere is named by --socket or SWCTL_SOCKET"
	}
	return e
}

// RefusedError is an answer of swd that is not 2xx.
type RefusedError struct {
	Status int // HTTP's; see api.Error.
	Answer api.Error
}

// Error says what was refused and why.
func (e *RefusedError) Error() string { return e.Answer.Error() }

// Unwrap returns the answer.
func (e *RefusedError) Unwrap() error { return &e.Answer }

// NotFound tells whether an error is swd's answer that there is no such
// object.
func NotFound(err error) bool {
	var r *RefusedError
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}

// refused reads an answer that is not 2xx. What isn't swd's own says at least
// its status.
func refused(resp *http.Response) error {
	e := &RefusedError{Status: resp.StatusCode}
	err := json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&e.Answer)
	if err != nil || e.Answer.Why == "" {
		e.Answer = api.Error{
			What: resp.Request.Method + " " + resp.Request.URL.Path,
			Why:  "an answer that is none of swd's: " + resp.Status,
			Hint: "is it swd that listens there, and of the same version?",
		}
	}
	return e
}

// broken says in the user's words what happened to a connection; nil stays
// nil.
func broken(err error) error {
	var none *UnreachableError
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &none):
		return none
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("swd didn't answer in time: %w", err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", context.Canceled)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("swd ended the connection before its answer was whole; its log may say why: %w", err)
	case errors.As(err, &request):
		return fmt.Errorf("talk to swd: %w", request.Err)
	}
	return fmt.Errorf("talk to swd: %w", err)
}
