package main

import (
	"reflect"
	"runtime"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/packet"
	"heddle/dataplane/tap"
	"heddle/nat"
	vswitch "heddle/switch"
	"heddle/tunnel"
	"heddle/tunnel/underlay"
)

// line is a cache line in bytes, of amd64 and arm64.
const line = 64

// What each worker has to itself is in slices of structs, one for each worker,
// which have no line in common, as they are allocated.
func TestWorkersShareNoCacheLine(t *testing.T) {
	for _, tt := range []struct {
		of    any
		field string
	}{
		{dataplane.Counters{}, "perWorker"},
		{vswitch.Switch{}, "workers"},
		{nat.NAT{}, "workers"},
		{tunnel.VTEP{}, "workers"},
		{tap.Port{}, "queues"},
		{packet.Port{}, "queues"},
		{mem.Port{}, "queues"},
	} {
		owner := reflect.TypeOf(tt.of)
		f, ok := owner.FieldByName(tt.field)
		if !ok || f.Type.Kind() != reflect.Slice || f.Type.Elem().Kind() != reflect.Struct {
			t.Errorf("%v has no slice of structs %s", owner, tt.field)
			continue
		}
		elem := f.Type.Elem()
		first, end := written(elem)
		for workers := 2; workers <= 16; workers++ {
			slice := reflect.MakeSlice(f.Type, workers, workers)
			for w := range workers - 1 {
				this, next := slice.Index(w).UnsafeAddr(), slice.Index(w+1).UnsafeAddr()
				if (this+end-1)/line == (next+first)/line {
					t.Fatalf("%v.%s: workers %d and %d of %d share a line", owner, tt.field, w, w+1, workers)
				}
			}
		}
	}
}

// What is a worker's by a pointer is allocated by itself, side by side
// with others of its size.
func TestWorkersObjectsFillCacheLines(t *testing.T) {
	for _, tt := range []struct {
		of    any
		field string
	}{
		{dataplane.Engine{}, "workers"},
		{underlay.Underlay{}, "receivers"},
		{underlay.Underlay{}, "outs"},
	} {
		owner := reflect.TypeOf(tt.of)
		f, ok := owner.FieldByName(tt.field)
		if !ok || f.Type.Kind() != reflect.Slice || f.Type.Elem().Kind() != reflect.Pointer {
			t.Errorf("%v has no slice of pointers %s", owner, tt.field)
			continue
		}
		elem := f.Type.Elem().Elem()
		owners := map[uintptr]int{}
		var all []reflect.Value
		for i := range 16 {
			v := reflect.New(elem)
			all = append(all, v)
			for at := v.Pointer() / line; at <= (v.Pointer()+elem.Size()-1)/line; at++ {
				if other, taken := owners[at]; taken && other != i {
					t.Fatalf("%v.%s: objects of %d bytes share a line", owner, tt.field, elem.Size())
				}
				owners[at] = i
			}
		}
		runtime.KeepAlive(all)
	}
}
