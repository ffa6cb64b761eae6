package pattern

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// parseComparison reads {"prefix": "x"} and its like.
func parseComparison(at string, m map[string]any) (comparison, error) {
	if len(m) != 1 {
		return nil, fmt.Errorf("%s has a comparison of %d names, one is wanted", at, len(m))
	}
	for name, arg := range m {
		at := at + "." + name
		switch name {
		case "prefix", "suffix", "equals-ignore-case":
			test, err := parseText(at, name, arg)
			if err != nil {
				return nil, err
			}
			return func(v any, _ bool) bool { s, ok := v.(string); return ok && test(s) }, nil
		case "anything-but":
			return parseAnythingBut(at, arg)
		case "exists":
			want, ok := arg.(bool)
			if !ok {
				return nil, fmt.Errorf("%s is neither true nor false", at)
			}
			return func(_ any, present bool) bool { return present == want }, nil
		case "numeric":
			return parseNumeric(at, arg)
		}
		return nil, fmt.Errorf("%s is not supported: prefix, suffix, equals-ignore-case, anything-but, exists and numeric are", at)
	}
	panic("unreachable")
}

func parseText(at, name string, arg any) (func(string) bool, error) {
	want, ok := arg.(string)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s is not a string", at)
	case want == "" && name != "equals-ignore-case":
		return nil, fmt.Errorf("%s is empty", at)
	case name == "prefix":
		return func(s string) bool { return strings.HasPrefix(s, want) }, nil
	case name == "suffix":
		return func(s string) bool { return strings.HasSuffix(s, want) }, nil
	}
	return func(s string) bool { return strings.EqualFold(s, want) }, nil
}

// parseAnythingBut: a value that is there and none of these.
func parseAnythingBut(at string, arg any) (comparison, error) {
	if m, ok := arg.(map[string]any); ok {
		for name := range m {
			if len(m) != 1 || name != "prefix" && name != "suffix" {
				return nil, fmt.Errorf("%s.%s is not supported: prefix and suffix are", at, name)
			}
			test, err := parseText(at+"."+name, name, m[name])
			if err != nil {
				return nil, err
			}
			return func(v any, present bool) bool { s, ok := v.(string); return present && !(ok && test(s)) }, nil
		}
		return nil, fmt.Errorf("%s is empty", at)
	}
	list, ok := arg.([]any)
	if !ok {
		list = []any{arg}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is an empty list", at)
	}
	for _, v := range list {
		_, text := v.(string)
		_, number := v.(json.Number)
		if !text && !number {
			return nil, fmt.Errorf("%s takes strings and numbers alone", at)
		}
	}
	return func(v any, present bool) bool { return present && !slices.Contains(list, v) }, nil
}

// numericLimit bounds the numbers of a pattern, as in EventBridge.
const numericLimit = 5e9

// parseNumeric reads ["=", 1], [">", 0] or [">=", 0, "<", 10].
func parseNumeric(at string, arg any) (comparison, error) {
	list, ok := arg.([]any)
	if !ok || len(list) != 2 && len(list) != 4 {
		return nil, fmt.Errorf("%s is not a list of one or two operators, each with its number", at)
	}
	var tests []func(float64) bool
	var kinds string
	for pair := range slices.Chunk(list, 2) {
		op, _ := pair[0].(string)
		n, ok := pair[1].(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s: what stands behind %q is not a number", at, op)
		}
		want, err := n.Float64()
		if err != nil || want < -numericLimit || want > numericLimit {
			return nil, fmt.Errorf("%s: %s is not between -5e9 and 5e9", at, n)
		}
		test := map[string]func(float64) bool{
			"=": func(v float64) bool { return v == want },
			"<": func(v float64) bool { return v < want }, "<=": func(v float64) bool { return v <= want },
			">": func(v float64) bool { return v > want }, ">=": func(v float64) bool { return v >= want },
		}[op]
		if test == nil {
			return nil, fmt.Errorf("%s: %v is no operator: =, <, <=, > and >= are", at, pair[0])
		}
		tests, kinds = append(tests, test), kinds+op[:1]
	}
	if len(tests) == 2 && kinds != "><" {
		return nil, fmt.Errorf("%s: of two operators the first is > or >= and the second < or <=", at)
	}
	return func(v any, _ bool) bool {
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		f, err := n.Float64()
		return err == nil && !slices.ContainsFunc(tests, func(test func(float64) bool) bool { return !test(f) })
	}, nil
}
