package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/dataplane/packet"
	"heddle/dataplane/tap"
)

// configure implements device.
func (l *link) configure(ctx context.Context, o order) error {
	if l.borrowed {
		l.mtu = o.mtu
		l.refresh()
		return nil
	}
	name := o.spec.IfName
	if l.f.ifName != "" { // It may have been renamed.
		name = l.f.ifName
	}
	want := attach.Interface{Name: name, MAC: o.mac, MTU: o.mtu, Addresses: o.ips, DefaultRoutes: o.routes}
	ctx, cancel := context.WithTimeout(ctx, usableTimeout)
	defer cancel()
	err := l.m.step("configure", func() error { return l.ns.Configure(ctx, want) })
	if err == nil {
		l.want, l.f = want, facts{ifName: name, mac: o.mac.String(), mtu: o.mtu}
	}
	return err
}

// restore implements device. A link that somebody has set down, which the far
// end may not show yet, is left down: it is restored when it is up again.
func (l *link) restore(ctx context.Context) error {
	if l.borrowed {
		return nil
	}
	back, err := l.isBack(func() (attach.Link, error) { return l.ns.Link(l.f.ifName) })
	if !back {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, usableTimeout)
	defer cancel()
	l.want.Name = l.f.ifName // It may have been renamed.
	return l.ns.Configure(ctx, l.want)
}

// isBack tells once of a link that was down and is up, as look finds it. What
// events tell from before the look on is left for the next call.
func (l *link) isBack(look func() (attach.Link, error)) (bool, error) {
	if !l.wentDown.Swap(false) {
		return false, nil
	}
	now, err := look()
	if err != nil || !now.Up {
		l.wentDown.Store(true)
		return false, err
	}
	return true, nil
}

// openTAP makes the TAP or takes it over. One that somebody else made and left
// for others is used, but not marked as Heddle's, and so never deleted.
func (l *link) openTAP(ctx context.Context, o order) error {
	name := o.spec.IfName
	was, err := l.ns.Link(name)
	switch {
	case errors.Is(err, attach.ErrNoLink):
	case err != nil:
		return err
	case was.Alias != "":
		if port, ours := was.Port(); !ours || port != o.spec.Name {
			return fmt.Errorf("%s: interface %s: its alias is %q: %w", l.ns, name, was.Alias, attach.ErrTaken)
		}
	}
	groMax := 0
	if o.spec.InContainer() {
		groMax = tap.BigTCP
	}
	var p *tap.Port
	err = l.m.step("tap", func() error {
		return l.ns.Do(func() (err error) {
			p, err = tap.Open(tap.Config{Name: name, Queues: o.workers, GROMax: groMax, Rings: l.m.rings})
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", l.ns, err)
	}
	l.p, l.made = p, p.Created()
	if p.Created() || was.Alias != "" {
		l.destroy = p.Delete
	}
	if p.Created() {
		err = l.m.step("claim", func() error { return l.ns.Claim(name, o.spec.Name) })
	}
	if err == nil {
		err = l.configure(ctx, o)
	}
	if err != nil {
		return errors.Join(err, l.undo())
	}
	return nil
}

// openVeth makes or takes over the pair.
func (l *link) openVeth(ctx context.Context, o order) error {
	outer, port, own := attach.HostName(o.spec.Name), o.spec.Name, l.m.own
	err := l.m.step("veth", func() error {
		adopted, err := attach.CreateVeth(attach.Veth{
			Port: port, Container: l.ns, Inner: o.spec.IfName, MAC: o.mac, Host: own, Outer: outer, MTU: o.mtu,
		})
		l.made = !adopted
		return err
	})
	if err != nil {
		return err
	}
	l.outer = outer
	l.destroy = func() error {
		if l.silence != nil { // Nobody deletes what a running swd silences, not even that swd.
			if err := l.silence.Close(); err != nil {
				return err
			}
		}
		return own.Delete(outer, port)
	}
	err = l.hush(own, outer)
	if err == nil {
		err = l.openSocket(own, packet.Config{Interface: outer, Workers: o.workers})
	}
	if err == nil {
		err = l.configure(ctx, o)
	}
	if err != nil {
		return errors.Join(err, l.undo())
	}
	return nil
}

// openPacket takes an interface that exists. The host's own stack is kept off
// it unless it has an address there: then the host goes on using it, beside
// the network.
func (l *link) openPacket(o order) error {
	name := o.spec.Interface
	info, err := l.ns.Free(name)
	if err != nil {
		return err
	}
	l.f = facts{ifName: name, mac: info.MAC.String(), mtu: min(o.mtu, info.MTU)}
	used, err := l.m.addressed(name)
	if err != nil {
		return err
	}
	l.f.shared = used
	if used {
		l.m.log.Warn("the interface has an address: the host's own stack goes on answering on it",
			zap.String("port", o.spec.Name), zap.String("interface", name))
	} else {
		err = l.hush(l.ns, name)
	}
	if err == nil {
		err = l.m.step("offloads", func() (err error) {
			l.offloads, err = l.ns.LimitOffloads(name)
			return err
		})
	}
	if err == nil {
		err = l.openSocket(l.ns, packet.Config{Interface: name, Workers: o.workers, Promiscuous: true})
	}
	if err != nil {
		return errors.Join(err, l.undo())
	}
	return nil
}

// hush keeps the host's own stack off an interface.
func (l *link) hush(ns *attach.Namespace, name string) error {
	return l.m.step("silence", func() (err error) {
		l.silence, err = ns.Silence(name)
		return err
	})
}

// openSocket opens the packet port.
func (l *link) openSocket(ns *attach.Namespace, c packet.Config) error {
	return l.m.step("socket", func() error {
		return ns.Do(func() error {
			p, err := packet.Open(c)
			if err == nil {
				l.p = p
			}
			return err
		})
	})
}

// addressed tells whether an interface of swd's own namespace has an address
// that isn't link-local.
func (m *machine) addressed(name string) (used bool, err error) {
	err = m.own.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				used = true
			}
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("interface %s: addresses: %w", name, err)
	}
	return used, nil
}
