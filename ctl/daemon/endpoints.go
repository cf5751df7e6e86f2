package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

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
	// maxFights is how often a station may come back here from another host
	// within fightTime until it is left to the other, as EVPN does with a
	// duplicate MAC (RFC 7432 section 15.1).
	maxFights = 5
	fightTime = 180 * time.Second
)

// stationKey is a station of the mesh.
type stationKey struct {
	vni uint32
	mac wire.MAC
}

// station here is what this host knows of one of its own.
type localStation struct {
	ips  []netip.Addr
	seen bool // Something came from it: the FDB has it at a port here.
}

// localEndpoints is what this host announces. The daemon's change guards it.
type localEndpoints struct {
	told      map[stationKey][]netip.Addr
	away      map[stationKey]fight // Of those that other members announce now.
	conflicts map[conflictKey]bool // That were told of.
	refused   bool                 // It was told that not all could be announced.
}

// fight is how often a station came back since a time.
type fight struct {
	back  int
	since time.Time
	away  bool
}

type conflictKey struct {
	network string
	ip      netip.Addr
	owner   string
}

func newLocalEndpoints() localEndpoints {
	return localEndpoints{
		told: make(map[stationKey][]netip.Addr), away: make(map[stationKey]fight), conflicts: make(map[conflictKey]bool),
	}
}

// lost notes that a station is another member's now.
func (l *localEndpoints) lost(k stationKey) {
	delete(l.told, k)
	f := l.away[k]
	if time.Since(f.since) > fightTime {
		f = fight{since: time.Now()}
	}
	f.away = true
	l.away[k] = f
}

// comesBack tells whether a station that is here is to be announced: not if it
// went to another member and nothing came from it here since, and not if it has
// come back too often.
func (l *localEndpoints) comesBack(k stationKey, s localStation) (yes, tell bool) {
	f, was := l.away[k]
	switch {
	case !was:
		return true, false
	case f.away && !s.seen:
		return false, false
	case f.back >= maxFights && time.Since(f.since) <= fightTime:
		return false, f.back == maxFights
	}
	return true, false
}

// leave notes which of those that were lost aren't here at all: when they come
// again they are new.
func (l *localEndpoints) leave(here map[stationKey]localStation) {
	for k, f := range l.away {
		if _, is := here[k]; is {
			continue
		}
		if f.away = false; time.Since(f.since) > fightTime {
			delete(l.away, k)
		} else {
			l.away[k] = f
		}
	}
}

// came notes that a station was announced from here.
func (l *localEndpoints) came(k stationKey, ips []netip.Addr) {
	l.told[k] = ips
	if f, was := l.away[k]; was {
		f.away = false
		f.back++
		l.away[k] = f
	}
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
			delete(l.told, k)
		}
	}
	l.leave(here)
	news := false
	var refused error
	for k, s := range here {
		ips, told := l.told[k]
		if told && slices.Equal(ips, s.ips) {
			continue
		}
		if yes, tell := l.comesBack(k, s); !yes {
			if tell {
				d.tellFight(k)
			}
			continue
		}
		if err := live.Announce(mesh.Endpoint{VNI: k.vni, MAC: k.mac, IPs: s.ips}); err != nil {
			refused = err
			continue
		}
		l.came(k, s.ips)
		news = news || len(s.ips) > 0
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

// tellFight tells once of a station that is here and elsewhere.
func (d *Daemon) tellFight(k stationKey) {
	l := &d.mesh.local
	f := l.away[k]
	f.back++ // It is told once.
	l.away[k] = f
	name := ""
	if n := d.networkWith(k.vni); n != nil {
		name = n.spec.Name
	}
	message := fmt.Sprintf("%s is here and on another host: it came back here %d times; for %s it is left to the other; look for a duplicate address",
		k.mac, maxFights, fightTime)
	d.events.add(eventAddressConflict, "network "+name, message)
	d.log.Warn("duplicate MAC", zap.String("network", name), zap.Stringer("mac", k.mac))
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
