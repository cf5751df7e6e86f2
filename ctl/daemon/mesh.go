package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/tunnel/mesh"
)

// Times of the mesh.
const (
	joinTimeout  = 10 * time.Second // A join by hand.
	leaveTimeout = 2 * time.Second  // A goodbye.
	meshRetry    = 10 * time.Second // After a mesh that couldn't be made, or was left for another's sake.
)

// membership is swd as a member of a mesh. The daemon's mu guards its fields as
// it does a port's.
type membership struct {
	live         *mesh.Mesh
	listen, vtep netip.AddrPort
	changes      chan func() // What the mesh tells, for followMesh to do with change held.
	done         chan struct{}

	local localEndpoints
}

// member is another host of the mesh that is up.
type member struct {
	mesh.Member
	vnis map[uint32]bool
}

func newMember(m mesh.Member) *member {
	o := &member{Member: m, vnis: make(map[uint32]bool, len(m.Networks))}
	for _, n := range m.Networks {
		o.vnis[n.VNI] = true
	}
	return o
}

// has tells whether the member has a network of that VNI.
func (m *member) has(vni uint32) bool { return m.vnis[vni] }

// setMeshSpec makes whom to join what spec says; leaving is forgotten.
func (d *Daemon) setMeshSpec(spec config.Mesh) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meshSpec, d.meshLeft = spec, false
	d.meshNext = time.Time{}
}

// meshWanted tells whether this host is to be a member. The caller holds change
// or mu.
func (d *Daemon) meshWanted() bool {
	return d.joining > 0 || !d.meshLeft && (d.opts.MeshListen.IsValid() || !d.meshSpec.IsZero())
}

// settleMesh starts the mesh that this host is to be a member of, if it can, and
// leaves one that it isn't. The caller holds change.
func (d *Daemon) settleMesh() {
	switch want := d.meshWanted(); {
	case d.mesh != nil && (!want || d.homeless()):
		d.stopMesh(leaveTimeout)
		if want {
			d.settleMesh()
		}
	case d.mesh == nil && want && !time.Now().Before(d.meshNext):
		err := d.startMesh(d.meshSpec)
		if now := reason(err); err != nil && now != reason(d.meshDown) {
			d.log.Warn("the mesh can't be joined", zap.Error(err))
		}
		d.failMesh(err)
	}
}

// homeless tells whether the address that members send frames to is no longer
// one of this host's: its interface has another now.
func (d *Daemon) homeless() bool {
	all, err := d.host.addresses()
	if err != nil || slices.Contains(all, d.mesh.vtep.Addr()) {
		return false
	}
	_, vtep, err := d.meshEnds(d.meshSpec)
	return err == nil && vtep != d.mesh.vtep && slices.Contains(all, vtep.Addr())
}

// failMesh notes why there is no mesh; nil if there is.
func (d *Daemon) failMesh(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meshDown = err
	if err != nil {
		d.meshNext = time.Now().Add(meshRetry)
	}
}

// meshEnds decides where gossip is received, and the address that frames are to
// be sent to.
func (d *Daemon) meshEnds(spec config.Mesh) (listen, vtep netip.AddrPort, err error) {
	vtep, listen = d.opts.VTEP, d.opts.MeshListen
	port := cmp.Or(vtep.Port(), config.VXLANPort)
	if !vtep.IsValid() || vtep.Addr().IsUnspecified() {
		switch ip := listen.Addr(); {
		case listen.IsValid() && !ip.IsUnspecified():
			vtep = netip.AddrPortFrom(ip, port)
		case len(spec.Join) > 0:
			err = errors.New("it has no address")
			for _, s := range spec.Join {
				at, bad := config.ParseEndpoint(s, config.MeshPort)
				if bad != nil {
					continue
				}
				if ip, err = d.host.source(at.Addr()); err == nil {
					vtep = netip.AddrPortFrom(ip, port)
					break
				}
			}
		default:
			err = errors.New("which of this host's addresses others are to send to isn't said: give one by swd --vtep or --mesh-listen")
		}
	}
	if err != nil {
		return listen, vtep, err
	}
	if !listen.IsValid() {
		listen = netip.AddrPortFrom(vtep.Addr(), config.MeshPort)
	}
	return listen, vtep, nil
}

