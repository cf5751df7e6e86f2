package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// DecodeJSON reads exactly one JSON value from r into v, a pointer to a spec, a
// Config or anything made of structs with json tags, lists, maps by string,
// text, whole numbers and booleans. It refuses unknown and repeated fields,
// names in another case, values of another type and anything behind the value,
// and reports all of them as Errors. What the value means is Validate's to
// say. It reads r to its end: the caller bounds it. An error that r gives is
// returned wrapped.
func DecodeJSON(r io.Reader, v any) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	root, err := readJSON(d, 0)
	if err != nil {
		return jsonError(d, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("JSON: one value is wanted, and there is more behind it")
	}
	c := newChecker()
	new(decoder).decode(root, reflect.ValueOf(v).Elem(), c)
	return c.errs.asError()
}

var errTooDeep = fmt.Errorf("lists and objects are nested more than %d deep", maxDepth)

// readJSON reads the next value.
func readJSON(d *json.Decoder, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case bool:
		return &node{kind: nodeBool, text: fmt.Sprint(t)}, nil
	case json.Number:
		return &node{kind: nodeNumber, text: t.String()}, nil
	case string:
		return &node{kind: nodeText, text: t}, nil
	case json.Delim:
		return readJSONInner(d, t, depth)
	}
	return &node{kind: nodeNull}, nil
}

// readJSONInner reads a list or object whose first bracket was open.
func readJSONInner(d *json.Decoder, open json.Delim, depth int) (*node, error) {
	n := &node{kind: nodeList}
	if open == '{' {
		n.kind = nodeObject
	}
	for d.More() {
		var key string
		if n.kind == nodeObject {
			token, err := d.Token()
			if err != nil {
				return nil, err
			}
			key = fmt.Sprint(token)
		}
		value, err := readJSON(d, depth+1)
		if err != nil {
			return nil, err
		}
		if n.kind == nodeObject {
			n.fields = append(n.fields, field{key: key, value: value})
		} else {
			n.items = append(n.items, value)
		}
	}
	_, err := d.Token() // The closing bracket: More said that nothing else is next.
	return n, err
}

// jsonError says where the text is no JSON.
func jsonError(d *json.Decoder, err error) error {
	switch {
	case errors.Is(err, io.EOF) && d.InputOffset() == 0:
		return errors.New("JSON: a value is wanted, and there is nothing")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("JSON: it ends in the middle")
	}
	return fmt.Errorf("JSON, near byte %d: %w", d.InputOffset(), err)
}
