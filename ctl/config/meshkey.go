package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a mesh's keys.
const (
	// MaxMeshKeys is the most keys that a host has at a time: each message that
	// comes is tried with all of them.
	MaxMeshKeys = 2
	// MaxMeshKeyFile is the longest file of keys, in bytes.
	MaxMeshKeyFile = 4096
)

// ParseMeshKey reads a key in Base64: 16, 24 or 32 bytes, for AES-128, AES-192
// or AES-256. Its errors don't show it.
func ParseMeshKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("no key: want 16, 24 or 32 random bytes in Base64, as `head -c 32 /dev/urandom | base64` makes them")
	}
	if !slices.Contains([]int{16, 24, 32}, len(key)) {
		return nil, fmt.Errorf("a key of %d bytes: want 16, 24 or 32", len(key))
	}
	return key, nil
}

// FormatMeshKey writes a key as ParseMeshKey reads it.
func FormatMeshKey(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

// ParseMeshKeys reads a file of keys: one a line, the first being the one to
// encrypt with. Empty lines and those that begin with '#' are left out.
func ParseMeshKeys(file []byte) (keys [][]byte, err error) {
	if len(file) > MaxMeshKeyFile {
		return nil, fmt.Errorf("longer than %d bytes", MaxMeshKeyFile)
	}
	n := 0
	for line := range strings.Lines(string(file)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := ParseMeshKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("no key is in it: want 16, 24 or 32 random bytes in Base64, as `head -c 32 /dev/urandom | base64` makes them")
	case len(keys) > MaxMeshKeys:
		return nil, fmt.Errorf("%d keys: at most %d", len(keys), MaxMeshKeys)
	}
	return keys, nil
}
