package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/nat"
)

// defaultLinkMTU stands for the MTU of an interface that isn't there.
const defaultLinkMTU = 1500

// followUplinks looks at the uplinks when their interfaces change, and at each tick
// also at what can be had now and couldn't before, until ctx is done.
func (d *Daemon) followUplinks(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		stirred := false
		select {
		case <-ctx.Done():
			return
		case <-d.stirred:
			stirred = true
		case <-t.C:
		}
		d.lookAtUplinks(ctx, stirred)
	}
}

// lookAtUplinks looks at all of them. stirred tells that an interface may have
// changed.
func (d *Daemon) lookAtUplinks(ctx context.Context, stirred bool) {
	d.change.Lock()
	defer d.change.Unlock()
	for _, u := range d.uplinks {
		if ctx.Err() != nil {
			return
		}
		d.lookAtUplink(u)
	}
	d.settleListeners()
	d.settleStack(stirred)
}

// lookAtUplink makes an uplink what its interface is now. The caller holds
// change.
func (d *Daemon) lookAtUplink(u *uplink) {
	s := *u.seen.Load()
	was := u.state
	if u.dev != nil && (!s.Present || s.Index != was.Index) {
		d.uplinkDown(u, fmt.Errorf("interface %s is gone", u.spec.Interface))
		if err := d.releaseUplink(u); err != nil {
			d.log.Warn("release of an uplink's interface failed", zap.String("uplink", u.spec.Name), zap.Error(err))
		}
	}
	d.mu.Lock()
	u.state = s
	d.mu.Unlock()
	if u.live != nil && !reflect.DeepEqual(s, was) {
		_ = d.configureUplink(u) // It is shown.
	}
	if u.dev == nil {
		if !s.Present || time.Now().Before(u.retry) {
			return
		}
		if err := d.openUplink(u); err != nil {
			d.mu.Lock()
			u.retry = time.Now().Add(u.nextWait())
			d.mu.Unlock()
			d.uplinkDown(u, err)
			return
		}
		d.settleRules()
	}
	wasUp := u.attached
	err := d.workUplink(u)
	switch {
	case err != nil:
		d.detachUplink(u)
		d.uplinkDown(u, err)
		if errors.Is(err, errGone) {
			_ = d.releaseUplink(u) // It is gone: nothing is left to give back.
		}
	case !wasUp:
		u.live.ForgetNeighbours()
		d.uplinkUp(u)
	}
}

func (d *Daemon) uplinkDown(u *uplink, why error) {
	first := u.down == nil
	d.mu.Lock()
	u.down = why
	if first {
		u.since = time.Now()
	}
	d.mu.Unlock()
	if first {
		d.noteUplink(u, why)
	}
}

// uplinkFault notes why an uplink isn't as its interface is now; nil if it is.
func (d *Daemon) uplinkFault(u *uplink, why error) {
	d.mu.Lock()
	first := u.fault == nil && why != nil
	u.fault = why
	d.mu.Unlock()
	if first {
		d.noteUplink(u, why)
	}
}

func (d *Daemon) noteUplink(u *uplink, why error) {
	d.events.add(eventUplinkDown, "uplink "+u.spec.Name, why.Error())
	d.log.Warn("uplink down", zap.String("uplink", u.spec.Name), zap.String("interface", u.spec.Interface), zap.Error(why))
}

func (d *Daemon) uplinkUp(u *uplink) {
	d.mu.Lock()
	was := time.Since(u.since).Round(time.Millisecond)
	u.since, u.wait = time.Now(), 0
	d.mu.Unlock()
	d.events.add(eventUplinkUp, "uplink "+u.spec.Name, fmt.Sprintf("up again after %s", was))
	d.log.Info("uplink up", zap.String("uplink", u.spec.Name), zap.Duration("down_for", was))
}

