package lab

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Goroutines waits until no goroutine is left but the caller's and the tests',
// for as long as bound, and returns an error that lists those that are. Anybody
// may call it whose own are to have ended.
func Goroutines(bound time.Duration) error {
	left := goleak.Find()
	for deadline := time.Now().Add(bound); left != nil && time.Now().Before(deadline); {
		left = goleak.Find() // It takes its time itself.
	}
	return left
}

// MainWithoutLeaks runs a package's tests and ends the process with their exit
// code, or with 1 if Goroutines finds some that they left. TestMain calls it.
func MainWithoutLeaks(m *testing.M, bound time.Duration) {
	code := m.Run()
	if left := Goroutines(bound); code == 0 && left != nil {
		fmt.Fprintln(os.Stderr, left)
		code = 1
	}
	os.Exit(code)
}
