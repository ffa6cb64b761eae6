package wire

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Validate checks an input against the model: required members, lengths and sizes, ranges, patterns, enums. The error is
// an *awserr.Error with the service's code and words. in is a pointer to the input type.
func (o *Operation) Validate(in any) error {
	p := pointee(pointer(in, o.mustBe.in))
	n := o.in()
	if n == nil || !n.checked {
		return nil
	}
	v := validator{}
	v.structure(n, p)
	if len(v.found) == 0 {
		return nil
	}
	return o.codec.style.refuse(v.found)
}

// constraint is one kind of rule.
type constraint uint8

const (
	notNull constraint = iota
	minLength
	maxLength
	minValue
	maxValue
	matches
	enumValue
)

// violation is one value that breaks one rule.
type violation struct {
	path  string // "logEvents.1.member.timestamp"
	value string
	shown bool // value may be repeated to the client
	rule  constraint
	bound string   // the limit or pattern
	set   []string // the enum
	// within is "", or what wraps the rule when AWS reports an element at its list or map: "Member", "Map value", "Map keys".
	within string
}

// maxViolations bounds the work and the answer; nobody reads more.
const maxViolations = 10

type validator struct {
	found []violation
	path  []step // to the value at hand
}

// step is a member, or the 1-based element i of a list when name is empty.
type step struct {
	name string
	i    int
}

func (v *validator) enter(s step) { v.path = append(v.path, s) }
func (v *validator) leave()       { v.path = v.path[:len(v.path)-1] }

// at is the path as AWS writes it: logEvents.1.member.timestamp.
func (v *validator) at() string {
	parts := make([]string, len(v.path))
	for i, s := range v.path {
		if parts[i] = s.name; s.name == "" {
			parts[i] = strconv.Itoa(s.i) + ".member"
		}
	}
	return strings.Join(parts, ".")
}

// constrained says whether the node or anything it reaches has a rule, given the present belief about those.
func (n *node) constrained() bool {
	s := n.shape
	if s.Min != nil || s.Max != nil || n.pattern != nil || n.enum != nil || len(n.required) > 0 {
		return true
	}
	for i := range n.fields {
		if n.fields[i].node.checked {
			return true
		}
	}
	for i := range n.variants {
		if n.variants[i].node.checked {
			return true
		}
	}
	return n.elem != nil && n.elem.checked || n.key != nil && n.key.checked
}

func (v *validator) structure(n *node, p unsafe.Pointer) {
	for i := range n.fields {
		f := &n.fields[i]
		if len(v.found) >= maxViolations {
			return
		}
		if !f.isSet(p) {
			if n.requires(f) {
				v.enter(step{name: f.name})
				v.found = append(v.found, violation{path: v.at(), rule: notNull})
				v.leave()
			}
			continue
		}
		if f.node.checked {
			v.enter(step{name: f.name})
			v.value(f.node, f.at(p))
			v.leave()
		}
	}
}

func (n *node) requires(f *field) bool {
	for _, r := range n.required {
		if r == f {
			return true
		}
	}
	return false
}

func (v *validator) value(n *node, p unsafe.Pointer) {
	switch n.kind {
	case kindStruct:
		v.structure(n, p)
	case kindList:
		v.list(n, p)
	case kindMap:
		v.mapping(n, p)
	case kindUnion:
		if m, q := n.variantOf(p); m != nil {
			v.enter(step{name: m.name})
			v.value(m.node, q)
			v.leave()
		}
	default:
		v.scalar(n, p, "", func() string { return string(n.appendText(nil, p, "", "")) })
	}
}

