package policy

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// member is one name of a JSON object with its value: a string, bool, json.Number, nil, []any or object.
type member struct {
	name  string
	value any
}

// object is a JSON object in the order in which it is written.
type object []member

// maxNesting is deeper than any policy goes.
const maxNesting = 16

var errJSON = errors.New("not a JSON document")

// readJSON reads text, which must be one value. Unlike encoding/json it refuses a name that is there twice: two readers must
// not come to different meanings of one policy.
func readJSON(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	v, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return v, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if text, ok := t.(string); err != nil || depth > maxNesting || ok && hasMarks(text) {
		return nil, errJSON
	}
	switch t {
	case json.Delim('{'):
		return readObject(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

func readObject(d *json.Decoder, depth int) (any, error) {
	o, seen := object{}, map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[name] || hasMarks(name) {
			return nil, errJSON
		}
		seen[name] = true
		v, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		o = append(o, member{name, v})
	}
	_, err := d.Token()
	return o, err
}

// texts are the strings of a string or a list of strings.
func texts(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			list[i] = s
		}
		return list, true
	}
	return nil, false
}

// scalars are the values of a condition as texts: strings, numbers and booleans, one or a list.
func scalars(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	out := make([]string, len(list))
	for i, e := range list {
		switch e := e.(type) {
		case string:
			out[i] = e
		case bool:
			out[i] = "false"
			if e {
				out[i] = "true"
			}
		case json.Number:
			out[i] = e.String()
		default:
			return nil, false
		}
	}
	return out, true
}
