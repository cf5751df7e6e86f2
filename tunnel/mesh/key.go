package mesh

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Key names a key of the mesh without telling it.
type Key struct {
	ID     string // KeyID of it.
	Active bool   // It encrypts; the others only decrypt.
}

// ParseKey reads the contents of a key file: 16, 24 or 32 bytes in base64
// (RFC 4648 section 4, with padding) with white space around, or the bytes
// themselves.
func ParseKey(file []byte) ([]byte, error) {
	text := bytes.TrimSpace(file)
	key := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	if n, err := base64.StdEncoding.Decode(key, text); err == nil && checkKey(key[:n]) == nil {
		return key[:n], nil
	}
	if checkKey(file) == nil {
		return bytes.Clone(file), nil
	}
	return nil, fmt.Errorf("no mesh key: want 16, 24 or 32 bytes, as they are or in base64; make one with: head -c 32 /dev/urandom | base64")
}

// KeyID is what a key is called: the first 8 hexadecimal digits of its SHA-256.
func KeyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

func checkKey(key []byte) error {
	switch len(key) {
	case 16, 24, 32:
		return nil
	}
	return fmt.Errorf("a mesh key of %d bytes: want 16, 24 or 32", len(key))
}

// Keys lists the keys, the active one first.
func (m *Mesh) Keys() []Key {
	var keys []Key
	if m.keyring == nil {
		return nil
	}
	for i, k := range m.keyring.GetKeys() {
		keys = append(keys, Key{ID: KeyID(k), Active: i == 0})
	}
	return keys
}

// AddKey makes the mesh understand a further key and returns its ID. Give it
// to every member before UseKey on any. It fails with MaxKeys keys, and in a
// mesh that was made without one.
func (m *Mesh) AddKey(key []byte) (string, error) {
	if err := checkKey(key); err != nil {
		return "", fmt.Errorf("add mesh key: %w", err)
	}
	m.keyLock.Lock()
	defer m.keyLock.Unlock()
	if m.keyring == nil {
		return "", fmt.Errorf("add mesh key: this mesh was joined without a key, and members without one could not follow: leave, and join with a key")
	}
	for _, k := range m.keyring.GetKeys() {
		if bytes.Equal(k, key) {
			return KeyID(key), nil
		}
	}
	if len(m.keyring.GetKeys()) >= MaxKeys {
		return "", fmt.Errorf("add mesh key: %d keys are live already: retire one first", MaxKeys)
	}
	if err := m.keyring.AddKey(bytes.Clone(key)); err != nil {
		return "", fmt.Errorf("add mesh key: %w", err)
	}
	return KeyID(key), nil
}

// UseKey makes the key with this ID the active one.
func (m *Mesh) UseKey(id string) error {
	m.keyLock.Lock()
	defer m.keyLock.Unlock()
	key, err := m.findKey(id)
	if err != nil {
		return fmt.Errorf("activate mesh key: %w", err)
	}
	if err := m.keyring.UseKey(key); err != nil {
		return fmt.Errorf("activate mesh key %s: %w", id, err)
	}
	return nil
}

// RemoveKey forgets a key; the active one can't be.
func (m *Mesh) RemoveKey(id string) error {
	m.keyLock.Lock()
	defer m.keyLock.Unlock()
	key, err := m.findKey(id)
	if err != nil {
		return fmt.Errorf("retire mesh key: %w", err)
	}
	if bytes.Equal(key, m.keyring.GetPrimaryKey()) {
		return fmt.Errorf("retire mesh key %s: it is the active one: activate another first", id)
	}
	if err := m.keyring.RemoveKey(key); err != nil {
		return fmt.Errorf("retire mesh key %s: %w", id, err)
	}
	return nil
}

// findKey returns the key with an ID. keyLock is held.
func (m *Mesh) findKey(id string) ([]byte, error) {
	if m.keyring != nil {
		for _, k := range m.keyring.GetKeys() {
			if KeyID(k) == id {
				return k, nil
			}
		}
	}
	return nil, fmt.Errorf("no key %s", id)
}
