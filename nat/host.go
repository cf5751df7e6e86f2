// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

import "time"

// maxHosts bounds the inside addresses that have connections at one time. A
// new one is refused when there are as many.
const maxHosts = 1<<16 - 1

// host is what an inside address that has connections holds, and which
// external addresses are its own (paired pooling, RFC 4787 REQ-2).
type host struct {
	net          uint16
	ext4, ext6   uint16 // Into table.exts; 0 while none is chosen.
	conns, ports uint32
	// opened is when what others have begun with it and not finished is made
	// up for, in ns of Batch.Now: see mayOpen.
	opened int64
}

// How many TCP connections and SCTP associations others may begin with a host
// and leave half open. One that is finished is given back, so this is no limit
// to those that are meant. A SYN that is passed on costs a worker 15 µs, with
// its answer and what the stacks of both ends do in the worker's system calls;
// one that is refused less than 1 µs.
const (
	openRate  = 10_000 // A second.
	openBurst = 4096   // As Linux's net.core.somaxconn.

	openCost = int64(time.Second) / openRate
)

// mayOpen tells whether others may begin another connection with a host. It is
// a leaky bucket kept as a time (the virtual scheduling algorithm of ITU-T
// I.371), so that after a flood the next one may at once.
func (t *hosts) mayOpen(id uint16, now int64) bool {
	h := &t.list[id]
	if h.opened-now > (openBurst-1)*openCost {
		return false
	}
	h.opened = max(h.opened, now) + openCost
	return true
}

// moved tells that the state of a connection has changed: perhaps it is open
// now.
func (t *hosts) moved(c *conn) {
	if c.state == openAll && c.flags&(fromOutside|isReset) == fromOutside {
		t.list[c.host].opened -= openCost
	}
}

// hosts is the table of them. Only a new connection looks an address up.
type hosts struct {
	addrTable
	list []host // [0] is nobody's.
}

// get returns the number of a host, new if need be; 0 if there is no room. One
// that gets no connection has to be given back by drop.
func (t *hosts) get(net uint16, a addr) uint16 {
	if id := t.find(net, a); id != 0 {
		return id
	}
	id := t.add(net, a)
	if id != 0 {
		t.list[id] = host{net: net}
	}
	return id
}

// release takes back one connection.
func (t *hosts) release(id uint16) {
	t.list[id].conns--
	t.drop(id)
}

// drop forgets a host that has no connection.
func (t *hosts) drop(id uint16) {
	if t.list[id].conns == 0 {
		t.remove(id)
	}
}
