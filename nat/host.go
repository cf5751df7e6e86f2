// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package nat

// maxHosts bounds the inside addresses that have connections at one time. A
// new one is refused when there are as many.
const maxHosts = 1<<16 - 1

// host is what an inside address that has connections holds, and which
// external addresses are its own (paired pooling, RFC 4787 REQ-2).
type host struct {
	net          uint16
	ext4, ext6   uint16 // Into table.exts; 0 while none is chosen.
	conns, ports uint32
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