// startMesh becomes a member of a mesh of this host, which finds the others by
// those whom it is to join. The caller holds change.
func (d *Daemon) startMesh(spec config.Mesh) error {
	listen, vtep, err := d.meshEnds(spec)
	if err != nil {
		return err
	}
	m := &membership{
		listen: listen, vtep: vtep, changes: make(chan func(), 64), done: make(chan struct{}), local: newLocalEndpoints(),
	}
	d.mu.Lock()
	d.mesh = m
	d.mu.Unlock()
	d.settleTunnels() // Opens the VTEP.
	if err = d.vtepDown; err == nil {
		err = d.openMesh(m, spec)
	}
	if err != nil {
		d.mu.Lock()
		d.mesh = nil
		d.mu.Unlock()
		d.settleTunnels()
		return err
	}
	d.failMesh(nil)
	d.log.Info("member of a mesh", zap.Stringer("listen", listen), zap.Stringer("vtep", vtep), zap.Bool("encrypted", len(d.keys.keys) > 0))
	if len(d.keys.keys) == 0 {
		d.log.Warn("gossip isn't encrypted: whoever can send to the mesh's port can join", zap.String("hint", "swd --mesh-key FILE"))
	}
	return nil
}

// openMesh opens the gossip of a membership.
func (d *Daemon) openMesh(m *membership, spec config.Mesh) error {
	if l := d.vtep.live.Local().Addr(); l.Unmap().Is4() != m.vtep.Addr().Is4() {
		return fail(http.StatusConflict, "the address for frames is %s (%s), and the tunnels' end on this host is %s (%s)",
			familyName(m.vtep.Addr()), m.vtep.Addr(), familyName(l), l)
	}
	c := mesh.Config{
		Name: d.opts.Node, Bind: m.listen, VTEP: m.vtep, Keys: d.keys.keys,
		Known:   unitedJoin(joinAddresses(spec.Join), d.knownMembers()),
		Log:     d.logMesh,
		Handler: meshHandler{d: d, m: m},
	}
	c.Advertise = m.listen
	if m.listen.Addr().IsUnspecified() {
		c.Advertise = netip.AddrPortFrom(m.vtep.Addr(), m.listen.Port())
	}
	d.host.gossip(&c)
	live, err := mesh.New(c)
	if err != nil {
		return fmt.Errorf("gossip at %s: %w", m.listen, err)
	}
	d.mu.Lock()
	m.live = live
	d.mu.Unlock()
	d.tellNetworks()
	d.announceLocal()
	return nil
}

// stopMesh ends the membership, with a goodbye if it may take some time. Tunnels
// to members end with the next settleTunnels. The caller holds change.
func (d *Daemon) stopMesh(goodbye time.Duration) {
	m := d.mesh
	if m == nil {
		return
	}
	close(m.done) // The mesh's handler waits no more.
	var err error
	switch {
	case m.live == nil:
	case goodbye > 0:
		err = m.live.Leave(goodbye)
	default:
		err = m.live.Close()
	}
	if err != nil && !errors.Is(err, mesh.ErrClosed) {
		d.log.Warn("the end of the membership", zap.Error(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mesh = nil
	clear(d.members)
}

// tellNetworks tells the mesh which networks this host has.
func (d *Daemon) tellNetworks() {
	if d.mesh == nil || d.mesh.live == nil {
		return
	}
	networks := make([]mesh.Network, 0, len(d.networks))
	for name, n := range d.networks {
		networks = append(networks, mesh.Network{Name: name, VNI: n.spec.VNI})
	}
	slices.SortFunc(networks, func(a, b mesh.Network) int { return cmp.Compare(a.VNI, b.VNI) })
	if err := d.mesh.live.SetNetworks(networks); err != nil {
		d.log.Error("the mesh can't be told of the networks", zap.Error(err))
	}
}

// useKeys has a running mesh use other keys, the first to encrypt with. The
// caller holds change.
func (d *Daemon) useKeys(was, keys [][]byte) error {
	if d.mesh == nil {
		return nil
	}
	live := d.mesh.live
	if len(was) == 0 {
		return fail(http.StatusConflict, "the mesh was joined without a key, and its members without one couldn't follow").
			withHint("leave it first: swctl mesh leave")
	}
	for _, k := range keys {
		if indexKey(was, k) < 0 {
			if _, err := live.AddKey(k); err != nil {
				return err
			}
		}
	}
	if err := live.UseKey(mesh.KeyID(keys[0])); err != nil {
		return err
	}
	for _, k := range was {
		if indexKey(keys, k) < 0 {
			if err := live.RemoveKey(mesh.KeyID(k)); err != nil {
				return err
			}
		}
	}
	return nil
}

// logMesh is the mesh's log.
func (d *Daemon) logMesh(level slog.Level, message string) {
	log := d.log.Named("mesh")
	switch {
	case level >= slog.LevelError:
		log.Error(message)
	case level >= slog.LevelWarn:
		log.Warn(message)
	case level >= slog.LevelInfo:
		log.Info(message)
	default:
		log.Debug(message)
	}
}
