package baseline

import (
	"errors"
	"fmt"
)

// Least is what a path must have carried, and translated, at least.
type Least struct {
	AToB, BToA Count
	Conns      uint64
}

// Most is what a path may have carried, and translated, at most, beside what
// stacks say by themselves (Stray).
type Most Least

// Stray bounds what containers' stacks and hosts send by themselves while
// something is measured: ARP, neighbour discovery, MLD, and the connections
// beside the traffic that is meant.
var Stray = Least{AToB: strayCount, BToA: strayCount, Conns: 32}

var strayCount = Count{Frames: 300, Bytes: 64 << 10}

// plus adds two counts up.
func (c Count) plus(d Count) Count { return Count{c.Frames + d.Frames, c.Bytes + d.Bytes} }

// reach tells whether frames and bytes are at least those of another count.
func (c Count) reach(least Count) bool { return c.Frames >= least.Frames && c.Bytes >= least.Bytes }

// overSegments is what cutting a super-frame into segments adds to its bytes at
// most: a header for each, here of 66 bytes for 1,398 and more.
const overSegments = 1.1

// flow is what a path has counted of one direction at one place.
type flow struct {
	where string
	count Count
	least Count
	most  *Count // Nil is no bound.
}

func (f flow) verify() error {
	if !f.count.reach(f.least) {
		return fmt.Errorf(
			"the path counted %d frames, %d bytes %s, but at least %d frames, %d bytes were delivered: the traffic went another way",
			f.count.Frames, f.count.Bytes, f.where, f.least.Frames, f.least.Bytes)
	}
	if f.most != nil && !f.most.reach(f.count) {
		return fmt.Errorf(
			"the path counted %d frames, %d bytes %s, but %d frames, %d bytes at most were sent: there was other traffic, or some came twice",
			f.count.Frames, f.count.Bytes, f.where, f.most.Frames, f.most.Bytes)
	}
	return nil
}

// Verify tells whether between two readings of its counters the path carried
// what it should have, and gave out no more than it took in; with most, whether it
// carried nothing else.
func Verify(before, after Counts, least Least, most *Most) error {
	var errs []error
	grown := func(where string, before, after Count) Count {
		if after.Frames < before.Frames || after.Bytes < before.Bytes {
			errs = append(errs, fmt.Errorf("the path's counters ran backwards %s", where))
			return Count{}
		}
		return Count{after.Frames - before.Frames, after.Bytes - before.Bytes}
	}
	var mostAToB, mostBToA *Count
	if most != nil {
		ab, ba := most.AToB.plus(Stray.AToB), most.BToA.plus(Stray.BToA)
		mostAToB, mostBToA = &ab, &ba
	}
	fromA := grown("in from A", before.FromA, after.FromA)
	toB := grown("out to B", before.ToB, after.ToB)
	fromB := grown("in from B", before.FromB, after.FromB)
	toA := grown("out to A", before.ToA, after.ToA)
	flows := []flow{
		{"in from A", fromA, least.AToB, mostAToB}, {"out to B", toB, least.AToB, mostAToB},
		{"in from B", fromB, least.BToA, mostBToA}, {"out to A", toA, least.BToA, mostBToA},
	}
	if before.Tunnel != nil && after.Tunnel != nil {
		b, a := before.Tunnel, after.Tunnel
		for _, f := range []struct {
			where         string
			before, after Count
			least         Count
			most          *Count
		}{
			{"into the tunnel at A's host", b.EncapA, a.EncapA, least.AToB, mostAToB},
			{"out of the tunnel at B's host", b.DecapB, a.DecapB, least.AToB, mostAToB},
			{"into the tunnel at B's host", b.EncapB, a.EncapB, least.BToA, mostBToA},
			{"out of the tunnel at A's host", b.DecapA, a.DecapA, least.BToA, mostBToA},
		} {
			flows = append(flows, flow{f.where, grown(f.where, f.before, f.after), f.least, f.most})
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, f := range flows {
		errs = append(errs, f.verify())
	}
	return errors.Join(append(errs,
		conserved("A to B", fromA, toB), conserved("B to A", fromB, toA),
		verifyConns(before.Conns, after.Conns, least, most))...)
}

// conserved tells whether a path gave out no more bytes than it took in.
func conserved(way string, in, out Count) error {
	if most := uint64(overSegments*float64(in.Bytes)) + strayCount.Bytes; out.Bytes > most {
		return fmt.Errorf("the path took in %d bytes from %s, but gave out %d: some came twice, or from elsewhere", in.Bytes, way, out.Bytes)
	}
	return nil
}

func verifyConns(before, after uint64, least Least, most *Most) error {
	conns := after - before
	switch {
	case after < before:
		return errors.New("the path's count of connections ran backwards")
	case conns < least.Conns:
		return fmt.Errorf("the path's NAT began %d connections, but at least %d were made: they went untranslated", conns, least.Conns)
	case most != nil && conns > most.Conns+Stray.Conns:
		return fmt.Errorf("the path's NAT began %d connections, but %d at most were made: there was other traffic", conns, most.Conns)
	}
	return nil
}
