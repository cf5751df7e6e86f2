package vswitch

import (
	"fmt"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// announcedShare is the part of the room for entries that announced ones may
// take, one in announcedShare, so that what others say never keeps the network
// from learning.
const announcedShare = 2

// Announce makes an entry of what another host says: the station mac is behind
// the port, a tunnel. It never ages, so that frames to the station are never
// flooded, and data from another tunnel doesn't move it. Data from an ordinary
// port does, and makes it a dynamic entry: the station has come here. Such a
// move is counted, but not as flapping.
//
// It takes the place of a dynamic entry and of one that was announced for
// another port. It fails with ErrInUse if there is a static one for another
// port, and with ErrFull if half of the room, of the network or of the Switch,
// holds announced entries, or if there is nothing to evict.
func (n *Network) Announce(mac wire.MAC, id dataplane.PortID) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	if err := n.announce(mac, id); err != nil {
		return fmt.Errorf("announce %v: %w", mac, err)
	}
	return nil
}

func (n *Network) announce(mac wire.MAC, id dataplane.PortID) error {
	if err := n.mayPlace(mac, id); err != nil {
		return err
	}
	t := &n.sw.fdb
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(uint64(mac)<<16, n.index)
	home := t.home(key)
	next := newValue(id, forever)
	at := t.locate(key, home)
	var v value
	if at != none {
		v = value(t.cells[at].val.Load())
	}
	switch {
	case v == next || v.static() && v.port() == id:
		return nil
	case v.static():
		return fmt.Errorf("%w by the static entry of port %d", ErrInUse, v.port())
	case !v.announced() && (n.told >= n.maxMACs/announcedShare || t.told >= t.maxMACs/announcedShare):
		n.refused++
		return fmt.Errorf("%w: %d of at most %d entries are announced", ErrFull, n.told, n.maxMACs/announcedShare)
	}
	if !t.place(n, key, home, at, next) {
		return fmt.Errorf("%w: %d entries", ErrFull, n.macs)
	}
	return nil
}

// Withdraw takes back what Announce said, and tells whether that still stood:
// an entry that is static, that data has moved, or that is announced for
// another port stays as it is.
func (n *Network) Withdraw(mac wire.MAC, id dataplane.PortID) bool {
	t := &n.sw.fdb
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(uint64(mac)<<16, n.index)
	at := t.locate(key, t.home(key))
	if at == none || value(t.cells[at].val.Load()) != newValue(id, forever) {
		return false
	}
	t.remove(at)
	return true
}