// scalar checks one value; what is how it is shown when something is wrong.
func (v *validator) scalar(n *node, p unsafe.Pointer, within string, what func() string) {
	bad := func(rule constraint, bound string) {
		v.found = append(v.found, violation{
			path: v.at(), value: what(), shown: !n.shape.Sensitive, rule: rule, bound: bound, set: n.shape.Enum, within: within,
		})
	}
	switch n.kind {
	case kindString:
		s := *stringAt(p)
		if n.pattern != nil && !n.pattern.MatchString(s) {
			bad(matches, n.shape.Pattern)
		}
		if n.shape.Min != nil || n.shape.Max != nil {
			v.length(n, utf8.RuneCountInString(s), bad)
		}
		if n.enum != nil {
			if _, ok := n.enum[s]; !ok {
				bad(enumValue, "")
			}
		}
	case kindBlob:
		v.length(n, lenAt(p), bad)
	case kindInt:
		v.number(n, float64(*intAt(p)), bad)
	case kindLong:
		v.number(n, float64(*longAt(p)), bad)
	case kindFloat:
		v.number(n, float64(*floatAt(p)), bad)
	case kindDouble:
		v.number(n, *doubleAt(p), bad)
	}
}

func (v *validator) length(n *node, length int, bad func(constraint, string)) {
	if m := n.shape.Min; m != nil && float64(length) < *m {
		bad(minLength, number(*m))
	}
	if m := n.shape.Max; m != nil && float64(length) > *m {
		bad(maxLength, number(*m))
	}
}

func (v *validator) number(n *node, value float64, bad func(constraint, string)) {
	if m := n.shape.Min; m != nil && !(value >= *m) {
		bad(minValue, number(*m))
	}
	if m := n.shape.Max; m != nil && !(value <= *m) {
		bad(maxValue, number(*m))
	}
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (v *validator) list(n *node, p unsafe.Pointer) {
	show := func() string { return n.show(p) }
	v.length(n, lenAt(p), func(rule constraint, bound string) {
		v.found = append(v.found, violation{path: v.at(), value: show(), shown: n.elem.isScalar() || lenAt(p) == 0, rule: rule, bound: bound})
	})
	if !n.elem.checked {
		return
	}
	for i := range lenAt(p) {
		if len(v.found) >= maxViolations {
			return
		}
		if n.elem.isScalar() { // reported at the list, once
			before := len(v.found)
			if v.scalar(n.elem, n.index(p, i), "Member", show); len(v.found) > before {
				return
			}
			continue
		}
		v.enter(step{i: i + 1})
		v.value(n.elem, n.index(p, i))
		v.leave()
	}
}

func (v *validator) mapping(n *node, p unsafe.Pointer) {
	m := n.value(p)
	show := func() string { return n.show(p) }
	v.length(n, m.Len(), func(rule constraint, bound string) {
		v.found = append(v.found, violation{path: v.at(), value: show(), shown: n.elem.isScalar(), rule: rule, bound: bound})
	})
	for it := m.MapRange(); it.Next() && len(v.found) < maxViolations; {
		if n.key != nil && n.key.checked {
			k := it.Key().String()
			before := len(v.found)
			if v.scalar(n.key, unsafe.Pointer(&k), "Map keys", show); len(v.found) > before {
				return
			}
		}
		if !n.elem.checked {
			continue
		}
		q := addressable(it.Value())
		if !n.elem.isScalar() {
			v.enter(step{name: it.Key().String() + ".member"})
			v.value(n.elem, q)
			v.leave()
			continue
		}
		before := len(v.found)
		if v.scalar(n.elem, q, "Map value", show); len(v.found) > before {
			return
		}
	}
}

// show renders a list or map of scalars as AWS's messages do: [a, b] and {k=v}.
func (n *node) show(p unsafe.Pointer) string {
	var b strings.Builder
	switch {
	case n.kind == kindList && n.elem.isScalar():
		b.WriteByte('[')
		for i := range lenAt(p) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.Write(n.elem.appendText(nil, n.index(p, i), "", ""))
		}
		b.WriteByte(']')
	case n.kind == kindList:
		return "[]"
	case n.elem.isScalar():
		b.WriteByte('{')
		for i, k := range sortedKeys(n.value(p)) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(k.String() + "=")
			b.Write(n.elem.appendText(nil, addressable(n.value(p).MapIndex(k)), "", ""))
		}
		b.WriteByte('}')
	}
	return b.String()
}

func sortedKeys(m reflect.Value) []reflect.Value {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
