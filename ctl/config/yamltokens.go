package config

import "github.com/goccy/go-yaml/token"

// maxKeys bounds the keys of one YAML mapping, far above any spec's fields.
const maxKeys = 64

// refusedTokens are what a config has no use for.
var refusedTokens = map[token.Type]string{
	token.AnchorType:     "anchors (&) are",
	token.AliasType:      "aliases (*) are",
	token.TagType:        "tags (!) are",
	token.MappingKeyType: "complex keys (?) are",
	token.MergeKeyType:   "merge keys (<<) are",
	token.DirectiveType:  "directives (%) are",
}

// checkTokens refuses what a config has no use for. It also refuses nesting
// and mappings far beyond any config: the parser recurses for each level and
// for each further key of a mapping, and looks back along the way, so that a
// file of MaxFile could make it take all memory or hours. The lexer's time and
// this are linear.
func checkTokens(tokens token.Tokens, c checker) {
	var w tokenWatch
	for i, t := range tokens {
		at := t.Position
		if t.Type == token.InvalidType {
			refuseAt(c, at.Line, at.Column, "no YAML: %s", t.Error)
			return
		}
		if what, refused := refusedTokens[t.Type]; refused {
			refuseAt(c, at.Line, at.Column, "YAML's %s not for a config", what)
		}
		w.depth(t)
		key := t
		if i > 0 {
			key = tokens[i-1]
		}
		w.keys(t, key)
		switch {
		case len(w.flow)+w.onLine > maxDepth:
			refuseAt(c, at.Line, at.Column, "%v", errTooDeep)
			return
		case w.most > maxKeys:
			refuseAt(c, at.Line, at.Column, "more than %d keys in one mapping", maxKeys)
			return
		}
	}
}

// tokenWatch follows how deep and how wide a stream of tokens nests.
type tokenWatch struct {
	// flow counts the keys in each open bracket.
	flow []int
	// onLine counts the lists and mappings opened on the line.
	onLine, line int
	// block counts the keys of each open mapping in block style, which is
	// known by its column; columns grow inwards.
	block []struct{ column, keys int }
	// most is the highest of the counts in flow and block that last changed.
	most int
}

func (w *tokenWatch) depth(t *token.Token) {
	if t.Position.Line != w.line && len(w.flow) == 0 {
		w.onLine, w.line = 0, t.Position.Line
	}
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		w.flow = append(w.flow, 0)
	case token.SequenceEndType, token.MappingEndType:
		w.flow = w.flow[:max(0, len(w.flow)-1)]
		w.onLine = 0
	case token.CollectEntryType:
		w.onLine = 0
	case token.SequenceEntryType, token.MappingValueType:
		w.onLine++
	}
}

// keys counts t if it is the colon behind key, and leaves the mappings that an
// outer list's entry ends.
func (w *tokenWatch) keys(t, key *token.Token) {
	switch {
	case t.Type == token.SequenceEntryType && len(w.flow) == 0:
		w.leave(t.Position.Column)
	case t.Type != token.MappingValueType:
	case len(w.flow) > 0:
		w.flow[len(w.flow)-1]++
		w.most = w.flow[len(w.flow)-1]
	default:
		column := key.Position.Column
		w.leave(column)
		if n := len(w.block); n == 0 || w.block[n-1].column < column {
			w.block = append(w.block, struct{ column, keys int }{column: column})
		}
		w.block[len(w.block)-1].keys++
		w.most = w.block[len(w.block)-1].keys
	}
}

// leave ends the mappings right of the column.
func (w *tokenWatch) leave(column int) {
	for n := len(w.block); n > 0 && w.block[n-1].column > column; n-- {
		w.block = w.block[:n-1]
	}
}
