// Package client speaks the API of package api to a swd over its unix socket.
//
// Each path has a method; bodies that ask for an object are the specs of
// package config, taken as any so that this package knows only the answers.
// An error is an *UnreachableError if swd was never spoken to, a
// *RefusedError if it answered with an api.Error, and something else if the
// connection broke in between, when what was asked may have been done or not.
//
// A Client may be used by several goroutines at once.
package client
