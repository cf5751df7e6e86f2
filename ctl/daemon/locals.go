package daemon

import (
	"fmt"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane/wire"
)

// follow makes an attached port what its interface has become: was is what it
// was. The caller holds change.
func (d *Daemon) follow(p *port, was facts) {
	d.setLocal(p)
	if p.facts.mtu == was.mtu {
		return
	}
	if err := d.networks[p.spec.Network].live.SetMTU(p.id, p.facts.mtu); err != nil {
		d.takeDown(p, err)
		return
	}
	d.note(eventPortChanged, "port "+p.spec.Name, fmt.Sprintf("MTU %d instead of %d", p.facts.mtu, was.mtu))
}

// setLocal keeps the address of an interface that the host's own stack uses in
// the FDB as the port's, as long as it is attached: the host's frames don't
// come in by the port, so that it could never be learnt, and all that comes from
// the wire for the host would be flooded. It is the same as a bridge's permanent
// entry of each port, is neither saved nor exported, and gives way to a static
// one that was asked for. The caller holds change.
func (d *Daemon) setLocal(p *port) {
	var want wire.MAC
	if p.facts.shared {
		if b, err := config.ParseMAC(p.facts.mac); err == nil {
			want = wire.MACAt(b[:])
		}
	}
	k := station{p.spec.Network, want}
	if want == p.local && !d.localWaits(p) {
		return
	}
	first := want != p.local
	if first {
		d.clearLocal(p)
	}
	if p.local = want; want == 0 {
		return
	}
	var err error
	s, asked := d.statics.all[k]
	other := d.locals[k]
	switch {
	case asked && s.Port != p.spec.Name:
		err = fmt.Errorf("there is a static entry for port %s", s.Port)
	case other != nil:
		err = fmt.Errorf("interface %s of port %s has the same", other.facts.ifName, other.spec.Name)
	default:
		err = d.networks[p.spec.Network].live.AddStatic(want, p.id)
	}
	if err == nil {
		d.locals[k] = p
	} else if first {
		d.log.Warn("the address of an interface can't be made its port's", zap.String("port", p.spec.Name),
			zap.Stringer("mac", want), zap.Error(err))
	}
}

// localWaits tells whether something is in the way of the entry that setLocal is to
// make, which no event tells the end of. The caller holds change.
func (d *Daemon) localWaits(p *port) bool {
	return p.local != 0 && d.locals[station{p.spec.Network, p.local}] != p
}

// clearLocal takes back what setLocal did. The caller holds change.
func (d *Daemon) clearLocal(p *port) {
	k := station{p.spec.Network, p.local}
	p.local = 0
	if d.locals[k] != p {
		return
	}
	delete(d.locals, k)
	if _, asked := d.statics.all[k]; !asked {
		_ = d.networks[k.network].live.Remove(k.mac) // It may have gone with the port.
	}
}
