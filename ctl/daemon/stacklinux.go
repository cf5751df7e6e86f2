package daemon

import (
	"errors"
	"fmt"

	"heddle/ctl/attach"
	"heddle/dataplane"
	"heddle/dataplane/tap"
	"heddle/dataplane/wire"
)

// stackLink is a stackDevice of this machine: a TAP of swd's namespace that ends
// with swd, and its routes with it.
type stackLink struct {
	m   *machine
	p   *tap.Port
	hwa wire.MAC
}

// stackNames is how many names are tried: that many swds in one namespace reach
// it.
const stackNames = 16

// openStack implements host. The first of heddle0, heddle1 and so on that is
// free is its name.
func (m *machine) openStack(workers int) (_ stackDevice, err error) {
	l := &stackLink{m: m}
	for i := range stackNames {
		name := fmt.Sprintf("heddle%d", i)
		if _, err = m.own.Link(name); err == nil {
			err = fmt.Errorf("interface %s: %w", name, attach.ErrLinkExists)
			continue
		}
		err = m.own.Do(func() (err error) {
			l.p, err = tap.Open(tap.Config{Name: name, Queues: workers, Transient: true, Rings: m.rings})
			return err
		})
		if !errors.Is(err, tap.ErrHeld) && !errors.Is(err, tap.ErrTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	err = m.own.Claim(l.name(), l.name())
	if err == nil {
		var link attach.Link
		link, err = m.own.Link(l.name())
		l.hwa = wire.MACAt(link.MAC)
	}
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

func (l *stackLink) name() string         { return l.p.Name() }
func (l *stackLink) mac() wire.MAC        { return l.hwa }
func (l *stackLink) port() dataplane.Port { return l.p }

func (l *stackLink) check() error { return verdict(l.p.Fault()) }

func (l *stackLink) configure(s attach.Stack) error {
	return l.m.step("stack", func() error { return l.m.own.ConfigureStack(l.name(), s) })
}

func (l *stackLink) release() error { return l.p.Close() }
