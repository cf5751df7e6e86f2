package filter

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bounds of an expression.
const (
	maxLen   = 1024 // Bytes.
	maxDepth = 32   // Parentheses and nots within each other.
)

// Compile compiles an expression of at most 1024 bytes. An empty one gives a
// nil Filter, which selects every frame. Errors are written for the person who
// wrote the expression. Any goroutine may call it.
func Compile(expr string) (*Filter, error) {
	if strings.TrimSpace(expr) == "" {
		return nil, nil // No filter is a filter that selects all: match accepts a nil receiver.
	}
	if len(expr) > maxLen {
		return nil, fmt.Errorf("the filter is %d bytes long: at most %d", len(expr), maxLen)
	}
	toks, err := tokenize(expr)
	if err != nil {
		return nil, err
	}
	p := parser{toks: toks}
	n, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(0); t != "" {
		return nil, fmt.Errorf("filter: unexpected %q", t)
	}
	return &Filter{root: n}, nil
}

// tokenize cuts an expression into words, parentheses and operators; && ||
// and ! become their words.
func tokenize(s string) ([]string, error) {
	var toks []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n':
			i++
		case c == '(' || c == ')':
			toks = append(toks, string(c))
			i++
		case c == '!' && !strings.HasPrefix(s[i:], "!="):
			toks = append(toks, "not")
			i++
		case strings.HasPrefix(s[i:], "&&"):
			toks = append(toks, "and")
			i += 2
		case strings.HasPrefix(s[i:], "||"):
			toks = append(toks, "or")
			i += 2
		case c == '\\': // tcpdump's escape of a protocol's name after proto.
			i++
		case wordByte(c):
			j := i
			for j < len(s) && wordByte(s[j]) {
				j++
			}
			toks = append(toks, s[i:j])
			i = j
		default:
			return nil, fmt.Errorf("filter: unexpected %q (byte expressions such as tcp[13] are not supported)", c)
		}
	}
	return toks, nil
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '.' || c == ':' || c == '/' || c == '-' || c == '_'
}

// parser is a recursive-descent parser over tokens. As in tcpdump, and
// and or bind equally and to the left, not binds tighter.
type parser struct {
	toks []string
	pos  int
	last qualifiers // Of the last primitive: `port 80 or 443`.
}

// qualifiers say what an id means.
type qualifiers struct{ proto, dir, kind string }

// peek returns the token n ahead, or "" at the end.
func (p *parser) peek(n int) string {
	if p.pos+n >= len(p.toks) {
		return ""
	}
	return p.toks[p.pos+n]
}

func (p *parser) next() string {
	t := p.peek(0)
	p.pos++
	return t
}

func (p *parser) expression(depth int) (node, error) {
	n, err := p.factor(depth)
	for err == nil {
		var right node
		switch p.peek(0) {
		case "and":
			p.pos++
			if right, err = p.factor(depth); err == nil {
				n = andNode{n, right}
			}
		case "or":
			p.pos++
			if right, err = p.factor(depth); err == nil {
				n = orNode{n, right}
			}
		default:
			return n, nil
		}
	}
	return nil, err
}

func (p *parser) factor(depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("filter: nested deeper than %d", maxDepth)
	}
	switch p.peek(0) {
	case "not":
		p.pos++
		n, err := p.factor(depth + 1)
		if err != nil {
			return nil, err
		}
		return notNode{n}, nil
	case "(":
		p.pos++
		n, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.next() != ")" {
			return nil, errors.New("filter: a ( without its )")
		}
		return n, nil
	}
	return p.primitive()
}

// primitive reads qualifiers and what they qualify.
func (p *parser) primitive() (node, error) {
	var q qualifiers
	for {
		t := p.peek(0)
		switch t {
		case "":
			return p.bare(q, "the filter ends where a primitive is expected")
		case "and", "or", "not", "(", ")":
			return p.bare(q, fmt.Sprintf("unexpected %q", t))
		case "ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah":
			if q != (qualifiers{}) {
				return nil, fmt.Errorf("filter: unexpected %q after %s", t, q)
			}
			q.proto = t
		case "src", "dst":
			if q.dir != "" || q.kind != "" {
				return nil, fmt.Errorf("filter: unexpected %q after %s", t, q)
			}
			q.dir = t
			if op := p.peek(1); t == "src" && (op == "or" || op == "and") && p.peek(2) == "dst" {
				q.dir = "src " + op + " dst"
				p.pos += 2
			}
		case "host", "net", "port", "portrange":
			if q.kind != "" {
				return nil, fmt.Errorf("filter: unexpected %q after %s", t, q)
			}
			q.kind = t
		case "proto", "broadcast", "multicast", "vlan", "less", "greater":
			p.pos++
			return p.special(q, t)
		case "gateway", "mask", "len", "inbound", "outbound", "mpls", "pppoes", "geneve", "vxlan":
			return nil, fmt.Errorf("filter: %q is not supported", t)
		default:
			p.pos++
			if q == (qualifiers{}) {
				q = p.last
			}
			if q.kind == "" {
				q.kind = "host"
			}
			p.last = q
			return identified(q, t)
		}
		p.pos++
	}
}

// String is the qualifiers as they were written.
func (q qualifiers) String() string {
	return strings.Join(strings.Fields(q.proto+" "+q.dir+" "+q.kind), " ")
}

// bare makes the node of a protocol that stands alone.
func (p *parser) bare(q qualifiers, otherwise string) (node, error) {
	if q.proto != "" && q.proto != "ether" && q.dir == "" && q.kind == "" {
		return protocolNode(q.proto)
	}
	if q != (qualifiers{}) {
		return nil, fmt.Errorf("filter: %s: what?", q)
	}
	return nil, errors.New("filter: " + otherwise)
}

// special makes the node of a primitive that isn't an address or a port.
func (p *parser) special(q qualifiers, word string) (node, error) {
	if q.dir != "" || q.kind != "" {
		return nil, fmt.Errorf("filter: unexpected %q after %s", word, q)
	}
	switch word {
	case "proto":
		return numberedProtocol(q.proto, p.next())
	case "broadcast", "multicast":
		return groupNode(q.proto, word)
	}
	if q.proto != "" {
		return nil, fmt.Errorf("filter: unexpected %q after %s", word, q)
	}
	if word == "vlan" {
		id, err := strconv.ParseUint(p.peek(0), 10, 16)
		if err != nil {
			return vlanNode{any: true}, nil
		}
		p.pos++
		if id > 4095 {
			return nil, fmt.Errorf("filter: vlan %d: at most 4095", id)
		}
		return vlanNode{id: uint16(id)}, nil
	}
	t := p.next()
	n, err := strconv.ParseUint(t, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("filter: %s %q: want a length in bytes", word, t)
	}
	if word == "less" {
		return lenNode{max: int(n)}, nil
	}
	return lenNode{min: int(n), max: math.MaxInt}, nil
}
