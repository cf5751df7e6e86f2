// Package config holds the specs: what a user asked for, as data. A spec and
// the live object made from it share the noun. The same specs are the file
// (`swd --config`, `swctl apply -f`, `swctl export`), the bodies of API
// requests and the daemon's saved state.
//
// Parse reads a file strictly and reports every error with its line; Validate
// checks a spec alone and against the others. Nothing here touches the host.
package config
