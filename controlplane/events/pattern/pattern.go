// Package pattern matches events by EventBridge's event patterns: a JSON object in which every field has to match (and), by any of the
// values of its list (or). Values are compared as they are written: the number 300 is not 300.0. Where an event has a list, one element
// that matches is enough.
//
// Comparisons are {"prefix"}, {"suffix"}, {"equals-ignore-case"}, {"anything-but"} (values, or a prefix or suffix), {"exists"} and {"numeric"}.
// Parse refuses others by name (wildcard, cidr, $or): a pattern never means less than it says.
package pattern

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// MaxLength is how long a pattern may be, as in EventBridge.
const MaxLength = 4096

// Pattern is a parsed one. The zero value matches everything.
type Pattern struct{ root object }

type object []field

type field struct {
	name   string
	inner  object       // for an object
	values []comparison // otherwise; any of them
}

// comparison says whether a value matches; present is false where the event has no such leaf: no field, or an object or an empty list in
// its place.
type comparison func(value any, present bool) bool

// Parse reads a pattern. Its errors name the field.
func Parse(text []byte) (*Pattern, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("the pattern is longer than %d bytes", MaxLength)
	}
	v, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("the pattern is not JSON: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the pattern is not an object")
	}
	root, err := parseObject("", m)
	if err != nil {
		return nil, err
	}
	return &Pattern{root}, nil
}

func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is something behind its end")
	}
	return v, nil
}

func parseObject(path string, m map[string]any) (object, error) {
	if len(m) == 0 {
		return nil, fmt.Errorf("%s is empty", or(path, "the pattern"))
	}
	var list object
	for _, name := range slices.Sorted(maps.Keys(m)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		f := field{name: name}
		var err error
		switch v := m[name].(type) {
		case map[string]any:
			f.inner, err = parseObject(at, v)
		case []any:
			if name == "$or" {
				return nil, fmt.Errorf("%s is not supported", at)
			}
			f.values, err = parseValues(at, v)
		default:
			err = fmt.Errorf("%s is neither an object nor a list", at)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func parseValues(at string, list []any) (out []comparison, err error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is an empty list", at)
	}
	for _, v := range list {
		var c comparison
		switch v := v.(type) {
		case map[string]any:
			c, err = parseComparison(at, v)
		case []any:
			err = fmt.Errorf("%s has a list within its list", at)
		default:
			c = equals(v)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// equals compares scalars; numbers are json.Number, so as they are written.
func equals(want any) comparison {
	return func(v any, present bool) bool { return present && v == want }
}

// Match says whether the pattern matches an event in JSON.
func (p *Pattern) Match(event []byte) (bool, error) {
	if p.root == nil {
		return true, nil
	}
	v, err := decode(event)
	if err != nil {
		return false, err
	}
	return p.root.match(v), nil
}

// match: of a list one element that matches as a whole is enough.
func (o object) match(v any) bool {
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, func(e any) bool { return o.match(e) })
	}
	m, _ := v.(map[string]any) // none: its fields do not exist
	for _, f := range o {
		in, ok := m[f.name]
		switch {
		case f.inner != nil:
			if !f.inner.match(in) {
				return false
			}
		case !f.matchLeaf(in, ok):
			return false
		}
	}
	return true
}

func (f *field) matchLeaf(v any, present bool) bool {
	leaves := []any{v}
	switch v := v.(type) {
	case map[string]any:
		present = false
	case []any:
		leaves = flatten(nil, v)
		present = len(leaves) > 0
	}
	if !present {
		return slices.ContainsFunc(f.values, func(c comparison) bool { return c(nil, false) })
	}
	return slices.ContainsFunc(leaves, func(leaf any) bool {
		return slices.ContainsFunc(f.values, func(c comparison) bool { return c(leaf, true) })
	})
}

// flatten is the scalars of a list.
func flatten(to, list []any) []any {
	for _, v := range list {
		switch v := v.(type) {
		case []any:
			to = flatten(to, v)
		case map[string]any:
		default:
			to = append(to, v)
		}
	}
	return to
}
