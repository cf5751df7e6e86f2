package attach

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clsactPriority and clsactHandle are where the filter stands; a filter of
// another name that stands there is left alone, and attaching fails.
const (
	clsactPriority = 1
	clsactHandle   = 1
)

func clsact(index int) netlink.Qdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// attachClsact is attachTCX for kernels without tcx. The filter gets the
// program's name.
func attachClsact(index int, program *ebpf.Program, name string) (io.Closer, error) {
	made := true
	if err := netlink.QdiscAdd(clsact(index)); errors.Is(err, unix.EEXIST) {
		made = false
	} else if err != nil {
		return nil, fmt.Errorf("add clsact: %w", err)
	}
	err := replaceFilter(index, program, name)
	if err != nil {
		if made {
			err = errors.Join(err, netlink.QdiscDel(clsact(index)))
		}
		return nil, err
	}
	// The Closer may run after the caller has closed ns.
	here, err := Own()
	if err != nil {
		return nil, errors.Join(err, removeFilter(index))
	}
	return &filterCloser{ns: here, index: index}, nil
}

// filterCloser closes what attachClsact opened.
type filterCloser struct {
	mu    sync.Mutex
	ns    *Namespace // Open while the filter is there.
	index int
}

// Close removes the filter. It can be repeated.
func (c *filterCloser) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ns == nil {
		return nil
	}
	if err := c.ns.Do(func() error { return removeFilter(c.index) }); err != nil {
		return fmt.Errorf("%s: interface number %d: %w", c.ns, c.index, err)
	}
	err := c.ns.Close()
	c.ns = nil
	return err
}

func replaceFilter(index int, program *ebpf.Program, name string) error {
	mine, others, err := filters(index)
	if err != nil {
		return err
	}
	if mine == nil {
		for _, f := range others {
			if f.Attrs().Parent == netlink.HANDLE_MIN_INGRESS && f.Attrs().Priority == clsactPriority {
				return fmt.Errorf("a %s filter of somebody else has the first place at ingress: %w", f.Type(), ErrTaken)
			}
		}
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index,
			Parent:    netlink.HANDLE_MIN_INGRESS,
			Priority:  clsactPriority,
			Handle:    clsactHandle,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           program.FD(),
		Name:         name,
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add the filter: %w", err)
	}
	return nil
}

// filters lists the filters of an interface's clsact, both ways. Without a
// clsact there are none.
func filters(index int) (mine *netlink.BpfFilter, others []netlink.Filter, err error) {
	at := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		all, err := dump(func() ([]netlink.Filter, error) { return netlink.FilterList(at, parent) })
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			continue // No such qdisc.
		case err != nil:
			return nil, nil, fmt.Errorf("list filters: %w", err)
		}
		for _, f := range all {
			if b, ok := f.(*netlink.BpfFilter); ok && isOurs(b.Name) && parent == netlink.HANDLE_MIN_INGRESS {
				mine = b
				continue
			}
			others = append(others, f)
		}
	}
	return mine, others, nil
}

// removeFilter removes the filter, and clsact with it if nobody else uses it.
// An interface that is gone has taken both along.
func removeFilter(index int) error {
	mine, others, err := filters(index)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil || mine == nil {
		return err
	}
	if len(others) == 0 {
		err = netlink.QdiscDel(clsact(index))
	} else {
		err = netlink.FilterDel(mine)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the filter: %w", err)
	}
	return nil
}

// Unsilence removes what a killed swd may have left on an interface that is
// nobody's port now: the clsact filter of a kernel without tcx. It is no error
// if there is nothing, or no such interface.
func (ns *Namespace) Unsilence(name string) error {
	return ns.Do(func() error {
		nl, err := byName(name)
		if errors.Is(err, ErrNoLink) {
			return nil
		}
		if err == nil {
			err = removeFilter(nl.Attrs().Index)
		}
		if err != nil {
			return fmt.Errorf("%s: interface %s: unsilence: %w", ns, name, err)
		}
		return nil
	})
}
