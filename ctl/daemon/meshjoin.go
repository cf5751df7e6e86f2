package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/tunnel/mesh"
)

// JoinMesh joins the mesh that any of these hosts is a member of, and remembers
// them. While it waits for an answer, others make changes.
func (d *Daemon) JoinMesh(ctx context.Context, spec config.Mesh) error {
	live, err := d.beginJoin(spec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	answered, err := live.Join(ctx, joinAddresses(spec.Join))
	return d.endJoin(live, spec, answered, err)
}

// beginJoin refuses what can't be joined, and makes this host a member of its
// own mesh at least.
func (d *Daemon) beginJoin(spec config.Mesh) (*mesh.Mesh, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.IsZero() {
		return nil, fail(http.StatusBadRequest, "join: name a member to be let in by")
	}
	next := config.Mesh{Join: unitedJoin(d.meshSpec.Join, spec.Join)}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	if d.mesh == nil {
		if err := d.startMesh(next); err != nil {
			return nil, tunnelFailure(err)
		}
	}
	for _, s := range spec.Join {
		if at, err := config.ParseEndpoint(s, config.MeshPort); err == nil && at == d.mesh.live.Self().Address {
			d.settleMesh()
			d.settleTunnels()
			return nil, fail(http.StatusConflict, "%s is this host's own address", at)
		}
	}
	d.joining++
	return d.mesh.live, nil
}

// endJoin remembers whom to join if it worked, and else ends a mesh that this
// host was not a member of before.
func (d *Daemon) endJoin(live *mesh.Mesh, spec config.Mesh, answered int, err error) error {
	d.change.Lock()
	defer d.change.Unlock()
	d.joining--
	defer func() {
		d.settleMesh()
		d.settleTunnels()
	}()
	switch {
	case errors.Is(err, mesh.ErrNameTaken):
		d.stopMesh(0)
		d.failMesh(err)
		return fail(http.StatusConflict, "%w", err).withHint("give each host a name of its own: swd --node NAME")
	case err != nil:
		return fail(http.StatusUnprocessableEntity, "%w", err)
	case d.mesh == nil || d.mesh.live != live:
		return fail(http.StatusConflict, "the mesh was left meanwhile")
	}
	was := d.meshSpec
	d.setMeshSpec(config.Mesh{Join: unitedJoin(was.Join, spec.Join)})
	if err := d.save(); err != nil {
		d.setMeshSpec(was)
		return err
	}
	d.note(eventMeshJoined, "mesh", fmt.Sprintf("joined: %d of %d hosts answered", answered, len(spec.Join)))
	return nil
}

// LeaveMesh says goodbye, and forgets whom to join.
func (d *Daemon) LeaveMesh() error {
	d.change.Lock()
	defer d.change.Unlock()
	if d.mesh == nil && !d.meshWanted() {
		return fail(http.StatusNotFound, "this host is in no mesh")
	}
	c := d.export()
	c.Mesh = config.Mesh{}
	if err := d.state.save(c); err != nil {
		return err
	}
	d.mu.Lock()
	d.meshSpec, d.meshLeft, d.meshDown = config.Mesh{}, true, nil
	d.mu.Unlock()
	d.stopMesh(leaveTimeout)
	d.settleTunnels()
	d.rememberMembers()
	d.note(eventMeshLeft, "mesh", "left")
	return nil
}

// joinAddresses writes them as the mesh reads them.
func joinAddresses(join []string) []string {
	all := make([]string, 0, len(join))
	for _, s := range join {
		if at, err := config.ParseEndpoint(s, config.MeshPort); err == nil {
			all = append(all, at.String())
		}
	}
	return all
}

// unitedJoin is the addresses of both lists, each once.
func unitedJoin(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		at, _ := config.ParseEndpoint(s, config.MeshPort)
		if !slices.ContainsFunc(all, func(o string) bool {
			is, _ := config.ParseEndpoint(o, config.MeshPort)
			return is == at
		}) {
			all = append(all, s)
		}
	}
	return all
}

func (a *applying) mesh(spec config.Mesh) error {
	const object = "mesh"
	d, was := a.d, a.d.meshSpec
	switch {
	case spec.IsZero():
		d.settleMesh()
		return nil
	case slices.Equal(joinAddresses(was.Join), joinAddresses(spec.Join)):
		a.done.Unchanged = append(a.done.Unchanged, object)
		d.settleMesh()
		return nil
	}
	left, running := d.meshLeft, d.mesh != nil
	d.setMeshSpec(spec)
	d.settleMesh()
	if a.on == failWhole && d.mesh == nil {
		err := tunnelFailure(d.meshDown)
		d.mu.Lock()
		d.meshSpec, d.meshLeft = was, left
		d.mu.Unlock()
		return about(object, err)
	}
	a.undo = append(a.undo, func() error {
		d.mu.Lock()
		d.meshSpec, d.meshLeft = was, left
		d.mu.Unlock()
		d.settleMesh()
		d.settleTunnels()
		return nil
	})
	if running && d.mesh != nil { // A new one asks them by itself.
		live, join := d.mesh.live, joinAddresses(spec.Join)
		d.background.Go(func() {
			ctx, cancel := context.WithTimeout(d.life, joinTimeout)
			defer cancel()
			if _, err := live.Join(ctx, join); err != nil {
				d.log.Warn("nobody of the mesh has answered yet", zap.Error(err))
			}
		})
	}
	a.changed(eventMeshJoined, object)
	return nil
}
