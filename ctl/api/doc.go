// Package api is what swd and its clients say to each other: paths, response
// bodies and errors of HTTP with JSON over a unix socket. Request bodies that
// ask for an object are the specs of package config. docs/API.md is the same
// for readers.
package api