// uplinkConfig is what NAT is told of an uplink whose interface is as s says.
func (d *Daemon) uplinkConfig(u *uplink, s *attach.UplinkState, port dataplane.Port) nat.UplinkConfig {
	spec := u.want()
	c := nat.UplinkConfig{Name: spec.Name, Mode: nat.Own, MTU: defaultLinkMTU, Port: port}
	if s.MTU > 0 {
		c.MTU = min(max(s.MTU, nat.MinMTU), nat.MaxMTU)
	}
	if r, err := config.ParsePortRange(spec.Ports); err == nil {
		c.Ports = nat.PortRange(r)
	}
	c.MAC = wire.MACAt(attach.StableMAC(d.opts.Node, "uplink "+spec.Name))
	if mac, err := config.ParseMAC(spec.MAC); err == nil {
		c.MAC = wire.MACAt(mac[:])
	}
	var asked []netip.Prefix
	for _, a := range spec.Addresses {
		if ip, err := config.ParseIP(a); err == nil {
			asked = append(asked, ip)
		}
	}
	hops := spec.NextHops
	if u.shared() {
		c.Mode = nat.Shared
		if len(s.MAC) == 6 {
			c.MAC = wire.MACAt(s.MAC)
		}
		c.Addresses = sharedAddresses(s, asked)
		if len(hops) == 0 {
			for _, h := range s.NextHops {
				hops = append(hops, h.Addr)
			}
		}
	} else {
		c.Addresses = asked
	}
	for _, h := range hops {
		family := slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == h.Is4() })
		own := slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return a.Addr() == h })
		switch {
		case own || !family:
		case h.Is4():
			c.NextHop4 = h
		default:
			c.NextHop6 = h
		}
	}
	return c
}

// sharedAddresses returns those of an interface that a shared uplink uses.
func sharedAddresses(s *attach.UplinkState, asked []netip.Prefix) (use []netip.Prefix) {
	for _, a := range s.Addresses {
		ip := a.Addr()
		named := slices.ContainsFunc(asked, func(p netip.Prefix) bool { return p.Addr() == ip })
		twice := slices.ContainsFunc(use, func(p netip.Prefix) bool { return p.Addr() == ip })
		if twice || ip.IsLinkLocalUnicast() || ip.IsLoopback() || len(asked) > 0 && !named || len(use) == attach.MaxClaimed {
			continue
		}
		use = append(use, a)
	}
	return use
}

// configureUplink tells NAT, and the program on a shared interface, what the
// interface is like now. It fails, which is a fault of the uplink, if NAT
// refuses. The caller holds change.
func (d *Daemon) configureUplink(u *uplink) error {
	was := u.live.Config()
	c := d.uplinkConfig(u, &u.state, was.Port)
	if u.shared() && !u.state.Present {
		c.MAC = was.MAC // What there are connections with may come back.
		c.Addresses, c.NextHop4, c.NextHop6 = was.Addresses, was.NextHop4, was.NextHop6
	}
	if !reflect.DeepEqual(c, was) {
		d.removeCore(func(k coreRule) bool {
			return k.uplink == u.live && k.listen.IsValid() &&
				!slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return a.Addr() == k.listen })
		})
		err := u.live.Configure(c)
		d.uplinkFault(u, err)
		if err != nil {
			return err
		}
	}
	d.settleRules()
	return nil
}

// claim is what of a shared interface's traffic is the uplink's.
func (d *Daemon) claim(u *uplink) attach.Claim {
	c := u.live.Config()
	return d.claimOf(u, &c)
}

// claimOf is claim for an uplink that is to be as c says.
func (d *Daemon) claimOf(u *uplink, c *nat.UplinkConfig) attach.Claim {
	claim := attach.Claim{Ports: attach.PortRange(c.Ports)}
	for _, a := range c.Addresses {
		claim.Addresses = append(claim.Addresses, a.Addr())
	}
	for _, r := range d.nats {
		if r.spec.Uplink != u.spec.Name || r.spec.Type != config.TypePublish {
			continue
		}
		p := attach.Published{Proto: protoNumbers[r.listen.Proto], Ports: attach.PortRange(r.listen.Ports)}
		for _, a := range c.Addresses {
			if r.listensOn(a.Addr()) {
				p.Addr = a.Addr()
				claim.Published = append(claim.Published, p)
			}
		}
	}
	return claim
}

// settleClaims makes what the programs on shared interfaces keep from the host
// what it is to be. The caller holds change.
func (d *Daemon) settleClaims() {
	for _, u := range d.uplinks {
		if u.dev == nil || !u.shared() || u.live == nil {
			continue
		}
		if err := u.dev.claim(d.claim(u)); err != nil {
			d.uplinkFault(u, err)
		}
	}
}
