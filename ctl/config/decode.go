package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// position is where something stands in a file, counted from 1.
type position struct{ line, column int }

// decoder fills a Go value from a tree of nodes, and notes everything that
// doesn't fit with its place rather than stopping at the first.
type decoder struct {
	at map[string]position // By path; empty if the nodes have no positions.
}

// decode fills v, which is settable. Fields are found by their json tag, which
// in a spec is the same as the yaml tag.
func (d *decoder) decode(n *node, v reflect.Value, c checker) {
	d.note(c.path, n.line, n.column)
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := asText(n, c); ok {
			if err := unmarshalText(u, s); err != nil {
				c.refuse("%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, v, c)
	case reflect.Slice:
		d.decodeSlice(n, v, c)
	case reflect.Map:
		d.decodeMap(n, v, c)
	case reflect.String:
		if s, ok := asText(n, c); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if n.kind != nodeBool {
			c.refuse("want true or false, not %s", n.kind)
			return
		}
		v.SetBool(strings.EqualFold(n.text, "true"))
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.text, 10, v.Type().Bits())
		if d.isNumber(n, err, c) {
			v.SetInt(i)
		}
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(n.text, 10, v.Type().Bits())
		if d.isNumber(n, err, c) {
			v.SetUint(u)
		}
	default:
		panic(fmt.Sprintf("config: a spec has no way to write %s of type %s", c.path, v.Type()))
	}
}

func (d *decoder) note(path string, line, column int) {
	if line > 0 {
		d.at[path] = position{line, column}
	}
}

// isNumber tells whether the node is a whole number that was read without
// error. A leading zero is refused: it is octal to some readers of YAML.
func (d *decoder) isNumber(n *node, err error, c checker) bool {
	switch {
	case n.kind != nodeNumber:
		c.refuse("want a whole number, not %s", n.kind)
	case err != nil, len(n.text) > 1 && n.text[0] == '0':
		c.refuse("%s is no whole number that fits here: want decimal digits", quote(n.text))
	default:
		return true
	}
	return false
}

func asText(n *node, c checker) (string, bool) {
	if n.kind == nodeText || n.kind == nodeNumber && n.plain {
		return n.text, true
	}
	c.refuse("want text, not %s", n.kind)
	return "", false
}

// unmarshalText reads s with an error in the user's words.
func unmarshalText(u encoding.TextUnmarshaler, s string) (err error) {
	switch u := u.(type) {
	case *netip.Prefix:
		*u, err = ParseSubnet(s)
	case *netip.Addr:
		*u, err = ParseGateway(s)
	default:
		err = u.UnmarshalText([]byte(s))
	}
	return err
}

// decodeSlice leaves v nil for an empty list: in a spec both mean none.
func (d *decoder) decodeSlice(n *node, v reflect.Value, c checker) {
	if n.kind != nodeList {
		c.refuse("want a list, not %s", n.kind)
		return
	}
	if len(n.items) == 0 {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		d.decode(item, v.Index(i), c.index(i))
	}
}

func (d *decoder) decodeMap(n *node, v reflect.Value, c checker) {
	if !isObject(n, c) || len(n.fields) == 0 {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.fields)))
	seen := make(map[string]bool, len(n.fields))
	for _, f := range n.fields {
		c := c.field(f.key)
		if seen[f.key] {
			d.refuseAt(f, c, "given twice")
			continue
		}
		seen[f.key] = true
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(f.value, item, c)
		v.SetMapIndex(reflect.ValueOf(f.key).Convert(v.Type().Key()), item)
	}
}

func (d *decoder) decodeStruct(n *node, v reflect.Value, c checker) {
	if !isObject(n, c) {
		return
	}
	names := fieldNames(v.Type())
	seen := make(map[string]bool, len(n.fields))
	for _, f := range n.fields {
		c := c.field(f.key)
		i := slices.Index(names, f.key)
		switch {
		case i < 0:
			d.refuseAt(f, c, "unknown field: want one of %s", strings.Join(names, ", "))
		case seen[f.key]:
			d.refuseAt(f, c, "given twice")
		case f.value.kind == nodeNull:
			d.refuseAt(f, c, "has no value: give one or leave the field out")
		default:
			d.decode(f.value, v.Field(i), c)
		}
		seen[f.key] = true
	}
}

// refuseAt notes an error about the key itself.
func (d *decoder) refuseAt(f field, c checker, format string, args ...any) {
	c.refuse(format, args...)
	last := (*c.errs)[len(*c.errs)-1]
	last.Line, last.Column = f.line, f.column
}

func isObject(n *node, c checker) bool {
	if n.kind == nodeObject {
		return true
	}
	if n.kind != nodeNull || c.path != "" {
		c.refuse("want an object of fields, not %s", n.kind)
	}
	return false
}

// fieldNames returns the names by which a struct's fields are written.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return names
}

// place gives each error the place of its path, or of the nearest object around
// it that was written, and sorts them by it.
func (d *decoder) place(errs Errors) {
	for _, e := range errs {
		for path := e.Path; e.Line == 0; path = outer(path) {
			p := d.at[path]
			e.Line, e.Column = p.line, p.column
			if path == "" {
				break
			}
		}
	}
	slices.SortStableFunc(errs, func(a, b *FieldError) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
