package nat

import "fmt"

// SetLimits changes the lifetimes and what one inside address may hold, as
// Config has them. Connections that are there live by the new lifetimes from
// now on; the room of one that was to live longer may come free only when its
// old time is over.
func (n *NAT) SetLimits(l Lifetimes, hostConns, hostPorts int) error {
	if hostConns < 0 || hostPorts < 0 {
		return fmt.Errorf("set limits: %d connections and %d ports for one address: %w: want no negative limit", hostConns, hostPorts, ErrInvalid)
	}
	lives, err := l.fill()
	if err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	n.control.Lock()
	defer n.control.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config.Lifetimes, n.config.HostConns, n.config.HostPorts = l, hostConns, hostPorts
	n.table.lives = lives
	return nil
}
