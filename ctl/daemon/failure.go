package daemon

import (
	"errors"
	"fmt"
	"net/http"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

// failure is a request that swd refuses, or that failed: what a client gets.
type failure struct {
	status int // HTTP's; see api.Error.
	err    error
	hint   string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure of a format as fmt.Errorf's.
func fail(status int, format string, args ...any) *failure {
	return &failure{status: status, err: fmt.Errorf(format, args...)}
}

// withHint says what to do next.
func (f *failure) withHint(format string, args ...any) *failure {
	f.hint = fmt.Sprintf(format, args...)
	return f
}

// answerOf makes the body and status of an answer out of any error: a spec's
// own errors are the client's (400), a failure says what it is, anything else
// is swd's (500).
func answerOf(what string, err error) (int, *api.Error) {
	var f *failure
	if errors.As(err, &f) {
		return f.status, &api.Error{What: what, Why: f.err.Error(), Hint: f.hint}
	}
	var bad config.Errors
	if errors.As(err, &bad) {
		return http.StatusBadRequest, &api.Error{What: what, Why: bad.Error()}
	}
	return http.StatusInternalServerError, &api.Error{What: what, Why: err.Error()}
}
