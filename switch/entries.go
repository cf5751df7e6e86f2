package vswitch

import (
	"fmt"
	"iter"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// Entry is where a MAC is.
type Entry struct {
	Network *Network
	MAC     wire.MAC
	Port    dataplane.PortID
	Static  bool // AddStatic made it.
	// Announced tells that Announce made it and no data has moved it since.
	Announced bool
	// Age is the time since the MAC was last seen, in whole seconds; 0 for a
	// static or an announced entry.
	Age time.Duration
}

// Entries returns the entries of all networks that have not aged at the time
// now (Batch.Now's clock), in no order. Those that are there all the while come
// exactly once; those that come or go meanwhile, once or not at all, and a
// station that moves, once. Workers go on: the FDB is read in bounded pieces,
// and the loop's body runs between them. A pass reads the whole table, 20 MB at
// the default size.
func (s *Switch) Entries(now int64) iter.Seq[Entry] {
	t := &s.fdb
	return func(yield func(Entry) bool) {
		buf := make([]Entry, 0, scanCells+probeLimit)
		for from := 0; from < len(t.cells); {
			buf = buf[:0]
			from = t.scan(from, now, &buf)
			for _, e := range buf {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// scan appends the live entries in at least scanCells cells to buf and returns
// where to go on: behind a free cell. An entry behind that has its home there
// too, so no removal shifts it to where the scan has been.
func (t *fdb) scan(from int, now int64, buf *[]Entry) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	sec := second(now)
	for i := from; i < len(t.cells); i++ {
		key := t.cells[i].key.Load()
		if key == 0 {
			if i >= from+scanCells {
				return i + 1
			}
			continue
		}
		v := value(t.cells[i].val.Load())
		n := t.ports[v.port()].net
		if v.live(sec, n.view.Load().ageing) {
			*buf = append(*buf, newEntry(n, wire.MAC(key>>16), v, sec))
		}
	}
	return len(t.cells)
}

// newEntry is what a value says at the second sec.
func newEntry(n *Network, mac wire.MAC, v value, sec uint32) Entry {
	e := Entry{Network: n, MAC: mac, Port: v.port(), Static: v.static(), Announced: v.announced()}
	if seen := v.seen(); seen < sec {
		e.Age = time.Duration(sec-seen) * time.Second
	}
	return e
}

// Lookup returns the entry of a MAC, if it has one that has not aged at the
// time now.
func (n *Network) Lookup(mac wire.MAC, now int64) (Entry, bool) {
	t := &n.sw.fdb
	key := keyOf(uint64(mac)<<16, n.index)
	v, sec := t.find(key, t.home(key)), second(now)
	if v == 0 || !v.live(sec, n.view.Load().ageing) {
		return Entry{}, false
	}
	return newEntry(n, mac, v, sec), true
}

// AddStatic makes an entry that never ages and never moves: frames to mac go
// to the port, and frames from it are forwarded wherever they come in, as
// other bridges do. It takes the place of a dynamic or announced entry. It
// fails with ErrInUse if there is a static one for another port, and with
// ErrFull if there is no room and nothing to evict.
func (n *Network) AddStatic(mac wire.MAC, id dataplane.PortID) error {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	if err := n.addStatic(mac, id); err != nil {
		return fmt.Errorf("add static entry %v: %w", mac, err)
	}
	return nil
}

func (n *Network) addStatic(mac wire.MAC, id dataplane.PortID) error {
	if err := n.mayPlace(mac, id); err != nil {
		return err
	}
	t := &n.sw.fdb
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(uint64(mac)<<16, n.index)
	home := t.home(key)
	at := t.locate(key, home)
	if at != none {
		v := value(t.cells[at].val.Load())
		if v.static() && v.port() == id {
			return nil
		}
		if v.static() {
			return fmt.Errorf("%w by port %d", ErrInUse, v.port())
		}
	}
	if !t.place(n, key, home, at, newValue(id, forever)|staticBit) {
		return fmt.Errorf("%w: %d entries, all static", ErrFull, n.macs)
	}
	return nil
}

// mayPlace tells why control code can't put a MAC on a port, if it can't. The
// caller holds Switch.mu.
func (n *Network) mayPlace(mac wire.MAC, id dataplane.PortID) error {
	if mac.IsZero() || mac.IsMulticast() || mac > wire.Broadcast {
		return fmt.Errorf("%w: want the address of one station", ErrInvalid)
	}
	if n.slot(id) == nil {
		return fmt.Errorf("port %d: %w", id, ErrUnknown)
	}
	return nil
}

// place makes next the value of a key whose cell is at, or that has none. It
// returns false if there is no room. The caller holds fdb.mu.
func (t *fdb) place(n *Network, key uint64, home, at uint32, next value) bool {
	if at == none {
		return t.insert(n, key, home, next)
	}
	v := value(t.cells[at].val.Load())
	t.pull(at, v)
	t.push(at, next)
	t.cells[at].val.Store(uint64(next))
	t.resize(v.port())
	return true
}

// Remove forgets a MAC, whatever its entry is. It fails with ErrUnknown if it
// isn't there.
func (n *Network) Remove(mac wire.MAC) error {
	t := &n.sw.fdb
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(uint64(mac)<<16, n.index)
	at := t.locate(key, t.home(key))
	if at == none {
		return fmt.Errorf("remove entry %v: %w", mac, ErrUnknown)
	}
	t.remove(at)
	return nil
}

// Flush forgets the dynamic entries of a port, or, for port 0, of all ports of
// the network, and returns how many. Static and announced ones stay. Control
// code calls it when a link goes down. What is learnt meanwhile may stay.
func (n *Network) Flush(id dataplane.PortID) (int, error) {
	n.sw.mu.Lock()
	defer n.sw.mu.Unlock()
	if id != 0 {
		if n.slot(id) == nil {
			return 0, fmt.Errorf("flush port %d: %w", id, ErrUnknown)
		}
		return n.sw.fdb.flush(id), nil
	}
	flushed := 0
	for _, s := range n.view.Load().slots {
		flushed += n.sw.fdb.flush(s.id)
	}
	return flushed, nil
}

// flush removes as many of a port's oldest entries as it holds now.
func (t *fdb) flush(id dataplane.PortID) int {
	t.mu.Lock()
	left := t.ports[id].dynamic.n
	t.mu.Unlock()
	flushed := 0
	t.chunks(func() bool {
		l := &t.ports[id].dynamic
		if left == 0 || l.n == 0 {
			return false
		}
		t.remove(l.head)
		left--
		flushed++
		return true
	})
	return flushed
}

// Expire removes entries that have aged at the time now (Engine.Now), up to
// budget of them, and returns how many. Control code calls it about once a
// second; entries that it hasn't reached are taken as unknown by lookups. The
// ports take turns, so that a small budget starves none.
func (s *Switch) Expire(now int64, budget int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.fdb
	expired, ports := 0, 0
	t.chunks(func() bool {
		if expired >= budget || ports > dataplane.MaxPorts {
			return false
		}
		if t.expire(t.cursor, t.tick(now)) {
			expired++
			return true
		}
		t.cursor = (t.cursor + 1) % dataplane.MaxPorts
		ports++
		return true
	})
	return expired
}

// expire removes the oldest entry of a port if it has aged.
func (t *fdb) expire(id dataplane.PortID, sec uint32) bool {
	p := &t.ports[id]
	if p.net == nil || p.dynamic.n == 0 {
		return false
	}
	at := p.dynamic.head
	if value(t.cells[at].val.Load()).live(sec, p.net.view.Load().ageing) {
		return false
	}
	p.net.aged++
	t.remove(at)
	return true
}
