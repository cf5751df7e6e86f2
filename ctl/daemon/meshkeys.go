package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/tunnel/mesh"
)

// keyFile is the keys' name in the state directory. They are no part of the
// specs: those are exported.
const keyFile = "mesh-keys.json"

// keyRing is the keys of the mesh: those that messages are taken with, the
// first being the one to encrypt with. Daemon.mu guards it as it does a port.
type keyRing struct {
	path string
	// taken is the hash of the file of Options.MeshKeys that keys were taken
	// from: as long as it is the same, what was changed since stands.
	taken string
	keys  [][]byte
}

// savedKeys is the file.
type savedKeys struct {
	Taken string   `json:"taken,omitempty"`
	Keys  []string `json:"keys"`
}

// openKeys reads the saved keys and, if it is another than last time, the file
// of keys at path; its first is then the active one.
func openKeys(dir, path string) (*keyRing, error) {
	r := &keyRing{path: filepath.Join(dir, keyFile)}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("saved keys of the mesh: %w\nhint: repair the file, or move it away to start without them", err)
	}
	if path == "" {
		return r, nil
	}
	text, err := readBounded(path, config.MaxMeshKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--mesh-key: %w", err)
	}
	keys, err := config.ParseMeshKeys(text)
	if err != nil {
		return nil, fmt.Errorf("--mesh-key: %s: %w", path, err)
	}
	sum := sha256.Sum256(text)
	if taken := hex.EncodeToString(sum[:]); taken != r.taken {
		for _, k := range r.keys {
			if len(keys) < config.MaxMeshKeys && indexKey(keys, k) < 0 {
				keys = append(keys, k)
			}
		}
		next := &keyRing{path: r.path, taken: taken, keys: keys}
		return next, next.save()
	}
	return r, nil
}

func (r *keyRing) load() error {
	text, err := readBounded(r.path, config.MaxMeshKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s savedKeys
	if err := config.DecodeJSON(bytes.NewReader(text), &s); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	for _, k := range s.Keys {
		key, err := config.ParseMeshKey(k)
		if err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
		r.keys = append(r.keys, key)
	}
	r.taken = s.Taken
	return nil
}

// save replaces the file whole, readable by root only.
func (r *keyRing) save() error {
	s := savedKeys{Taken: r.taken, Keys: []string{}}
	for _, k := range r.keys {
		s.Keys = append(s.Keys, config.FormatMeshKey(k))
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = renameio.WriteFile(r.path, append(text, '\n'), 0o600, renameio.IgnoreUmask())
	}
	if err != nil {
		return fmt.Errorf("save keys of the mesh: %w", err)
	}
	return nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, bound int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, bound+1))
	if err == nil && int64(len(b)) > bound {
		err = fmt.Errorf("longer than %d bytes", bound)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func indexKey(keys [][]byte, key []byte) int {
	return slices.IndexFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// find returns the key with an id.
func (r *keyRing) find(id string) (int, error) {
	i := slices.IndexFunc(r.keys, func(k []byte) bool { return mesh.KeyID(k) == id })
	if i < 0 {
		return 0, fail(http.StatusNotFound, "there is no key %s", printable(id)).withHint("swctl mesh key ls lists them")
	}
	return i, nil
}

func (r *keyRing) view(i int) api.Key { return api.Key{ID: mesh.KeyID(r.keys[i]), Active: i == 0} }

// MeshKeys returns the keys, the active one first.
func (d *Daemon) MeshKeys() []api.Key {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]api.Key, len(d.keys.keys))
	for i := range all {
		all[i] = d.keys.view(i)
	}
	return all
}

// setKeys makes the keys what they are to be: saved, and the mesh's if there is
// one. On failure they are as before. The caller holds change.
func (d *Daemon) setKeys(keys [][]byte) error {
	was := d.keys
	next := &keyRing{path: was.path, taken: was.taken, keys: keys}
	if err := next.save(); err != nil {
		return err
	}
	if err := d.useKeys(was.keys, keys); err != nil {
		return errors.Join(err, was.save())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = next
	return nil
}

// AddMeshKey takes what is encrypted with a key from now on. The first one is
// encrypted with at once.
func (d *Daemon) AddMeshKey(text string) (api.Key, error) {
	d.change.Lock()
	defer d.change.Unlock()
	key, err := config.ParseMeshKey(text)
	if err != nil {
		return api.Key{}, fail(http.StatusBadRequest, "%w", err)
	}
	keys := d.keys.keys
	switch {
	case indexKey(keys, key) >= 0:
		return api.Key{}, fail(http.StatusConflict, "it is there already, as %s", mesh.KeyID(key))
	case len(keys) >= config.MaxMeshKeys:
		return api.Key{}, fail(http.StatusConflict, "there are %d keys: no more fit", len(keys)).
			withHint("retire one that no member encrypts with any more: swctl mesh key retire ID")
	}
	if err := d.setKeys(append(slices.Clone(keys), key)); err != nil {
		return api.Key{}, err
	}
	return d.keys.view(len(keys)), nil
}

// ActivateMeshKey encrypts with a key from now on.
func (d *Daemon) ActivateMeshKey(id string) (api.Key, error) {
	d.change.Lock()
	defer d.change.Unlock()
	i, err := d.keys.find(id)
	if err != nil {
		return api.Key{}, err
	}
	if i > 0 {
		keys := slices.Delete(slices.Clone(d.keys.keys), i, i+1)
		if err := d.setKeys(slices.Insert(keys, 0, d.keys.keys[i])); err != nil {
			return api.Key{}, err
		}
	}
	return d.keys.view(0), nil
}

// RetireMeshKey forgets a key.
func (d *Daemon) RetireMeshKey(id string) error {
	d.change.Lock()
	defer d.change.Unlock()
	i, err := d.keys.find(id)
	if err != nil {
		return err
	}
	if i == 0 {
		return fail(http.StatusConflict, "it is the one that is encrypted with").
			withHint("activate another first: swctl mesh key activate ID")
	}
	return d.setKeys(slices.Delete(slices.Clone(d.keys.keys), i, i+1))
}

func (d *Daemon) postKey(r *http.Request) (any, error) {
	var spec api.MeshKey
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	return orError(d.AddMeshKey(spec.Key))
}
