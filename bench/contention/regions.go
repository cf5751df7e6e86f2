package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Region is memory that has a name: a field, or what a slice points to.
type Region struct {
	Name string
	Addr uintptr
	Len  uintptr
}

// regionsOf lists the memory of objects and of what they point to in Heddle's
// own types, by what the fields are called. It reads no field's value that
// others may write to but slices' and pointers', so nobody may work on them.
func regionsOf(roots map[string]any) []Region {
	s := &survey{seen: map[uintptr]bool{}}
	names := make([]string, 0, len(roots))
	for name := range roots {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, root := range roots { // Each by its own name, whoever else points there.
		s.seen[reflect.ValueOf(root).Pointer()] = true
	}
	for _, name := range names {
		s.object(name, reflect.ValueOf(roots[name]).Elem())
	}
	slices.SortStableFunc(s.found, func(a, b Region) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	return s.found
}

type survey struct {
	found []Region
	seen  map[uintptr]bool
}

// follow lists what a pointer points to.
func (s *survey) follow(name string, p reflect.Value) {
	if p.IsNil() || s.seen[p.Pointer()] || p.Elem().Kind() != reflect.Struct || !strings.HasPrefix(p.Elem().Type().PkgPath(), "heddle/") {
		return
	}
	s.seen[p.Pointer()] = true
	s.object(name, p.Elem())
}

// object lists an addressable value.
func (s *survey) object(name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if !strings.HasPrefix(v.Type().PkgPath(), "heddle/") {
			break
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i).Name; f != "_" {
				s.object(name+"."+f, v.Field(i))
			}
		}
		return
	case reflect.Array:
		if v.Len() > 0 && v.Len() <= 4 && v.Index(0).Kind() == reflect.Struct {
			for i := range v.Len() {
				s.object(fmt.Sprintf("%s[%d]", name, i), v.Index(i))
			}
			return
		}
	case reflect.Slice:
		if v.Len() > 0 && !s.seen[v.Pointer()] {
			s.seen[v.Pointer()] = true
			s.elements(name, v)
		}
	case reflect.Pointer:
		s.follow(name, v)
	}
	if n := v.Type().Size(); n > 0 {
		s.found = append(s.found, Region{name, v.UnsafeAddr(), n})
	}
}

// elements lists what a slice points to: each of few structs, else the whole.
func (s *survey) elements(name string, v reflect.Value) {
	elem := v.Type().Elem()
	if k := elem.Kind(); v.Len() <= 64 && (k == reflect.Struct || k == reflect.Pointer) {
		for i := range v.Len() {
			s.object(fmt.Sprintf("%s[%d]", name, i), v.Index(i))
		}
		return
	}
	s.found = append(s.found, Region{name + "[…]", v.Pointer(), uintptr(v.Cap()) * elem.Size()})
}

// nameOf tells what an address belongs to; regions are in the order of address.
func nameOf(regions []Region, addr uintptr) string {
	i, _ := slices.BinarySearchFunc(regions, addr, func(r Region, a uintptr) int {
		if r.Addr <= a {
			return -1
		}
		return 1
	})
	for i--; i >= 0; i-- {
		if r := regions[i]; addr < r.Addr+r.Len {
			return r.Name
		} else if addr-r.Addr > 1<<30 {
			break
		}
	}
	return ""
}

// written returns the offsets of the first byte of a type's fields and of the
// one after the last, without blank ones: the padding.
func written(t reflect.Type) (first, end uintptr) {
	if t.Kind() != reflect.Struct {
		return 0, t.Size()
	}
	first = t.Size()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name == "_" {
			continue
		}
		a, b := written(f.Type)
		first, end = min(first, f.Offset+a), max(end, f.Offset+b)
	}
	return first, end
}
