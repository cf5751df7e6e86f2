package daemon

import (
	"errors"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
	"heddle/tunnel/mesh"
)

// Bounds of what this host announces.
const (
	// maxLearnt is the most stations behind this host's ports that are announced
	// because they were learnt: the others are found by flooding.
	maxLearnt = 16384
	// maxConflicts is how many address conflicts are remembered as told.
	maxConflicts = 4096
)

// stationKey is a station of the mesh.
type stationKey struct {
	vni uint32
	mac wire.MAC
}

// localStation is what this host knows of one of its own.
type localStation struct {
	ips  []netip.Addr
	seen bool // Something came from it: the FDB has it at a port here.
}

// localEndpoints is what this host announces. The daemon's change guards it.
type localEndpoints struct {
	told      map[stationKey][]netip.Addr // Announced, and not withdrawn since.
	away      map[stationKey]bool         // Those of told that have moved to another member.
	doubled   map[stationKey]bool         // Those that were told to be here and elsewhere.
	conflicts map[conflictKey]bool        // That were told of.
	refused   bool                        // It was told that not all could be announced.
}

type conflictKey struct {
	network string
	ip      netip.Addr
	owner   string
}

func newLocalEndpoints() localEndpoints {
	return localEndpoints{
		told: make(map[stationKey][]netip.Addr), away: make(map[stationKey]bool),
		doubled: make(map[stationKey]bool), conflicts: make(map[conflictKey]bool),
	}
}

// owned notes whose a station is now that this host has announced: its own,
// another member's, or nobody's. In the last case the mesh calls it back by
// itself.
func (l *localEndpoints) owned(k stationKey, byAnother bool) {
	if _, told := l.told[k]; told && byAnother {
		l.away[k] = true
	} else {
		delete(l.away, k)
	}
}

// news tells whether a station here is to be announced: if it hasn't been, if
// its addresses have changed, and if it is back from another member, which shows
// when something comes from it.
func (l *localEndpoints) news(k stationKey, s localStation) bool {
	if l.away[k] {
		return s.seen
	}
	ips, told := l.told[k]
	return !told || !slices.Equal(ips, s.ips)
}

// forget has a station that is no longer here be new when it comes again.
func (l *localEndpoints) forget(k stationKey) {
	delete(l.told, k)
	delete(l.away, k)
	delete(l.doubled, k)
}

// conflict tells whether an address conflict is news.
func (l *localEndpoints) conflict(network string, ip netip.Addr, owner string) bool {
	k := conflictKey{network, ip, owner}
	if l.conflicts[k] || len(l.conflicts) >= maxConflicts {
		return false
	}
	l.conflicts[k] = true
	return true
}

// announceLocal tells the mesh which stations are here and which are no more.
// The caller holds change.
func (d *Daemon) announceLocal() {
	if d.mesh == nil || d.mesh.live == nil {
		return
	}
	l, live := &d.mesh.local, d.mesh.live
	here := d.stationsHere()
	for k := range l.told {
		if _, is := here[k]; !is {
			live.Withdraw(k.vni, k.mac)
			l.forget(k)
		}
	}
	news := false
	var refused error
	for k, s := range here {
		if !l.news(k, s) {
			continue
		}
		err := live.Announce(mesh.Endpoint{VNI: k.vni, MAC: k.mac, IPs: s.ips})
		switch {
		case errors.Is(err, mesh.ErrFlapping):
			d.tellDouble(k, err)
		case err != nil:
			refused = err
		default:
			l.told[k] = s.ips
			l.owned(k, false)
			news = news || len(s.ips) > 0
		}
	}
	if refused != nil && !l.refused {
		d.log.Warn("not every station here can be announced", zap.Error(refused))
	}
	l.refused = refused != nil
	if news {
		d.findConflicts()
	}
}

// stationsHere returns the stations behind this host's ports: those of ports
// that are up, with their addresses, and those that were learnt.
func (d *Daemon) stationsHere() map[stationKey]localStation {
	here := make(map[stationKey]localStation)
	for _, p := range d.ports {
		if !p.attached {
			continue
		}
		n := d.networks[p.spec.Network]
		if p.local != 0 {
			here[stationKey{n.spec.VNI, p.local}] = localStation{}
		}
		mac, err := macOf(p.facts.mac)
		if err != nil || p.spec.Kind == config.KindPacket {
			continue
		}
		here[stationKey{n.spec.VNI, mac}] = localStation{ips: announcedIPs(p, n)}
	}
	byLive := make(map[*vswitch.Network]uint32, len(d.networks))
	for _, n := range d.networks {
		byLive[n.live] = n.spec.VNI
	}
	learnt := 0
	for e := range d.sw.Entries(d.now()) {
		p := d.ids[e.Port]
		vni, known := byLive[e.Network]
		if p == nil || !known || e.Announced {
			continue
		}
		k := stationKey{vni, e.MAC}
		s, own := here[k]
		if !own {
			if learnt++; learnt > maxLearnt {
				continue
			}
		}
		s.seen = true
		here[k] = s
	}
	return here
}

// announcedIPs returns a port's addresses in an order of their own, as many as
// may be announced, without the gateway's: each host has that itself.
func announcedIPs(p *port, n *network) []netip.Addr {
	var ips []netip.Addr
	for _, s := range p.spec.IPs {
		ip, err := config.ParseIP(s)
		if err == nil && !slices.Contains(n.spec.Gateways, ip.Addr()) && len(ips) < mesh.MaxEndpointIPs {
			ips = append(ips, ip.Addr())
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return ips
}

// findConflicts tells of addresses of ports here that other members announce.
func (d *Daemon) findConflicts() {
	for _, e := range d.mesh.live.Endpoints() {
		if e.Owner == d.opts.Node {
			continue
		}
		n := d.networkWith(e.VNI)
		if n == nil {
			continue
		}
		d.tellConflicts(n, e)
	}
}

// tellDouble tells once of a station that is here and elsewhere.
func (d *Daemon) tellDouble(k stationKey, why error) {
	l := &d.mesh.local
	if l.doubled[k] {
		return
	}
	l.doubled[k] = true
	name := ""
	if n := d.networkWith(k.vni); n != nil {
		name = n.spec.Name
	}
	d.events.add(eventAddressConflict, "network "+name, why.Error())
	d.log.Warn("duplicate MAC", zap.String("network", name), zap.Stringer("mac", k.mac), zap.Error(why))
}

// announcedIn marks the addresses that other members announce on a network as
// used.
func (d *Daemon) announcedIn(n config.Network, used map[netip.Addr]bool) {
	if d.mesh == nil || d.mesh.live == nil {
		return
	}
	for _, e := range d.mesh.live.Endpoints() {
		if e.VNI == n.VNI && e.Owner != d.opts.Node {
			for _, ip := range e.IPs {
				used[ip] = true
			}
		}
	}
}
