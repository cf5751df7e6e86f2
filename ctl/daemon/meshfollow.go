package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
	"heddle/tunnel/mesh"
)

// scanEvery is how often it is looked whether stations have come or gone here.
const scanEvery = 500 * time.Millisecond

// scanShare is the part of the time, one in scanShare, that looking may take: it
// reads the whole FDB.
const scanShare = 10

// meshHandler hands what the mesh tells to followMesh, in order, and waits while
// there is too much of it: the mesh then tells the outcome.
type meshHandler struct {
	d *Daemon
	m *membership
}

// do has f done with change held, as long as the membership lasts.
func (h meshHandler) do(f func()) {
	select {
	case h.m.changes <- f:
		h.d.stirMesh()
	case <-h.m.done:
	}
}

func (h meshHandler) MemberUp(m mesh.Member)      { h.do(func() { h.d.memberUp(m) }) }
func (h meshHandler) MemberChanged(m mesh.Member) { h.do(func() { h.d.memberChanged(m) }) }
func (h meshHandler) MemberDown(m mesh.Member)    { h.do(func() { h.d.memberDown(m) }) }

func (h meshHandler) EndpointAdded(e mesh.Endpoint) {
	h.do(func() { h.d.endpointMoved(mesh.Endpoint{}, e) })
}

func (h meshHandler) EndpointChanged(old, e mesh.Endpoint) {
	h.do(func() { h.d.endpointMoved(old, e) })
}

func (h meshHandler) EndpointRemoved(e mesh.Endpoint) {
	h.do(func() { h.d.endpointMoved(e, mesh.Endpoint{}) })
}

func (h meshHandler) NameTaken(err error) {
	h.do(func() {
		h.d.log.Error("the mesh is left", zap.Error(err))
		h.d.events.add(eventMeshLeft, "mesh", err.Error())
		h.d.stopMesh(0)
		h.d.failMesh(fmt.Errorf("%w; give each host a name of its own: swd --node NAME", err))
		h.d.settleTunnels()
	})
}

// stirMesh wakes followMesh.
func (d *Daemon) stirMesh() {
	select {
	case d.meshStirred <- struct{}{}:
	default: // One value waits already, and stands for all.
	}
}

// followMesh does what the mesh tells, and tells it what has changed here, until
// ctx is done.
func (d *Daemon) followMesh(ctx context.Context) {
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	var seen uint64
	var rest time.Time // Until then it isn't looked again.
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.meshStirred:
			d.takeMeshChanges()
		case <-t.C:
			now := d.stations()
			if now == seen || time.Now().Before(rest) {
				continue
			}
			seen = now
			begun := time.Now()
			d.change.Lock()
			d.announceLocal()
			d.change.Unlock()
			rest = time.Now().Add(scanShare * time.Since(begun))
		}
	}
}

// takeMeshChanges does what the mesh has told.
func (d *Daemon) takeMeshChanges() {
	d.change.Lock()
	defer d.change.Unlock()
	members := false
	for d.mesh != nil {
		select {
		case f := <-d.mesh.changes:
			d.membersChanged = false
			f()
			members = members || d.membersChanged
			continue
		default:
		}
		break
	}
	if members {
		d.rememberMembers()
	}
}

// stations is a number that differs once a station has come, gone or moved, or
// what is attached has changed.
func (d *Daemon) stations() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.mesh == nil {
		return 0
	}
	sum := d.wirings.Load() + 1
	for _, n := range d.networks {
		s := n.live.Stats()
		sum += s.Learned + s.Moves + s.Aged + s.Evicted + uint64(s.MACs)<<32
	}
	return sum
}

func (d *Daemon) setMember(m mesh.Member) {
	d.mu.Lock()
	d.members[m.Name] = newMember(m)
	d.mu.Unlock()
	d.membersChanged = true
	d.settleTunnels()
}

func (d *Daemon) memberUp(m mesh.Member) {
	d.setMember(m)
	d.events.add(eventMemberUp, "member "+m.Name, "up at "+m.Address.String())
	d.log.Info("member up", zap.String("member", m.Name), zap.Stringer("address", m.Address), zap.Stringer("vtep", m.VTEP))
}

func (d *Daemon) memberChanged(m mesh.Member) {
	if d.members[m.Name] != nil {
		d.setMember(m)
	}
}

func (d *Daemon) memberDown(m mesh.Member) {
	d.mu.Lock()
	delete(d.members, m.Name)
	d.mu.Unlock()
	d.settleTunnels()
	why := "it doesn't answer any more"
	if m.State == mesh.Left {
		why = "it has left"
	}
	d.events.add(eventMemberDown, "member "+m.Name, why)
	d.log.Warn("member down", zap.String("member", m.Name), zap.String("reason", why))
}

// remoteOf returns the remote that a member is, or nil.
func (d *Daemon) remoteOf(name string) *remote {
	m := d.members[name]
	if m == nil {
		return nil
	}
	if r := d.remotes[m.VTEP.Addr()]; r != nil && r.member == name {
		return r
	}
	return nil
}

// networkWith returns the network with a VNI, or nil.
func (d *Daemon) networkWith(vni uint32) *network {
	for _, n := range d.networks {
		if n.spec.VNI == vni {
			return n
		}
	}
	return nil
}

