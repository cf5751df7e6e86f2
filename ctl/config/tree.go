package config

// nodeKind is what a value in a file or request is.
type nodeKind uint8

const (
	nodeNull nodeKind = iota
	nodeBool
	nodeNumber
	nodeText
	nodeList
	nodeObject
)

// String names it as errors do.
func (k nodeKind) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "a list", "an object of fields"}[k]
}

// maxDepth bounds how deep values are nested, far above what any spec needs:
// the readers of YAML and JSON descend recursively.
const maxDepth = 16

// node is a value as it was written, in YAML or JSON, so that one decoder
// serves both. YAML's positions count from 1; JSON's are 0, as its bodies are
// written by programs.
type node struct {
	kind nodeKind
	// text is what was written, valid for nodeBool, nodeNumber, nodeText.
	text string
	// plain marks YAML without quotes, where 12 may be meant as text.
	plain        bool
	line, column int

	items  []*node // Valid for nodeList.
	fields []field // Valid for nodeObject; keys may repeat.
}

// field is a key and its value in an object.
type field struct {
	key          string
	line, column int
	value        *node
}
