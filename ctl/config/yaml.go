package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// maxReported bounds how many errors of a file are reported; the last then says
// how many more there are.
const maxReported = 100

// Parse reads a config file and validates it (Config.Validate). It returns
// either the config, without defaults filled in, or Errors with a line each, in
// their order: unknown and repeated fields, values of another type, and
// everything that Validate refuses; of text that is no YAML at all only the
// first place. An empty file is an empty config. Anchors, aliases, tags, `?`
// keys and several documents are refused: a config needs none of them.
func Parse(data []byte) (*Config, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("a file of %d bytes: at most %d are read", len(data), MaxFile)
	}
	c := newChecker()
	root := readYAML(string(data), c)
	cfg := new(Config)
	if root != nil {
		d := decoder{at: make(map[string]position)}
		d.decode(root, reflect.ValueOf(cfg).Elem(), c)
		decoded := len(*c.errs)
		cfg.check(c)
		*c.errs = withoutEchoes(*c.errs, decoded)
		d.place(*c.errs)
	}
	if n := len(*c.errs); n > maxReported {
		last := (*c.errs)[maxReported]
		*c.errs = append((*c.errs)[:maxReported:maxReported],
			&FieldError{Line: last.Line, Column: last.Column, Why: fmt.Sprintf("from here on %d more errors", n-maxReported)})
	}
	if err := c.errs.asError(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Marshal writes the config as a file that Parse reads back to an equal one:
// only what the user gave, no defaults.
func Marshal(c *Config) ([]byte, error) {
	b, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write config as YAML: %w", err)
	}
	return b, nil
}

// withoutEchoes leaves out what Validate says (the errors from index decoded
// on) about values that could not be read, and so are empty, and about what is
// around or inside of them.
func withoutEchoes(errs Errors, decoded int) Errors {
	unread := make(map[string]bool) // The paths and those around them.
	for _, e := range errs[:decoded] {
		for p := e.Path; p != ""; p = outer(p) {
			unread[p] = unread[p] || p == e.Path
		}
	}
	kept := errs[:decoded:decoded]
	for _, e := range errs[decoded:] {
		_, echo := unread[e.Path]
		for p := e.Path; p != "" && !echo; p = outer(p) {
			echo = unread[p]
		}
		if !echo {
			kept = append(kept, e)
		}
	}
	return kept
}

// outer returns the path of what the path is part of.
func outer(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// readYAML returns the file's only document, or nil with what is wrong noted.
func readYAML(text string, c checker) *node {
	tokens := lexer.Tokenize(text)
	if checkTokens(tokens, c); len(*c.errs) > 0 {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		refuseSyntax(err, c)
		return nil
	}
	root := &node{kind: nodeObject, line: 1, column: 1}
	found := false
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		n := readNode(doc.Body, c)
		if found {
			refuseAt(c, n.line, n.column, "a second document: a config is one")
		}
		root, found = n, true
	}
	if len(*c.errs) > 0 {
		return nil
	}
	return root
}

// refuseAt notes what is wrong at a place that is no field.
func refuseAt(c checker, line, column int, format string, args ...any) {
	*c.errs = append(*c.errs, &FieldError{Line: line, Column: column, Why: fmt.Sprintf(format, args...)})
}

func refuseSyntax(err error, c checker) {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		refuseAt(c, 1, 1, "no YAML: %v", err)
		return
	}
	p := at.GetToken().Position
	refuseAt(c, p.Line, p.Column, "no YAML: %s", at.GetMessage())
}

// readNode turns a value of the YAML library into a node.
func readNode(y ast.Node, c checker) *node {
	n := &node{plain: true}
	if t := y.GetToken(); t != nil {
		n.line, n.column, n.text = t.Position.Line, t.Position.Column, t.Value
	}
	switch y := y.(type) {
	case *ast.NullNode:
		n.kind = nodeNull
	case *ast.BoolNode:
		n.kind = nodeBool
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		n.kind = nodeNumber
	case *ast.StringNode:
		n.kind, n.text = nodeText, y.Value
	case *ast.LiteralNode:
		n.kind, n.text = nodeText, y.Value.Value
	case *ast.SequenceNode:
		n.kind = nodeList
		for _, item := range y.Values {
			n.items = append(n.items, readNode(item, c))
		}
	case *ast.MappingNode:
		n.readFields(y.Values, c)
	case *ast.MappingValueNode:
		n.readFields([]*ast.MappingValueNode{y}, c)
	default:
		refuseAt(c, n.line, n.column, "YAML's %s is not for a config", strings.ToLower(y.Type().String()))
	}
	return n
}

// readFields makes n an object. Its place is that of its first key, as the
// library gives the colon's.
func (n *node) readFields(values []*ast.MappingValueNode, c checker) {
	n.kind = nodeObject
	for i, v := range values {
		key := v.Key.GetToken()
		f := field{key: key.Value, line: key.Position.Line, column: key.Position.Column, value: readNode(v.Value, c)}
		if i == 0 {
			n.line, n.column = f.line, f.column
		}
		n.fields = append(n.fields, f)
	}
}