// endpointMoved has the switch and the tunnels follow a station that another
// member announces: old is where it was, e where it is. The zero Endpoint is
// nowhere. The caller holds change.
func (d *Daemon) endpointMoved(old, e mesh.Endpoint) {
	if e.VNI != 0 {
		if n := d.networkWith(e.VNI); n != nil {
			d.place(e, n)
		}
		d.mesh.local.owned(stationKey{e.VNI, e.MAC}, e.Owner != d.opts.Node)
	} else {
		d.mesh.local.owned(stationKey{old.VNI, old.MAC}, false)
	}
	if old.VNI == 0 {
		return
	}
	n := d.networkWith(old.VNI)
	if n == nil {
		return
	}
	t := d.tunnelTo(old.Owner, n)
	if t == nil {
		return
	}
	gone := old.IPs
	if e.Owner != old.Owner {
		n.live.Withdraw(old.MAC, t.id)
	} else {
		gone = without(old.IPs, e.IPs)
	}
	t.live.Withdraw(old.MAC, gone...)
}

// without returns the addresses of a that b lacks.
func without(a, b []netip.Addr) (rest []netip.Addr) {
	has := make(map[netip.Addr]bool, len(b))
	for _, ip := range b {
		has[ip] = true
	}
	for _, ip := range a {
		if !has[ip] {
			rest = append(rest, ip)
		}
	}
	return rest
}

// tunnelTo returns the tunnel of a network to a member, or nil.
func (d *Daemon) tunnelTo(member string, n *network) *remoteTunnel {
	r := d.remoteOf(member)
	if r == nil {
		return nil
	}
	return r.tunnels[n.spec.Name]
}

// place makes a member's endpoint known to the switch and the tunnels, if it is
// another's and there is a tunnel to it.
func (d *Daemon) place(e mesh.Endpoint, n *network) {
	t := d.tunnelTo(e.Owner, n)
	if t == nil {
		return
	}
	err := n.live.Announce(e.MAC, t.id)
	if err == nil || errors.Is(err, vswitch.ErrInUse) { // A static entry that was asked for stays.
		err = t.live.Announce(e.MAC, e.IPs...)
	}
	if err != nil {
		d.misplaced.Add(1)
		d.log.Debug("an announced station can't be made known", zap.String("network", n.spec.Name), zap.Error(err))
	}
	d.tellConflicts(n, e)
}

// announceRemote makes what members announce known on tunnels that are new.
func (d *Daemon) announceRemote(fresh map[*remoteTunnel]*remote) {
	if len(fresh) == 0 || d.mesh == nil || d.mesh.live == nil {
		return
	}
	byVNI := make(map[uint32]*network, len(d.networks))
	for _, n := range d.networks {
		byVNI[n.spec.VNI] = n
	}
	for _, e := range d.mesh.live.Endpoints() {
		n := byVNI[e.VNI]
		if n == nil {
			continue
		}
		if t := d.tunnelTo(e.Owner, n); t != nil && fresh[t] != nil {
			d.place(e, n)
		}
	}
}

// onNetwork is an address on a network, which is a world of its own.
type onNetwork struct {
	network string
	ip      netip.Addr
}

// portIndex is the ports by their addresses, as of some wiring.
type portIndex struct {
	at    uint64 // Daemon.wirings then.
	ports map[onNetwork]*port
}

// portAt returns the port with an address, or nil. The caller holds change.
func (d *Daemon) portAt(k onNetwork) *port {
	if at := d.wirings.Load(); d.portIndex.ports == nil || d.portIndex.at != at {
		d.portIndex = portIndex{at, make(map[onNetwork]*port, len(d.ports))}
		for _, p := range d.ports {
			for _, s := range p.spec.IPs {
				if ip, err := config.ParseIP(s); err == nil {
					d.portIndex.ports[onNetwork{p.spec.Network, ip.Addr()}] = p
				}
			}
		}
	}
	return d.portIndex.ports[k]
}

// tellConflicts tells of a member's endpoint that has an address of a port here.
func (d *Daemon) tellConflicts(n *network, e mesh.Endpoint) {
	for _, ip := range e.IPs {
		if p := d.portAt(onNetwork{n.spec.Name, ip}); p != nil && p.attached {
			d.tellConflict(n, ip, p, e)
		}
	}
}

// tellConflict tells once of an address that a port here and a station of
// another member both have.
func (d *Daemon) tellConflict(n *network, ip netip.Addr, p *port, e mesh.Endpoint) {
	mac := wire.MAC(0)
	if b, err := macOf(p.facts.mac); err == nil {
		mac = b
	}
	if mac == e.MAC || !d.mesh.local.conflict(n.spec.Name, ip, e.Owner) {
		return
	}
	message := fmt.Sprintf("%s is the address of port %s and of %s on host %s", ip, p.spec.Name, e.MAC, e.Owner)
	d.events.add(eventAddressConflict, "network "+n.spec.Name, message)
	d.log.Warn("address conflict", zap.String("network", n.spec.Name), zap.Stringer("address", ip),
		zap.String("port", p.spec.Name), zap.Stringer("mac", e.MAC), zap.String("member", e.Owner))
}
