package baseline

import (
	"context"
	"fmt"
	"path/filepath"

	"heddle/bench/lab"
)

// NewOVSHost makes a host, which has Underlay without addresses, one end of
// Open vSwitch's VXLAN in userspace, and gives a container an interface there. It
// goes to the peer remote by the network VNI, from the address local. The peer has
// to send with complete checksums. The error is ErrNotInstalled where Open
// vSwitch is missing.
func NewOVSHost(ctx context.Context, l *lab.Lab, host, container *lab.NetNS, local, remote string) error {
	if err := ovsInstalled(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ovsBound, fmt.Errorf("not done in %v", ovsBound))
	defer cancel()
	if _, err := newOVSHost(ctx, host, container, filepath.Join(l.Dir(), host.Name), local, remote); err != nil {
		return fmt.Errorf("setting up Open vSwitch in %s: %w", host.Name, err)
	}
	return nil
}
