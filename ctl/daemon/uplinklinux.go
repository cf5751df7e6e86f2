package daemon

import (
	"errors"
	"fmt"
	"io"

	"heddle/ctl/attach"
	"heddle/ctl/proxy"
	"heddle/dataplane"
	"heddle/dataplane/packet"
)

// uplinkLink is an uplink's device of this machine.
type uplinkLink struct {
	m        *machine
	name     string
	p        *packet.Port
	share    *attach.Shared // Of a shared uplink, else nil.
	offloads io.Closer      // Keeps offloads off that spoil what is forwarded.
}

func (m *machine) watchUplink(ifName string) (uplinkWatch, error) {
	w, err := m.own.WatchUplink(ifName)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// openUplink implements host. An own uplink's frames are for a MAC that the
// interface doesn't know: it has to be promiscuous, which the socket ends with.
// A shared one's are dropped before the host's stack sees them, from before the
// first one comes to swd.
func (m *machine) openUplink(o uplinkOrder) (_ uplinkDevice, err error) {
	if _, err := m.own.Free(o.ifName); err != nil {
		return nil, err
	}
	l := &uplinkLink{m: m, name: o.ifName}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.release())
		}
	}()
	err = m.step("uplink-offloads", func() (err error) {
		l.offloads, err = m.own.LimitOffloads(o.ifName)
		return err
	})
	if err == nil && o.shared {
		err = m.step("uplink-share", func() (err error) {
			l.share, err = m.own.Share(o.ifName, o.claim)
			return err
		})
	}
	if err == nil {
		err = m.step("uplink-socket", func() error {
			return m.own.Do(func() (err error) {
				l.p, err = packet.Open(packet.Config{Interface: o.ifName, Workers: o.workers, Promiscuous: !o.shared})
				return err
			})
		})
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *uplinkLink) port() dataplane.Port { return l.p }

func (l *uplinkLink) check() error { return verdict(l.p.Fault()) }

func (l *uplinkLink) claim(c attach.Claim) error {
	if l.share == nil {
		return fmt.Errorf("interface %s isn't shared", l.name)
	}
	return l.share.Set(c)
}

func (l *uplinkLink) spares(c attach.Claim) error { return l.m.own.Spares(c) }

// release gives back what was taken, the host's share last: nothing is to come
// to its stack that was never its own.
func (l *uplinkLink) release() error {
	var errs []error
	if l.p != nil {
		errs = append(errs, l.p.Close())
	}
	if l.offloads != nil {
		errs = append(errs, l.offloads.Close())
	}
	if l.share != nil {
		errs = append(errs, l.share.Close())
	}
	return errors.Join(errs...)
}

func (m *machine) publish(p proxy.Publication) (localPort, error) {
	l, err := m.proxy.Publish(p)
	if err != nil {
		return nil, err
	}
	return l, nil
}
