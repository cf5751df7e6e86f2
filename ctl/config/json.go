package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DecodeJSON reads exactly one JSON value from r into v, which is a pointer to
// a spec or a Config. It refuses unknown and repeated fields, values of another
// type and anything behind the value. It reads r to its end: the caller bounds
// it. An error that r gives is returned wrapped.
func DecodeJSON(r io.Reader, v any) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("JSON: one value is wanted, and there is more behind it at byte %d", d.InputOffset())
	}
	return repeatedKey(data)
}

// jsonError says what is wrong in the user's words rather than Go's.
func jsonError(err error) error {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("JSON: an object is wanted, and there is nothing")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("JSON: it ends in the middle")
	case errors.As(err, &wrong):
		field := wrong.Field
		if field == "" {
			field = "the value"
		}
		return fmt.Errorf("JSON: %s: a %s does not fit here (byte %d)", field, wrong.Value, wrong.Offset)
	case errors.As(err, &syntax):
		return fmt.Errorf("JSON: %w (byte %d)", err, syntax.Offset)
	}
	return fmt.Errorf("JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// repeatedKey finds an object with two equal keys, of which encoding/json would
// quietly take the last; like it, it takes keys that differ in case only for
// equal. data is valid JSON.
func repeatedKey(data []byte) error {
	type object struct {
		keys  map[string]bool // Nil in an array.
		isKey bool            // The next string is a key.
	}
	var open []object
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return jsonError(err)
		}
		if delim, ok := token.(json.Delim); ok {
			switch delim {
			case '{':
				open = append(open, object{keys: map[string]bool{}, isKey: true})
				continue
			case '[':
				open = append(open, object{})
				continue
			}
			open = open[:len(open)-1]
		} else if len(open) > 0 && open[len(open)-1].isKey {
			top := &open[len(open)-1]
			key := strings.ToLower(fmt.Sprint(token))
			if top.keys[key] {
				return fmt.Errorf("JSON: the field %q is given twice (byte %d)", key, d.InputOffset())
			}
			top.keys[key] = true
			top.isKey = false
			continue
		}
		if len(open) > 0 {
			top := &open[len(open)-1]
			top.isKey = top.keys != nil
		}
	}
}
