package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"

	"heddle/ctl/config"
)

// memberFile is the name, in the state directory, of the addresses at which
// members of the mesh were last: a host that others have joined by finds them
// again when it starts, and one whose way in is gone finds another.
const memberFile = "mesh-members.json"

// maxMemberFile bounds it, in bytes.
const maxMemberFile = 64 << 10

// knownMembers returns the addresses that were remembered, at most
// config.MaxJoin. What can't be read is not worth an error: it is written anew.
func (d *Daemon) knownMembers() []string {
	text, err := readBounded(filepath.Join(d.opts.StateDir, memberFile), maxMemberFile)
	var all []string
	if err == nil {
		err = config.DecodeJSON(bytes.NewReader(text), &all)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("the members of the mesh that were known can't be read", zap.Error(err))
		}
		return nil
	}
	all = slices.DeleteFunc(all, func(s string) bool {
		_, err := config.ParseEndpoint(s, config.MeshPort)
		return err != nil
	})
	return all[:min(len(all), config.MaxJoin)]
}

// rememberMembers saves where the members are, while there are some: who is
// alone goes on looking for those that it knew. After a leave nobody is
// remembered. The caller holds change.
func (d *Daemon) rememberMembers() {
	if len(d.members) == 0 && !d.meshLeft {
		return
	}
	var at []netip.AddrPort
	for _, m := range d.members {
		at = append(at, m.Address)
	}
	slices.SortFunc(at, netip.AddrPort.Compare)
	all := []string{}
	for _, a := range at[:min(len(at), config.MaxJoin)] {
		all = append(all, a.String())
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = renameio.WriteFile(filepath.Join(d.opts.StateDir, memberFile), append(text, '\n'), 0o600, renameio.IgnoreUmask())
	}
	if err != nil {
		d.log.Warn("the members of the mesh can't be remembered", zap.Error(err))
	}
}
